"""Test of a real host from outside: what browsers and attackers see first. It changes nothing."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from mks_check.production_check.http_response import HttpResponse, decoded
from mks_check.production_check.page_faults import page_faults

__all__ = ["Finding", "Target", "probe", "request"]

_DAY: Final = 86_400
_GRADE_A_PLUS: Final = 180 * _DAY
"""SSL Labs 2009q requires at least this HSTS duration for A+, in seconds."""

_TIMEOUT: Final = 10
_LARGEST_PAGE: Final = 1024 * 1024
_READ: Final = ("text/", "application/javascript", "application/x-javascript")


@dataclass(frozen=True, slots=True)
class Target:
    """The host to test.

    Attributes:
        host: host name.
        https_port: port of HTTPS.
        http_port: port of plain HTTP.
        address: address to connect to instead of resolving the name.
        ca_file: CA to trust instead of the system's.
    """

    host: str
    https_port: int = 443
    http_port: int = 80
    address: str = ""
    ca_file: Path | None = None

    @property
    def url(self) -> str:
        """Address of the site, without a path."""
        return f"https://{self.host}" + ("" if self.https_port == 443 else f":{self.https_port}")

    @classmethod
    def from_url(cls, url: str, *, http_port: int, address: str, ca_file: Path | None) -> Target:
        """Parse ``https://host[:port]``.

        Raises:
            ValueError: the URL has another form.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path not in {"", "/"} or parts.username:
            raise ValueError("an address such as https://shop.example.jp")
        return cls(parts.hostname, parts.port or 443, http_port, address, ca_file)


@dataclass(frozen=True, slots=True)
class Finding:
    """One result.

    Attributes:
        promise: the expectation.
        holds: whether it holds.
        seen: what was observed.
        note: whether the host is in order even if it does not hold, because its operator may have decided so.
    """

    promise: str
    holds: bool
    seen: str
    note: bool = False


def probe(
    target: Target, *, pages: Sequence[str] = (), websocket: str = "", now: datetime | None = None
) -> Iterator[Finding]:
    """Run every check in order: TLS, redirects, headers, pages, host names, files.

    Args:
        target: the host.
        pages: paths of pages to open as a browser does, beside the front page and the sign-in page.
        websocket: path of a WebSocket that must be reached; empty if there is none.
        now: time of the test.
    """
    yield from _tls(target, now or datetime.now(UTC))
    yield from _plain(target)
    yield from _fields(target)
    yield from _pages(target, pages, websocket)
    yield from _names(target)
    for path in ("/.git/config", "/.env"):
        answer = request(target, path)
        yield Finding(f"{path} does not exist", _status(answer) in {403, 404}, _shown_status(answer))
    answer = request(target, "/", method="TRACE")
    yield Finding("TRACE is refused", answer is None or answer.status >= 400, _shown_status(answer))


def _tls(target: Target, now: datetime) -> Iterator[Finding]:
    context = ssl.create_default_context(cafile=str(target.ca_file) if target.ca_file else None)
    try:
        with (
            _connected(target, target.https_port) as plain,
            context.wrap_socket(plain, server_hostname=target.host) as secured,
        ):
            certificate, chosen = secured.getpeercert() or {}, secured.cipher()
            yield Finding("the chain is trusted and names the host", True, str(secured.version()))
    except (OSError, ssl.SSLError) as error:
        yield Finding("the chain is trusted and names the host", False, str(error)[:100])
        return
    cipher = chosen[0] if chosen else ""
    strong = bool(re.search(r"GCM|CHACHA20|CCM", cipher))
    yield Finding("the cipher is an AEAD with forward secrecy", strong, cipher)
    begin, end = (ssl.cert_time_to_seconds(str(certificate[key])) for key in ("notBefore", "notAfter"))
    left = end - now.timestamp()
    yield Finding("the certificate lasts", left > (end - begin) * 0.25, f"{left / _DAY:.0f} days left")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for version, name in ((ssl.TLSVersion.TLSv1, "TLS 1.0"), (ssl.TLSVersion.TLSv1_1, "TLS 1.1")):
            yield Finding(f"{name} is refused", not _handshake(target, target.host, version), "")
    yield Finding("TLS 1.3 is offered", _handshake(target, target.host, ssl.TLSVersion.TLSv1_3), "")


def _plain(target: Target) -> Iterator[Finding]:
    for method, allowed in (("GET", {301, 308}), ("POST", {308, 403})):
        answer = request(target, "/x?y=z", method=method, tls=False)
        place = answer.all("Location") if answer else []
        good = _status(answer) in allowed and place in ([f"{target.url}/x?y=z"], [])
        yield Finding(
            f"plain http: {method} is redirected to https", good, " ".join([_shown_status(answer), *place])
        )
    stranger = request(target, "/", host="unknown.invalid", tls=False)
    places = stranger.all("Location") if stranger else []
    yield Finding("plain http: an unknown host is not redirected", not places, _shown_status(stranger))


def _fields(target: Target) -> Iterator[Finding]:
    for path in ("/", "/.env", "/static/absent"):
        answer = request(target, path)
        if answer is None:
            yield Finding(f"{path} answers", False, "nothing")
            continue
        hsts = answer.all("Strict-Transport-Security")
        age = re.search(r"max-age=(\d+)", hsts[0]) if len(hsts) == 1 else None
        lasts = int(age[1]) if age else 0
        yield Finding(f"{path}: HSTS once", lasts > 0, "; ".join(hsts))
        if path == "/" and lasts:
            long = lasts >= _GRADE_A_PLUS
            advice = "" if long else '; set tls.hsts_max_age = "730d" once https has worked for a week'
            yield Finding("HSTS for 180 days or more", long, f"max-age={lasts}{advice}", note=True)
        for name in ("X-Content-Type-Options", "Referrer-Policy", "Cache-Control"):
            yield Finding(
                f"{path}: {name} once", len(answer.all(name)) == 1, "; ".join(answer.all(name))[:80]
            )
        policies = answer.all("Content-Security-Policy")
        shown = "; ".join(policies)[:80] or "none; edge.content_security_policy may name one"
        yield Finding(f"{path}: Content-Security-Policy", bool(policies), shown, note=True)
        server = "; ".join(answer.all("Server"))
        yield Finding(f"{path}: no version of the server", not re.search(r"\d", server), server)


def _pages(target: Target, pages: Sequence[str], websocket: str) -> Iterator[Finding]:
    """Open the front page, the sign-in page and others, and look for what a browser would not show."""

    def get(path: str, fields: Mapping[str, str]) -> HttpResponse:
        return request(target, path, fields=fields) or HttpResponse(url=target.url + path, error="closed")

    faults = page_faults(get, f"{target.url}/", pages=pages, websocket=websocket)
    for page, certain in dict.fromkeys((each.page, each.certain) for each in faults):
        found = [each for each in faults if (each.page, each.certain) == (page, certain)]
        seen = [each.text for each in found[:3]] + [f"{len(found) - 3} more"] * (len(found) > 3)
        settings = [f"allowed by {each}" for each in dict.fromkeys(each.setting for each in found) if each]
        text = "; ".join((*seen, *settings))
        yield Finding(f"{page}: a browser shows all of the page", False, text, note=not certain)
    if not faults:
        yield Finding("a browser shows all of the pages", True, "")


def _names(target: Target) -> Iterator[Finding]:
    refused = not _handshake(target, "unknown.invalid", None)
    yield Finding("an unknown name is refused in the handshake", refused, "")
    answer = request(target, "/", host="unknown.invalid")
    yield Finding(
        "an unknown host behind a known handshake is refused",
        _status(answer) not in range(200, 400),
        _shown_status(answer),
    )


def _handshake(target: Target, name: str, version: ssl.TLSVersion | None) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Only tests whether the handshake succeeds; nothing is sent.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
        if version < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with _connected(target, target.https_port) as plain, context.wrap_socket(plain, server_hostname=name):
            return True
    except OSError:
        return False


def request(
    target: Target,
    path: str,
    *,
    method: str = "GET",
    host: str = "",
    tls: bool = True,
    fields: Mapping[str, str] | None = None,
) -> HttpResponse | None:
    """Send one request on a new connection; return ``None`` if it is refused or broken off."""
    port = target.https_port if tls else target.http_port
    connection = http.client.HTTPConnection(target.address or target.host, port, timeout=_TIMEOUT)
    try:
        plain = _connected(target, port)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # verified separately above
            plain = context.wrap_socket(plain, server_hostname=target.host)
        connection.sock = plain
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host or target.host)
        if method == "POST":
            connection.putheader("Content-Length", "0")
        for name, value in (fields or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        # A response with Connection: close owns the socket, and is closed separately.
        with connection.getresponse() as answer:
            kind = answer.headers.get_content_type()
            body = answer.read(_LARGEST_PAGE) if kind.startswith(_READ) else b""
            return HttpResponse(
                url=target.url + path,
                status=answer.status,
                fields=tuple((name.lower(), value) for name, value in answer.getheaders()),
                body=decoded(body, answer.headers.get("Content-Type", "")),
            )
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _connected(target: Target, port: int) -> socket.socket:
    return socket.create_connection((target.address or target.host, port), timeout=_TIMEOUT)


def _status(answer: HttpResponse | None) -> int:
    return answer.status if answer else 0


def _shown_status(answer: HttpResponse | None) -> str:
    return str(answer.status) if answer else "closed"
