"""One record per request, after its last byte, and the ids that tie all its log lines together."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core import hooks
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.context import fields_var
from mks_hardening._core.redact import default_redactor
from mks_hardening._core.wsgi_iter import Exchange
from mks_hardening.events import RequestFinished
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi._paths import PathRules
from mks_hardening.wsgi._request_record import has_body, level_of, outcome_of, record_fields, status_code
from mks_hardening.wsgi._traceparent import accepted_request_id, trace_id_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.origin import ProxyTrust
    from mks_hardening._core.wsgi_iter import Headers
    from mks_hardening.protocols import Clock

__all__ = ["RequestLoggingMiddleware"]

_LOGGER_NAME: Final = "mks_hardening.request"
_MESSAGE: Final = "%s %s %d %s"
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class RequestLoggingMiddleware:
    """Gives every request an id and writes one record about it when it is over.

    The record is made after the last byte or the abort. Its attributes are ``method path status bytes
    duration_ms ttfb_ms outcome exc_type client_ip request_id trace_id``, and ``query`` and ``route`` where there
    are any. ``outcome`` is ``ok``, ``aborted`` (the body was not sent whole) or ``error`` (an exception left the
    application, its body or its ``close()``). Level: ERROR for 5xx and ``error``, else INFO.

    An id that comes in is kept if it is well formed and, where proxy trust is configured, comes from a trusted
    peer; a valid ``traceparent`` is continued under the same rule, and removed otherwise. The id is bound to the
    request's context (every log line of the request has it, also inside a streaming body), put into
    ``environ["REQUEST_ID"]``, and sent with every answer. An exception before the first byte becomes a plain
    500 that carries the id; later ones are raised on to the server.

    Args:
        app: the WSGI application.
        logger: where the record goes; ``mks_hardening.request`` by default. One that raises is ignored.
        trust: which peers may name the client; not needed inside ``TrustedProxyMiddleware``.
        request_id_header: header field for the id, in and out.
        skip_paths: paths (a trailing slash means the folder) about which nothing is recorded.
        clock: source of time.

    Raises:
        ConfigurationError: a header name that is no token, or a path without leading slash.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        logger: logging.Logger | None = None,
        trust: ProxyTrust | None = None,
        request_id_header: str = "X-Request-ID",
        skip_paths: Iterable[str] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not request_id_header or not _TOKEN.issuperset(request_id_header):
            raise ConfigurationError("request_id_header must be a header name", parameter="request_id_header")
        self._app = app
        self._trust = trust
        self._skipped = PathRules(skip_paths, parameter="skip_paths")
        self.logger: logging.Logger = logger if logger is not None else logging.getLogger(_LOGGER_NAME)
        self.header = request_id_header
        self.header_lower: str = request_id_header.lower()
        self.header_key: str = "HTTP_" + request_id_header.upper().replace("-", "_")
        self.redact_query: Callable[[str], str] = default_redactor().redact_query
        self.monotonic: Callable[[], float] = clock.monotonic

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        return _Recorded(self, environ, start_response).answer(self._app)

    def identify(self, environ: WSGIEnvironment) -> tuple[str | None, str, str]:
        """Client address, request id and trace id; the environ holds what was accepted, and nothing else."""
        origin: Any = environ.get("mks_hardening.origin")
        if origin is None and self._trust is not None:
            origin = self._trust.admit(environ)
        request_id = trace_id = None
        if origin is None or origin.peer_trusted:
            request_id = accepted_request_id(environ.get(self.header_key))
            trace_id = trace_id_of(environ.get("HTTP_TRACEPARENT"))
        if trace_id is None:
            environ.pop("HTTP_TRACEPARENT", None)
            environ.pop("HTTP_TRACESTATE", None)
            trace_id = os.urandom(16).hex()
        if request_id is None:
            request_id = os.urandom(16).hex()
        environ["REQUEST_ID"] = environ[self.header_key] = request_id
        client_ip = environ.get("REMOTE_ADDR") if origin is None else origin.client_ip
        return client_ip, request_id, trace_id

    def skips(self, environ: WSGIEnvironment) -> bool:
        """Whether nothing is to be recorded about this request."""
        return self._skipped.match(environ.get("PATH_INFO", ""))


class _Recorded(Exchange):
    def __init__(
        self, middleware: RequestLoggingMiddleware, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        Exchange.__init__(self, environ, start_response, middleware.monotonic)
        self._middleware = middleware
        self._started = self._monotonic()
        self._client_ip, self._request_id, self._trace_id = middleware.identify(environ)

    def begin(self) -> None:
        ids = {"request_id": self._request_id, "trace_id": self._trace_id}
        bound = fields_var.get()
        fields_var.set(MappingProxyType({**bound, **ids} if bound else ids))

    def head(self, status: str, headers: Headers) -> Headers:
        del status
        own = self._middleware.header_lower
        sent: Headers = []
        for field in headers:
            name = field[0].lower()
            if name == own:
                continue
            if name == "content-length":
                self.declared = _length(field[1])
            sent.append(field)
        sent.append((self._middleware.header, self._request_id))
        return sent

    def failure(self) -> tuple[str, Headers, bytes]:
        body = b"" if self.environ.get("REQUEST_METHOD") == "HEAD" else b"Internal Server Error\n"
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            (self._middleware.header, self._request_id),
        ]
        return "500 Internal Server Error", headers, body

    def finished(self) -> None:
        try:
            if not self._middleware.skips(self.environ):
                self._report()
        except Exception:  # noqa: BLE001 - a log that cannot be written must not break the answer
            self._last_resort()

    def _last_resort(self) -> None:
        """Keep an error that the log did not take from being lost (ASVS 16.5.4)."""
        import traceback

        with contextlib.suppress(Exception):
            self.environ["wsgi.errors"].write(
                f"request {self._request_id}: the record could not be written\n"
            )
            if self.error is not None:
                traceback.print_exception(self.error, file=self.environ["wsgi.errors"])

    def _report(self) -> None:
        environ, error = self.environ, self.error
        status = status_code(self.status) or (500 if error else 0)
        method = environ.get("REQUEST_METHOD", "")
        expects_body = has_body(method, status)
        outcome = outcome_of(
            failed=error is not None,
            complete=self.complete,
            expects_body=expects_body,
            sent=self.sent,
            declared=self.declared,
        )
        duration = self._monotonic() - self._started
        first = self.first_byte_at
        fields = record_fields(
            environ,
            status=status,
            sent=self.sent if expects_body else 0,
            duration=duration,
            first_byte_after=None if first is None else first - self._started,
            outcome=outcome,
            exc_type=None if error is None else type(error).__name__,
            client_ip=self._client_ip,
            request_id=self._request_id,
            trace_id=self._trace_id,
            redact_query=self._middleware.redact_query,
        )
        try:
            _log(self._middleware.logger, level_of(status, outcome), fields, error)
        finally:
            if hooks.observers:
                hooks.emit(RequestFinished(method, fields.get("route"), status, duration * 1000, outcome))


def _log(logger: logging.Logger, level: int, fields: dict[str, Any], error: BaseException | None) -> None:
    if not logger.isEnabledFor(level):
        return
    arguments = (fields["method"], fields["path"], fields["status"], fields["outcome"])
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    # Not logger.log(): walking the stack for the caller's line costs more than the rest, and finds this file.
    record = logger.makeRecord(logger.name, level, __name__, 0, _MESSAGE, arguments, exc_info)
    record.__dict__.update(fields)
    logger.handle(record)


def _length(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
