"""One careful way out over HTTP for all areas; the one door to requests.

Always a time-out, no proxies or credentials from the environment, no redirects followed, certificates verified, the
address looked at before anything is sent, and an answer that is bounded. A URL is never part of an error: webhook
addresses are secrets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.codec import json_dumps
from mks_hardening._core.deadline_socket import DeadlineSocket, call_deadline
from mks_hardening._core.durations import seconds
from mks_hardening._core.lazy import optional
from mks_hardening._core.loopback import is_loopback
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError

__all__ = ["HttpAnswer", "HttpSession", "check_url"]

_MAX_ANSWER: Final = 65_536


class HttpAnswer(NamedTuple):
    """What a server answered; the body is cut at 64 KiB."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def check_url(url: str, *, parameter: str = "url", allow_plaintext: bool = False) -> str:
    """The URL, when it may be spoken to: ``https``, or ``http`` to this machine (or with ``allow_plaintext``).

    Raises:
        ConfigurationError: another scheme, no host, credentials inside, or clear text to another machine.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{parameter} is not a URL", parameter=parameter) from None
    if parts.scheme not in ("http", "https") or not host or "\\" in url or not url.isprintable():
        raise ConfigurationError(f"{parameter} must be an https URL with a host", parameter=parameter)
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{parameter} must not hold credentials", parameter=parameter)
    if parts.scheme == "http" and not allow_plaintext and not is_loopback(host):
        raise ConfigurationError(
            f"{parameter}: clear text goes to loopback only; use https", parameter=parameter
        )
    return url


class HttpSession:
    """Keeps connections to one kind of service.

    Args:
        backend: what errors call the service.
        timeout: seconds for a whole exchange, however slowly the answer trickles.
        ca_file: certificates to trust instead of the system's.
        ssl_context: a ready context instead.
        headers: sent with every request.

    Raises:
        MissingDependencyError: requests is not installed.
    """

    def __init__(
        self,
        backend: str,
        *,
        timeout: float | timedelta = 10.0,
        ca_file: str | None = None,
        ssl_context: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._backend = backend
        self._timeout = seconds(timeout, parameter="timeout", allow_zero=False)
        self._headers = {"User-Agent": "mks-hardening", **(headers or {})}
        self._ca_file = ca_file
        self._ssl_context = ssl_context
        self._open()

    def post(
        self,
        url: str,
        *,
        json: object = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        """Send one POST; ``json`` is encoded strictly, ``data`` goes as it is.

        Raises:
            BackendUnavailableError: no answer in time.
            EncodeError: ``json`` is not JSON.
        """
        extra = dict(headers or {})
        if data is None:
            data = json_dumps(json)
            extra.setdefault("Content-Type", "application/json; charset=utf-8")
        return self._send("POST", url, data, extra)

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Send one GET.

        Raises:
            BackendUnavailableError: no answer in time.
        """
        return self._send("GET", url, None, dict(headers or {}))

    def close(self) -> None:
        """Close the connections; harmless when called twice."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"HttpSession({self._backend!r}, timeout={self._timeout:g})"

    def _open(self) -> None:
        with optional("requests", extra="notify"):
            import requests
        self._session: Any = requests.Session()
        self._session.trust_env = False
        self._session.headers.update(self._headers)
        if self._ca_file is not None:
            self._session.verify = self._ca_file
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _adapter(self._ssl_context))
        self._pid = os.getpid()

    def _send(self, method: str, url: str, data: bytes | None, headers: dict[str, str]) -> HttpAnswer:
        if self._pid != os.getpid():
            self._inherited = self._session  # the parent's connections: neither used nor closed here
            self._open()
        call_deadline.at = SYSTEM_CLOCK.monotonic() + self._timeout
        try:
            with self._session.request(
                method,
                url,
                data=data,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                return HttpAnswer(response.status_code, response.headers, _body(response.raw))
        except Exception as error:  # noqa: BLE001 - becomes the one typed error
            # requests and urllib3 put the URL into their messages; neither they nor their causes may leave here.
            reason = _reason(error)
            raise BackendUnavailableError(
                self._backend, reason, operation=method, sent=reason != "refused"
            ) from None
        finally:
            call_deadline.at = None


def _body(raw: Any) -> bytes:
    """At most 64 KiB of the answer."""
    body = b""
    while len(body) < _MAX_ANSWER:
        piece = raw.read1(_MAX_ANSWER - len(body), decode_content=True)
        if not piece:
            break
        body += piece
    return body


def _reason(error: Exception) -> str:
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"Timeout", "ReadTimeoutError"}:
        return "timeout"
    if "ConnectionError" not in names:
        return "protocol"
    return "refused" if "NewConnectionError" in repr(error.args) else "reset"


def _adapter(ssl_context: Any) -> Any:
    """Connections whose sockets obey the deadline of the call."""
    from requests.adapters import HTTPAdapter

    class DeadlineAdapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            if ssl_context is not None:
                kwargs["ssl_context"] = ssl_context
            super().init_poolmanager(*args, **kwargs)
            manager: Any = self.poolmanager
            manager.pool_classes_by_scheme = {
                scheme: _with_deadline(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
            }

    return DeadlineAdapter()


def _with_deadline(pool: Any) -> Any:
    """The same kind of pool, whose connections wrap their sockets."""
    plain: Any = pool.ConnectionCls

    def connect(self: Any) -> None:
        plain.connect(self)
        self.sock = DeadlineSocket(self.sock)

    connection = type("DeadlineConnection", (plain,), {"connect": connect})
    return type("DeadlinePool", (pool,), {"ConnectionCls": connection})
