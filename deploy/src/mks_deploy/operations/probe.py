"""Test of a real host from outside: what browsers and attackers see first. It changes nothing."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

from mks_hardening.production_check.csp_evaluation import evaluate_page

__all__ = ["Answer", "Finding", "Target", "probe", "request"]

_DAY: Final = 86_400
_GRADE_A_PLUS: Final = 180 * _DAY
"""SSL Labs 2009q requires at least this HSTS duration for A+, in seconds."""

_TIMEOUT: Final = 10
_LARGEST_PAGE: Final = 1024 * 1024
_HOPS: Final = 5
_SIGN_IN_LINK: Final = re.compile(
    r"""<a\s[^>]*href=["']?([^"'\s>]*(?:log|sign)[-_]?in[^"'\s>]*)""", re.IGNORECASE
)


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


@dataclass(frozen=True, slots=True)
class Answer:
    """The status, the header fields and, of a page, the HTML of a response."""

    status: int
    fields: tuple[tuple[str, str], ...]
    html: str = ""

    def all(self, name: str) -> list[str]:
        """Return each value of a field."""
        return [value for field, value in self.fields if field.lower() == name.lower()]


def probe(target: Target, *, now: datetime | None = None) -> Iterator[Finding]:
    """Run every check in order: TLS, redirects, headers, pages, host names, files."""
    yield from _tls(target, now or datetime.now(UTC))
    yield from _plain(target)
    yield from _fields(target)
    yield from _pages(target)
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
    port = "" if target.https_port == 443 else f":{target.https_port}"
    for method, allowed in (("GET", {301, 308}), ("POST", {308, 403})):
        answer = request(target, "/x?y=z", method=method, tls=False)
        place = answer.all("Location") if answer else []
        good = _status(answer) in allowed and place in ([f"https://{target.host}{port}/x?y=z"], [])
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


def _pages(target: Target) -> Iterator[Finding]:
    """Open the front page and the sign-in page, and look for what their policies keep from a browser."""
    front, page = _open_page(target, "/")
    link = _SIGN_IN_LINK.search(page.html) if page else None
    sign_in = urlsplit(urljoin(front, unescape(link[1]))) if link else urlsplit("")
    pages = [(front, page)]
    if sign_in.hostname == target.host and sign_in._replace(fragment="").geturl() != front:
        pages.append(_open_page(target, sign_in._replace(scheme="", netloc="", fragment="").geturl()))
    for url, each in pages:
        if each and each.html:
            blocked = list(evaluate_page(each.all("Content-Security-Policy"), url, each.html).blocked)
            seen = "; ".join(f"{what.directive} blocks {what.source} of <{what.tag}>" for what in blocked[:3])
            more = f"; {len(blocked) - 3} more" if len(blocked) > 3 else ""
            yield Finding(f"{urlsplit(url).path}: a browser shows all of the page", not blocked, seen + more)


def _open_page(target: Target, path: str) -> tuple[str, Answer | None]:
    """Return the address and the response that redirects on the host lead to."""
    port = "" if target.https_port == 443 else f":{target.https_port}"
    url, answer = f"https://{target.host}{port}{path}", request(target, path)
    for _ in range(_HOPS):
        places = answer.all("Location") if answer and 300 <= answer.status < 400 else []
        parts = urlsplit(urljoin(url, places[0])) if places else urlsplit("")
        if parts.hostname != target.host:
            break
        path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        url, answer = f"https://{target.host}{port}{path}", request(target, path)
    return url, answer


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
) -> Answer | None:
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
            page = answer.read(_LARGEST_PAGE) if answer.headers.get_content_type() == "text/html" else b""
            return Answer(answer.status, tuple(answer.getheaders()), page.decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _connected(target: Target, port: int) -> socket.socket:
    return socket.create_connection((target.address or target.host, port), timeout=_TIMEOUT)


def _status(answer: Answer | None) -> int:
    return answer.status if answer else 0


def _shown_status(answer: Answer | None) -> str:
    return str(answer.status) if answer else "closed"
