"""Outgoing HTTP for the whole package; the only module that uses requests.

Every request has a timeout, ignores proxies and credentials from the environment, follows no redirects, stores no
cookies and verifies certificates. The response size is limited. Callers check configured URLs with ``check_url``. A
URL never appears in an error: webhook URLs are secrets.

Only the adapter of requests is used, not its session: that reads the whole body of a redirect regardless of size,
parses its ``Location`` and stores cookies, even when redirects are disabled.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit
from weakref import finalize

from mks_hardening._core.backend.network_errors import UNSENT_REASONS, network_error_reason
from mks_hardening._core.checks import text_of
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.closing import Closing
from mks_hardening._core.codec import json_dumps
from mks_hardening._core.durations import seconds
from mks_hardening._core.loopback import is_loopback
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.resilience.connect import connect_within_deadline
from mks_hardening._core.resilience.deadline_socket import DeadlineSocket, call_deadline
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError

__all__ = ["HttpResponse", "HttpSession", "check_url"]

FromRequests: TypeAlias = Any
"""An object of requests or urllib3, whose internals are untyped."""

_MAX_ANSWER: Final = 65_536


class HttpResponse(NamedTuple):
    """Response of a server; the body is truncated at 64 KiB."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def check_url(url: str, *, parameter: str = "url", allow_plaintext: bool = False) -> str:
    """Return the URL if it is allowed: ``https``, or ``http`` to loopback (elsewhere with ``allow_plaintext``).

    Raises:
        ConfigurationError: another scheme, no host, embedded credentials, or plaintext to another machine.
    """
    try:
        parts = urlsplit(text_of(url, parameter=parameter))
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{parameter} is not a URL", parameter=parameter) from None
    if parts.scheme not in ("http", "https") or not host or "\\" in url or not url.isprintable():
        raise ConfigurationError(f"{parameter} must be an https URL with a host", parameter=parameter)
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{parameter} must not contain credentials", parameter=parameter)
    if parts.scheme == "http" and not allow_plaintext and not is_loopback(host):
        raise ConfigurationError(
            f"{parameter}: clear text is allowed on loopback only; use https", parameter=parameter
        )
    return url


class HttpSession(Closing):
    """HTTP client with persistent connections for one service.

    Args:
        backend: name of the service in errors.
        timeout: seconds for the whole exchange, however slowly the response arrives.
        ca_file: CA certificates to trust instead of the system's.
        ssl_context: SSL context to use instead; nothing is added to its trusted certificates.
        headers: headers of every request.

    Raises:
        MissingDependencyError: requests is not installed.
    """

    def __init__(
        self,
        backend: str,
        *,
        timeout: float | timedelta = 10.0,
        ca_file: str | None = None,
        ssl_context: FromRequests = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._backend = backend
        self._timeout = seconds(timeout, parameter="timeout", allow_zero=False)
        # A compressed response could expand to a thousand times the size that is read.
        self._headers = {"User-Agent": "mks-hardening", "Accept-Encoding": "identity", **(headers or {})}
        self._ca_file = ca_file
        self._ssl_context = ssl_context
        self._adapter: FromRequests = self._connect()
        register_after_fork(self)

    def post(
        self,
        url: str,
        *,
        json: object = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        status_suffices: bool = False,
    ) -> HttpResponse:
        """Send a POST request; ``json`` is encoded strictly, ``data`` is sent unchanged.

        Args:
            url: target, checked with ``check_url`` beforehand.
            json: JSON body.
            data: raw body, instead of ``json``.
            headers: headers of this request.
            status_suffices: whether a response with a truncated body is accepted.

        Raises:
            BackendUnavailableError: no response in time.
            EncodeError: ``json`` cannot be encoded as JSON.
        """
        extra = dict(headers or {})
        if data is None:
            data = json_dumps(json)
            extra.setdefault("Content-Type", "application/json; charset=utf-8")
        return self._send("POST", url, data, extra, status_suffices=status_suffices)

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> HttpResponse:
        """Send a GET request.

        Raises:
            BackendUnavailableError: no response in time.
        """
        return self._send("GET", url, None, dict(headers or {}), status_suffices=False)

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._adapter.close()

    def reset_after_fork(self) -> None:
        """Replace the parent's connections in a forked child."""
        self._adapter = self._connect()

    def __repr__(self) -> str:
        return f"HttpSession({self._backend!r}, timeout={self._timeout:g})"

    def _connect(self) -> FromRequests:
        adapter = _adapter(self._ssl_context)
        # A session that is dropped without ``close()`` must not keep its connections.
        finalize(self, adapter.close).atexit = False
        return adapter

    def _send(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str], *, status_suffices: bool
    ) -> HttpResponse:
        call_deadline.at = SYSTEM_CLOCK.monotonic() + self._timeout
        try:
            with self._adapter.send(
                _prepared(method, url, {**self._headers, **headers}, data),
                stream=True,
                timeout=self._timeout,
                verify=self._ca_file or True,
            ) as response:
                body = _body(response.raw, may_break_off=status_suffices)
                return HttpResponse(response.status_code, response.headers, body)
        except Exception as error:  # noqa: BLE001 - becomes the one typed error
            # requests and urllib3 put the URL into their messages; neither they nor their causes may leave here.
            reason = network_error_reason(error)
            raise BackendUnavailableError(
                self._backend, reason, operation=method, sent=reason not in UNSENT_REASONS
            ) from None
        finally:
            call_deadline.at = None


def _prepared(method: str, url: str, headers: Mapping[str, str], data: bytes | None) -> FromRequests:
    from requests import Request

    return Request(method, url, headers=headers, data=data).prepare()


def _body(raw: FromRequests, *, may_break_off: bool) -> bytes:
    """Return at most 64 KiB of the response body.

    ``read`` rather than ``read1``, which urllib3 has only since 2.2; the socket's deadline limits it anyway.
    """
    body = b""
    try:
        while len(body) < _MAX_ANSWER and (piece := raw.read(_MAX_ANSWER - len(body), decode_content=False)):
            body += piece
    except Exception:
        if not may_break_off:
            raise
    if len(body) < _MAX_ANSWER and raw.length_remaining and not may_break_off:  # urllib3 1.26 does not check
        raise ConnectionResetError("the response was cut off")
    return body


def _adapter(ssl_context: FromRequests) -> FromRequests:
    """Return an adapter whose sockets obey the deadline of the call."""
    with optional("requests", extra="notify"):
        from requests.adapters import HTTPAdapter

    class DeadlineAdapter(HTTPAdapter):
        def init_poolmanager(self, *args: FromRequests, **kwargs: FromRequests) -> None:
            if ssl_context is not None:
                kwargs["ssl_context"] = ssl_context
            super().init_poolmanager(*args, **kwargs)
            manager: FromRequests = self.poolmanager
            manager.pool_classes_by_scheme = {
                scheme: _with_deadline(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
            }

        def cert_verify(self, conn: FromRequests, url: str, verify: FromRequests, cert: FromRequests) -> None:
            if ssl_context is None:
                super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]  # requests is untyped
            else:  # requests would load the public CAs into the caller's context
                conn.cert_reqs = "CERT_REQUIRED"

    return DeadlineAdapter()


def _with_deadline(pool: FromRequests) -> FromRequests:
    """Return a subclass of the pool whose connections are made and used within the deadline."""
    plain: FromRequests = pool.ConnectionCls

    def new_conn(self: FromRequests) -> socket.socket:
        return connect_within_deadline(self._dns_host, self.port, _no_delay)

    def connect(self: FromRequests) -> None:
        plain.connect(self)
        self.sock = DeadlineSocket(self.sock)

    connection = type("DeadlineConnection", (plain,), {"connect": connect, "_new_conn": new_conn})
    return type("DeadlinePool", (pool,), {"ConnectionCls": connection})


def _no_delay(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
