"""Requests to a live site: bounded in number, time and bytes, only reading, and to its own host alone."""

from __future__ import annotations

import re
import socket
import ssl
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from mks_check.production_check.http_response import HttpResponse, parse_response
from mks_check.production_check.live_facts import LiveFacts, TlsFacts
from mks_check.production_check.page_faults import own_path, page_faults
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.exceptions import ConfigurationError

__all__ = ["live_facts"]

_MOST_REQUESTS: Final = 80
_MOST_BYTES: Final = 1_048_576
_SECONDS: Final = 5.0
_TOTAL: Final = 60.0
_HOPS: Final = 3
MARKER: Final = "spoofed.example.net"
_ADDRESS: Final = "198.51.100.77"  # for documentation (RFC 5737)
_FILES: Final = {"git": "/.git/HEAD", "env": "/.env", "map": "/static/app.js.map"}
_HEALTH: Final = ("/readyz", "/healthz", "/health", "/metrics", "/nginx-status", "/server-status")
_STATIC: Final = re.compile(r"""(?:href|src)=["']([^"'<>\s]{1,300}\.(?:css|js)(?:\?[^"'<>\s]{0,200})?)["']""")
_MOST_FILES: Final = 20
_OLD: Final = {"TLSv1": ssl.TLSVersion.TLSv1, "TLSv1.1": ssl.TLSVersion.TLSv1_1}


class _Target(NamedTuple):
    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        usual = {"http": 80, "https": 443}[self.scheme]
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == usual else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def live_facts(
    url: str, *, pages: Iterable[str] = (), websocket: str = "", ca_file: str | None, body_limit: int | None,
    now: float, failed: list[str],
) -> LiveFacts | None:  # fmt: skip
    """Return the responses of a site; ``None`` if it cannot be reached at all, which ``failed`` then says.

    Raises:
        ConfigurationError: ``url`` is not an address of a site, or ``ca_file`` cannot be read.
    """
    target = _target(url)
    probe = _Probe(target, _context(ca_file))
    first = probe.get("page", target.path)
    if first.error and not probe.tls_error:
        failed.append(f"{target.scheme}://{target.authority} cannot be reached: {first.error}")
        return None
    _ask(probe, target, body_limit)
    faults = page_faults(
        lambda path, fields: probe.get(f"opened {path}", path, fields=fields), target.url, pages=pages, websocket=websocket
    )  # fmt: skip
    tls = probe.handshakes() if target.scheme == "https" else None
    return LiveFacts(
        url=url, now=now, responses=probe.responses, tls=tls, marker=MARKER, body_limit=body_limit,
        page_faults=tuple(faults),
    )  # fmt: skip


def _ask(probe: _Probe, target: _Target, body_limit: int | None) -> None:
    """Send every request; the name says what it is for."""
    probe.follow("page")
    probe.get("missing", "/mks-hardening-check-missing-page")
    probe.get("malformed", "/%00%ff<script>")
    for name, path in _FILES.items():
        probe.get(name, path)
    for number, path in enumerate(_HEALTH):
        probe.get(f"health{number}", path)
    probe.get("host", target.path, fields={"Host": MARKER})
    spoofed = {
        "X-Forwarded-Host": MARKER,
        "X-Forwarded-For": _ADDRESS,
        "X-Real-IP": _ADDRESS,
        "X-Forwarded-Prefix": f"/{MARKER}",
        "Forwarded": f"for={_ADDRESS};host={MARKER};proto=http",
    }
    probe.get("spoofed", target.path, fields=spoofed)
    probe.get("spoofed missing", "/mks-hardening-check-missing-page", fields=spoofed)
    probe.get(
        "spoofed scheme",
        target.path,
        fields={"X-Forwarded-Proto": "http" if target.scheme == "https" else "https"},
    )
    probe.get("cors", target.path, fields={"Origin": f"https://{MARKER}"})
    probe.get("cors null", target.path, fields={"Origin": "null"})
    probe.get("trace", target.path, method="TRACE")
    if static := _static_path(probe.responses.get("page"), target):
        probe.get("static", static)
    if body_limit is not None:
        # No body follows: a server that keeps its promise refuses by the declared size.
        fields = {
            "Content-Length": str(body_limit + 1),
            "Expect": "100-continue",
            "Content-Type": "application/octet-stream",
        }
        probe.get("too large", "/mks-hardening-check-missing-page", method="POST", fields=fields)
    if target.scheme == "https":
        plain = _Probe(
            _Target("http", target.host, 80 if target.port == 443 else target.port, "/"), probe.context
        )
        plain.responses, plain.count = probe.responses, probe.count
        if target.port == 443:
            plain.get("plain", "/mks?check=1")
            plain.get("plain host", "/", fields={"Host": MARKER})


def _static_path(page: HttpResponse | None, target: _Target) -> str:
    """Return the first style sheet or script of the page that is on the same host."""
    found = _STATIC.findall(page.body if page else "")[:_MOST_FILES]
    return next((path for reference in found if (path := own_path(target.url, reference, target.url))), "")


def _target(url: str) -> _Target:
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii").lower() if parts.hostname else ""
    except (ValueError, UnicodeError):
        parts, port, host = urlsplit(""), None, ""
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or parts.username is not None
        or any(map(str.isspace, url))
    ):
        raise ConfigurationError(
            "url must be the address of a site, such as https://www.example.com/, without user and password",
            parameter="url",
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = _Target(parts.scheme, host, port or {"http": 80, "https": 443}[parts.scheme], path)
    if not own_path(target.url, path, target.url):
        raise ConfigurationError(
            "url must have a path of ASCII characters (percent-encoded)", parameter="url"
        )
    return target


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"ca_file must be a readable PEM file of certificates ({type(error).__name__})",
            parameter="ca_file",
        ) from None


class _Probe:
    """Sends requests to one host, within its bounds."""

    def __init__(self, target: _Target, context: ssl.SSLContext) -> None:
        self.context = context
        self.count = 0
        self.responses: dict[str, HttpResponse] = {}
        self.tls_error = ""
        self._target = target
        self._end = SYSTEM_CLOCK.monotonic() + _TOTAL
        self._validity = (0.0, 0.0)

    def get(
        self, name: str, path: str, *, method: str = "GET", fields: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Send a request, and store the response under a name."""
        url = f"{self._target.scheme}://{self._target.authority}{path}"
        if self.count >= _MOST_REQUESTS or SYSTEM_CLOCK.monotonic() > self._end:
            response = HttpResponse(url=url, error="the bounds of the check were reached")
        else:
            self.count += 1
            given = {
                "Host": self._target.authority,
                "User-Agent": "mks-hardening-check",
                "Accept": "text/html,*/*",
                "Connection": "close",
                **(fields or {}),
            }
            lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in given.items())]
            request = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
            response = self._exchange(url, request)
        self.responses[name] = response
        return response

    def follow(self, name: str) -> None:
        """Follow redirects of a response on the same host; those to another host stay as they are."""
        for hop in range(_HOPS):
            response = self.responses[name]
            location = response.field("location")
            path = own_path(response.url, location, self._target.url) if location else ""
            if not 300 <= response.status < 400 or not path:
                return
            self.responses[f"{name} hop {hop}"] = response
            self.get(name, path)

    def _exchange(self, url: str, request: bytes) -> HttpResponse:
        end = min(SYSTEM_CLOCK.monotonic() + 2 * _SECONDS, self._end)
        try:
            with self._connected() as connection:
                connection.sendall(request)
                data = self._received(connection, end)
        except (OSError, ValueError) as error:
            return HttpResponse(url=url, error=f"{type(error).__name__}: {error}")
        return parse_response(data, url)

    def _received(self, connection: socket.socket, end: float) -> bytes:
        found = bytearray()
        while len(found) < _MOST_BYTES and SYSTEM_CLOCK.monotonic() < end:
            try:
                piece = connection.recv(65_536)
            except (TimeoutError, ssl.SSLError, ConnectionError):
                break
            if not piece:
                break
            found += piece
            if found.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in found:
                break  # a WebSocket, which stays open
        return bytes(found[:_MOST_BYTES])

    def _connected(self) -> socket.socket:
        raw = socket.create_connection((self._target.host, self._target.port), timeout=_SECONDS)
        if self._target.scheme == "http":
            return raw
        if not self.tls_error:
            try:
                secured = self.context.wrap_socket(raw, server_hostname=self._target.host)
                self._read_certificate(secured)
            except ssl.SSLCertVerificationError as error:
                self.tls_error = error.verify_message or str(error)
                raw = socket.create_connection((self._target.host, self._target.port), timeout=_SECONDS)
            else:
                return secured
        return _unverified().wrap_socket(raw, server_hostname=self._target.host)

    def _read_certificate(self, connection: ssl.SSLSocket) -> None:
        certificate = connection.getpeercert() or {}
        with suppress(KeyError, ValueError, TypeError):
            begin = ssl.cert_time_to_seconds(str(certificate["notBefore"]))
            self._validity = (begin, ssl.cert_time_to_seconds(str(certificate["notAfter"])))

    def handshakes(self) -> TlsFacts:
        """Try versions that nobody should accept any more, and return what is known of TLS."""
        old = [name for name, version in _OLD.items() if self._accepts(version)]
        return TlsFacts(
            error=self.tls_error,
            not_before=self._validity[0],
            not_after=self._validity[1],
            old_versions=tuple(old),
        )

    def _accepts(self, version: ssl.TLSVersion) -> bool:
        context = _unverified()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # that is the question
                context.minimum_version = context.maximum_version = version
            context.set_ciphers("ALL:@SECLEVEL=0")
            raw = socket.create_connection((self._target.host, self._target.port), timeout=_SECONDS)
            with raw, context.wrap_socket(raw, server_hostname=self._target.host):
                return True
        except (OSError, ValueError):
            return False


def _unverified() -> ssl.SSLContext:
    """Return a context for looking at a site whose certificate has been reported as invalid; no secret is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
