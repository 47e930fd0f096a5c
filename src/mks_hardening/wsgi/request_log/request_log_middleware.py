"""Request logging: one log record per request, after its last byte, and request ids for all log records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mks_hardening._core.checks import offers
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.process.context import fields_var, request_var
from mks_hardening._core.web.environ_keys import (
    ORIGIN_KEY,
    REFUSAL_KEY,
    REQUEST_ID_KEY,
    ROUTE_KEY,
    SESSION_KEY,
    header_key,
)
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.request_log.outcome import has_body, outcome_of, status_code
from mks_hardening._edge.request_log.record_fields import record_fields
from mks_hardening._edge.request_log.request_log import RequestLog, declared_length
from mks_hardening.wsgi.request_log._exchange import Exchange

if TYPE_CHECKING:
    import logging
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.origin.proxy_trust import ProxyTrust
    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock, RequestSpan, RequestTracer

__all__ = ["RequestLoggingMiddleware"]


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
        on_refusal: takes the environ and a ``Refusal`` (``record``, ``error``) and may return a
            ``CustomResponse`` in place of the plain 500.
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
        self._app = wsgi_application(app)
        self._trust = (
            None if trust is None else offers(trust, "admit", parameter="trust", kind="a ProxyTrust")
        )
        self.log: RequestLog = RequestLog(
            logger=logger,
            request_id_header=request_id_header,
            skip_paths=skip_paths,
            clock=clock,
            on_refusal=on_refusal,
            tracer=tracer,
        )
        self.header_lower: str = request_id_header.lower()
        self._header_key = header_key(request_id_header)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        return _Recorded(self, environ, start_response).answer(self._app)

    def identify(self, environ: WSGIEnvironment) -> tuple[str | None, str, str]:
        """Return client address, request id and trace id; leaves only accepted ids in the environ."""
        origin: Any = environ.get(ORIGIN_KEY)
        if origin is None and self._trust is not None:
            origin = self._trust.admit(environ)
        sent_id = traceparent = None
        # An id from an untrusted peer could pretend to be another request in the log.
        if origin is None or origin.peer_trusted:
            sent_id, traceparent = environ.get(self._header_key), environ.get("HTTP_TRACEPARENT")
            if traceparent is not None:  # blanks are not part of a value
                environ["HTTP_TRACEPARENT"] = traceparent = traceparent.strip(" \t")
        request_id, trace_id, continues_trace = self.log.ids(sent_id, traceparent)
        if not continues_trace:
            # Left in the environ, a tracing library would continue a trace that was not accepted here.
            environ.pop("HTTP_TRACEPARENT", None)
            environ.pop("HTTP_TRACESTATE", None)
        environ[REQUEST_ID_KEY] = environ[self._header_key] = request_id
        client_ip = environ.get("REMOTE_ADDR") if origin is None else origin.client_ip
        return client_ip, request_id, trace_id


class _Recorded(Exchange):
    _span: RequestSpan | None = None

    def __init__(
        self, middleware: RequestLoggingMiddleware, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        self._log = middleware.log
        Exchange.__init__(self, environ, start_response, self._log.monotonic)
        self._header_lower = middleware.header_lower
        self._started = self._monotonic()
        self._client_ip, self._request_id, self._trace_id = middleware.identify(environ)

    def begin(self) -> None:
        ids = {"request_id": self._request_id, "trace_id": self._trace_id}
        if self._log.tracer is not None:
            self._span = self._log.start_span(self.environ, self.environ.get("PATH_INFO", ""), ids)
            self._trace_id = ids["trace_id"]
        bound = fields_var.get()
        fields_var.set(MappingProxyType({**bound, **ids} if bound else ids))
        request_var.set(self.environ)

    def step(self, status: str, headers: Headers) -> str:
        own = self._header_lower
        for name, value in headers:
            lower = name.lower()
            if lower == "content-length":
                self.declared = declared_length(value)
            elif lower == own:
                headers[:] = [field for field in headers if field[0].lower() != own]
        headers.append((self._log.header, self._request_id))
        return status

    def failure(self) -> tuple[str, Headers, bytes]:
        response = self._log.error_response(self.environ)
        headers = [*response.headers, (self._log.header, self._request_id)]
        is_head = self.environ.get("REQUEST_METHOD") == "HEAD"
        return response.status_line, headers, b"" if is_head else response.body

    def finished(self) -> None:
        try:
            if not self._log.skipped.match(self.environ.get("PATH_INFO", "")):
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
            sent=self.bytes_sent() if expects_body else 0,
            duration=duration,
            first_byte_after=None if first is None else first - self._started,
            outcome=outcome,
            exc_type=None if error is None else type(error).__name__,
            client_ip=self._client_ip,
            request_id=self._request_id,
            trace_id=self._trace_id,
            user_agent=environ.get("HTTP_USER_AGENT"),
            user_id=getattr(environ.get(SESSION_KEY), "last_user_id", None) or environ.get("REMOTE_USER"),
            shown_query=self._log.shown_query,
        )
        self._log.report(fields, duration=duration, error=error, span=self._span)
