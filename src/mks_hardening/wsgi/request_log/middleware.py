"""Request logging: one log record per request, after its last byte, and request ids for all log records."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core import hooks
from mks_hardening._core.checks import offers, text_of
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.process.context import fields_var
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening._core.web.environ_keys import (
    ORIGIN_KEY,
    REFUSAL_KEY,
    REQUEST_ID_KEY,
    ROUTE_KEY,
    SESSION_KEY,
    header_key,
)
from mks_hardening._core.web.paths import exemptions
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.refusals import Refusal
from mks_hardening._edge.request_log.outcome import has_body, level_of, outcome_of, status_code
from mks_hardening._edge.request_log.query import QueryText
from mks_hardening._edge.request_log.record_fields import record_fields
from mks_hardening._edge.request_log.request_ids import accepted_request_id, trace_id_of
from mks_hardening.events import RequestFinished
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi._refusal_response import FixedResponse, Refuser
from mks_hardening.wsgi.request_log._exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.origin.proxy_trust import ProxyTrust
    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock, RequestSpan, RequestTracer

__all__ = ["RequestLoggingMiddleware"]

_LOGGER_NAME: Final = "mks_hardening.request"
_MESSAGE: Final = "%s %s %d"
_REFUSED: Final = ", refused by the %s rule %s (%s)"
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


_ERROR: Final = Refusal(wrapper="record", rule="error", status=500, detail="Internal Server Error")
_PLAIN_ERROR: Final = FixedResponse(
    500, "Internal Server Error\n", "text/plain; charset=utf-8", [("Cache-Control", "no-store")]
)


class RequestLoggingMiddleware:
    """Middleware that gives every request an id and writes one log record when the request has ended.

    The record is written after the last byte or the abort. It has the attributes ``method path status bytes
    duration_ms ttfb_ms outcome exc_type client_ip request_id trace_id``, and ``query``, ``route``, ``user_agent``
    and ``user_id`` (of the session, or ``REMOTE_USER``) if available. ``outcome`` is ``ok``, ``aborted`` (the body
    was not sent whole; ``bytes`` then omits the chunk in which the server stopped) or ``error`` (an exception left
    the application, its body or its ``close()``). The level is ERROR for 5xx and ``error``, else INFO. If an inner
    middleware refused the request, the record also has ``refused_by``, ``refused_rule`` and ``refused_value``: the
    middleware, its rule, and the value that broke it.

    A request id from the client is accepted if it is well formed and, if proxy trust is configured, comes from a
    trusted peer. A valid ``traceparent`` is continued under the same condition, and removed otherwise. The id is
    bound to the request's context (all log records of the request have it, also those from a streaming body),
    stored in ``environ["REQUEST_ID"]``, and sent with every response. An exception before the first byte becomes a
    plain 500 response with the id; later ones are re-raised to the server.

    Args:
        app: the WSGI application.
        logger: logger for the records; ``mks_hardening.request`` by default. Its exceptions are ignored.
        trust: peers that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        request_id_header: header field of the id, in requests and responses.
        skip_paths: paths that are not logged; a trailing slash includes everything below.
        clock: source of time.
        on_refusal: takes the environ and a ``Refusal`` (``record``, ``error``) and may return an ``OwnAnswer`` in
            place of the plain 500.
        tracer: starts a span for every request that is logged; its ids then appear in all log records of the
            request.

    Raises:
        ConfigurationError: the header name is not a token, or a path does not begin with a slash.
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
        on_refusal: OnRefusal | None = None,
        tracer: RequestTracer | None = None,
    ) -> None:
        if not _TOKEN.issuperset(text_of(request_id_header, parameter="request_id_header", empty=False)):
            raise ConfigurationError("request_id_header must be a header name", parameter="request_id_header")
        self._app = wsgi_application(app)
        self._trust = (
            None if trust is None else offers(trust, "admit", parameter="trust", kind="a ProxyTrust")
        )
        self.tracer = tracer
        if tracer is not None:
            offers(tracer, "begin", parameter="tracer", kind="a RequestTracer")
        self.custom_response: Callable[[dict[str, Any], Refusal], FixedResponse | None] = Refuser(
            "record", on_refusal
        ).custom_response
        self._skipped = exemptions(skip_paths, parameter="skip_paths")
        chosen = logging.getLogger(_LOGGER_NAME) if logger is None else logger
        self.logger: logging.Logger = offers(
            chosen, "isEnabledFor", "makeRecord", "handle", parameter="logger", kind="a logger"
        )
        self.header = request_id_header
        self.header_lower: str = request_id_header.lower()
        self.header_key: str = header_key(request_id_header)
        self.shown_query: Callable[[str], str] = QueryText(default_redactor().redact_query)
        self.monotonic: Callable[[], float] = given_clock(clock).monotonic

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        return _Recorded(self, environ, start_response).answer(self._app)

    def identify(self, environ: WSGIEnvironment) -> tuple[str | None, str, str]:
        """Return client address, request id and trace id; leaves only accepted ids in the environ."""
        origin: Any = environ.get(ORIGIN_KEY)
        if origin is None and self._trust is not None:
            origin = self._trust.admit(environ)
        request_id = trace_id = None
        # An id from an untrusted peer could pretend to be another request in the log.
        if origin is None or origin.peer_trusted:
            request_id = accepted_request_id(environ.get(self.header_key))
            trace_id = self._continued(environ)
        if trace_id is None:
            # Left in the environ, a tracing library would continue a trace that was not accepted here.
            environ.pop("HTTP_TRACEPARENT", None)
            environ.pop("HTTP_TRACESTATE", None)
        if trace_id is None or request_id is None:
            made = os.urandom(32).hex()  # for both ids at once: each call is a system call
            trace_id, request_id = trace_id or made[:32], request_id or made[32:]
        environ[REQUEST_ID_KEY] = environ[self.header_key] = request_id
        client_ip = environ.get("REMOTE_ADDR") if origin is None else origin.client_ip
        return client_ip, request_id, trace_id

    @staticmethod
    def _continued(environ: WSGIEnvironment) -> str | None:
        traceparent: str | None = environ.get("HTTP_TRACEPARENT")
        if traceparent is None:
            return None
        environ["HTTP_TRACEPARENT"] = traceparent = traceparent.strip(" \t")  # blanks are not part of a value
        return trace_id_of(traceparent)

    def skips(self, environ: WSGIEnvironment) -> bool:
        """Return whether the request is not logged."""
        return self._skipped.match(environ.get("PATH_INFO", ""))


class _Recorded(Exchange):
    _span: RequestSpan | None = None

    def __init__(
        self, middleware: RequestLoggingMiddleware, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        Exchange.__init__(self, environ, start_response, middleware.monotonic)
        self._middleware = middleware
        self._started = self._monotonic()
        self._client_ip, self._request_id, self._trace_id = middleware.identify(environ)

    def begin(self) -> None:
        ids = {"request_id": self._request_id, "trace_id": self._trace_id}
        if self._middleware.tracer is not None:
            self._trace(self._middleware.tracer, ids)
        bound = fields_var.get()
        fields_var.set(MappingProxyType({**bound, **ids} if bound else ids))

    def _trace(self, tracer: RequestTracer, ids: dict[str, str]) -> None:
        try:
            span = None if self._middleware.skips(self.environ) else tracer.begin(self.environ)
            if span is not None:
                self._span = span
                if span.trace_id:
                    ids["trace_id"] = self._trace_id = span.trace_id
                    ids["span_id"] = span.span_id
        except Exception:  # noqa: BLE001, S110 - a span that cannot be started must not break the request
            pass

    def step(self, status: str, headers: Headers) -> str:
        own = self._middleware.header_lower
        for name, value in headers:
            lower = name.lower()
            if lower == "content-length":
                self.declared = _length(value)
            elif lower == own:
                headers[:] = [field for field in headers if field[0].lower() != own]
        headers.append((self._middleware.header, self._request_id))
        return status

    def failure(self) -> tuple[str, Headers, bytes]:
        worded = self._middleware.custom_response(self.environ, _ERROR)
        status, headers, body = (worded or _PLAIN_ERROR).parts(
            head=self.environ.get("REQUEST_METHOD") == "HEAD"
        )
        headers.append((self._middleware.header, self._request_id))
        return status, headers, body

    def finished(self) -> None:
        try:
            if not self._middleware.skips(self.environ):
                self._report()
        except Exception:  # noqa: BLE001 - a log record that cannot be written must not break the response
            self._last_resort()

    def _last_resort(self) -> None:
        """Write an error that could not be logged to ``wsgi.errors``, so that it is not lost (ASVS 16.5.4)."""
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
            broken_off=self.broken_off,
            expects_body=expects_body,
            sent=self.sent,
            declared=self.declared,
        )
        duration = self._monotonic() - self._started
        first = self.first_byte_at
        fields = record_fields(
            method=method,
            path=environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
            query=environ.get("QUERY_STRING"),
            route=environ.get(ROUTE_KEY),
            refusal=environ.get(REFUSAL_KEY),
            status=status,
            sent=self.taken() if expects_body else 0,
            duration=duration,
            first_byte_after=None if first is None else first - self._started,
            outcome=outcome,
            exc_type=None if error is None else type(error).__name__,
            client_ip=self._client_ip,
            request_id=self._request_id,
            trace_id=self._trace_id,
            user_agent=environ.get("HTTP_USER_AGENT"),
            user_id=getattr(environ.get(SESSION_KEY), "last_user_id", None) or environ.get("REMOTE_USER"),
            shown_query=self._middleware.shown_query,
        )
        try:
            _log(self._middleware.logger, level_of(status, outcome), fields, error)
        finally:
            if self._span is not None:
                with contextlib.suppress(Exception):
                    self._span.end(fields)
            if hooks.observers:
                hooks.emit(
                    RequestFinished(fields["method"], fields.get("route"), status, duration * 1000, outcome)
                )


def _log(logger: logging.Logger, level: int, fields: dict[str, Any], error: BaseException | None) -> None:
    if not logger.isEnabledFor(level):
        return
    message = _MESSAGE
    arguments: tuple[Any, ...] = (fields["method"], fields["path"], fields["status"])
    if fields["outcome"] != "ok":  # "ok" beside a 500 would be misleading
        message += " %s"
        arguments += (fields["outcome"],)
    if "refused_by" in fields:
        message += _REFUSED
        arguments += (fields["refused_by"], fields["refused_rule"], fields["refused_value"])
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    # Not logger.log(): finding the caller's line by walking the stack costs more than the rest, and finds this
    # file.
    record = logger.makeRecord(logger.name, level, __name__, 0, message, arguments, exc_info)
    record.__dict__.update(fields)
    logger.handle(record)


def _length(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
