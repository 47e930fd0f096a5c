"""Request logging: one log record per request, after its last byte, and request ids for all log records."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextvars import Context, ContextVar, copy_context
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import instance
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.origin.scope_trust import ScopeTrust
from mks_hardening._core.process.context import fields_var, request_var
from mks_hardening._core.web.asgi_scope import (
    REQUESTS,
    HeaderReader,
    header,
    method_of,
    mount_of,
    path_below_mount,
    query_of,
    route_of,
)
from mks_hardening._core.web.environ_keys import (
    ORIGIN_KEY,
    REFUSAL_KEY,
    REQUEST_ID_KEY,
    ROUTE_KEY,
    SESSION_KEY,
    header_key,
)
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.request_log.outcome import has_body, outcome_of
from mks_hardening._edge.request_log.record_fields import record_fields
from mks_hardening._edge.request_log.request_log import RequestLog, declared_length
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._message_ahead import MessageAhead
from mks_hardening.asgi._messages import HEADS, raw_headers, send_response, with_headers

if TYPE_CHECKING:
    import logging

    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, RawHeaders, Receive, Scope, Send
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock, RequestSpan, RequestTracer

__all__ = ["RequestLoggingMiddleware"]

_MOST_AHEAD: Final = 2  # the end of the request's body, and then the disconnect
_LENGTH: Final = len(b"content-length")
_TRACE_FIELDS: Final = (b"traceparent", b"tracestate")
_BODIES: Final = frozenset({"http.response.body", "websocket.http.response.body"})
_SWITCHING_PROTOCOLS: Final = 101
_SERVER_ERROR: Final = 500
_MOST_CAUSES: Final = 32
_CLOSED_BEFORE_ACCEPT: Final = 403  # the servers' response to a WebSocket that the application closes at once
_NORMAL_CLOSURES: Final = frozenset({1000, 1001, 1005})  # RFC 6455, 7.4.1; 1005: the client gave no code


class RequestLoggingMiddleware:
    """Middleware that gives every request an id and writes one log record when the response has been sent.

    The record and its fields are those of ``mks_hardening.wsgi.RequestLoggingMiddleware``. It is written at the
    last byte, before background work that the framework does afterwards, and in the task and context of the
    request. A client that disconnects is ``aborted``, also where ``send`` does not report it, as in uvicorn,
    Hypercorn and Granian. A WebSocket gets one record when it is closed, with the method GET and the status 101, or
    the status of its denial. An exception before the first byte becomes a plain 500 response with the id; later
    ones are re-raised to the server.

    The id is stored in ``scope["REQUEST_ID"]`` and sent with every response.

    Args:
        app: the ASGI application.
        logger: logger for the records; ``mks_hardening.request`` by default. Its exceptions are ignored.
        trust: peers that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        request_id_header: header field of the id, in requests and responses.
        skip_paths: paths that are not logged; a trailing slash includes everything below.
        clock: source of time.
        on_refusal: takes the scope and a ``Refusal`` (``record``, ``error``) and may return a ``CustomResponse`` in
            place of the plain 500.
        tracer: starts a span for every request that is logged; its ids then appear in all log records of the
            request.

    Raises:
        ConfigurationError: the header name is not a token, or a path does not begin with a slash.
    """

    def __init__(
        self,
        app: ASGIApplication,
        *,
        logger: logging.Logger | None = None,
        trust: ProxyTrust | None = None,
        request_id_header: str = "X-Request-ID",
        skip_paths: Iterable[str] = (),
        clock: Clock = SYSTEM_CLOCK,
        on_refusal: OnRefusal | None = None,
        tracer: RequestTracer | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._trust = None if trust is None else ScopeTrust(instance(trust, ProxyTrust, parameter="trust"))
        self._log = RequestLog(
            logger=logger,
            request_id_header=request_id_header,
            skip_paths=skip_paths,
            clock=clock,
            on_refusal=on_refusal,
            tracer=tracer,
        )
        self._read = HeaderReader(b"user-agent", self._log.raw_header, *_TRACE_FIELDS).read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] not in REQUESTS:
            await self._app(scope, receive, send)
            return
        if self._trust is not None and ORIGIN_KEY not in scope:
            scope = self._trust.admit(scope)
        inner = private_scope(scope)
        exchange = _ASGIExchange(self._log, self._read(inner), inner, receive, send)
        before, outer = fields_var.get(), request_var.get()
        try:
            exchange.begin(before)
            await self._app(exchange.scope, exchange.receive, exchange.send)
            exchange.note_return()
        except Exception as error:
            exchange.note_error(error)
            if not await exchange.recover():
                raise
        except BaseException as error:
            # A cancelled task must not await anything else.
            exchange.cancelled = not isinstance(error, (SystemExit, KeyboardInterrupt))
            exchange.error = None if exchange.cancelled else error
            raise
        finally:
            exchange.finish()
            exchange.restore_context()
            fields_var.set(before)
            request_var.set(outer)


class _ASGIExchange:
    """One request and its response: observes the messages in both directions."""

    __slots__ = (
        "_ahead",
        "_body_complete",
        "_cut_off",
        "_declared",
        "_ended",
        "_first_byte_at",
        "_log",
        "_own_field",
        "_pending",
        "_receive",
        "_receiving",
        "_reported",
        "_request_id",
        "_send",
        "_send_error",
        "_sent",
        "_set_by_tracer",
        "_span",
        "_started",
        "_status",
        "_trace_id",
        "_user_agent",
        "_websocket",
        "cancelled",
        "complete",
        "disconnected",
        "error",
        "scope",
    )  # fmt: skip

    def __init__(
        self, log: RequestLog, sent: list[str | None], scope: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        self._log = log
        self.scope = scope
        self._receive = receive
        self._send = send
        self._websocket = scope["type"] == "websocket"
        self._started = log.monotonic()
        self._status = 0
        self._sent = 0
        self._declared: int | None = None
        self._first_byte_at: float | None = None
        self._span: RequestSpan | None = None
        self._set_by_tracer: list[tuple[ContextVar[Any], Any]] = []
        self._ended: float | None = None
        self._reported = False
        self._receiving = False
        self._send_error: OSError | None = None
        self._ahead: MessageAhead | None = None
        self._pending: list[Message] = []
        self._body_complete = self._cut_off = False
        self.complete = False
        self.disconnected = False
        self.cancelled = False
        self.error: BaseException | None = None
        self._user_agent, sent_id, traceparent, tracestate = sent
        headers, id_field = scope.get("headers") or (), log.raw_header
        if sent_id is traceparent is tracestate is None:
            request_id, self._trace_id, _ = log.ids(None, None)
        else:
            origin = scope.get(ORIGIN_KEY)
            # An id from an untrusted peer could pretend to be another request in the log.
            if origin is not None and not origin.peer_trusted:
                sent_id = traceparent = None
            traceparent = (traceparent or "").strip(" \t") or None
            request_id, self._trace_id, continues_trace = log.ids(sent_id, traceparent)
            # Left in the scope, a tracing library would continue a trace that was not accepted here.
            dropped = (id_field,) if continues_trace else (id_field, *_TRACE_FIELDS)
            headers = [field for field in headers if field[0].lower() not in dropped]
        self._request_id = scope[REQUEST_ID_KEY] = request_id
        self._own_field = (id_field, request_id.encode())
        scope["headers"] = [*headers, self._own_field]

    def begin(self, bound: Any) -> None:
        """Bind the ids to all log records of the request."""
        ids = {"request_id": self._request_id, "trace_id": self._trace_id}
        if self._log.tracer is not None:
            before = copy_context()
            self._span = self._log.start_span(_tracer_environ(self.scope), path_below_mount(self.scope), ids)
            self._trace_id = ids["trace_id"]
            self._set_by_tracer = [
                (variable, before[variable] if variable in before else _default_of(variable))
                for variable, value in copy_context().items()
                if before.get(variable) is not value
            ]
        fields_var.set(MappingProxyType({**bound, **ids} if bound else ids))
        request_var.set(self.scope)

    def restore_context(self) -> None:
        """Undo what the tracer has set: the task may continue with other requests, outside this span."""
        for variable, value in self._set_by_tracer:
            variable.set(value)

    async def receive(self) -> Message:
        """Pass a message to the application and note a client that has left."""
        if self._pending:
            return self._pending.pop(0)
        ahead, self._ahead = self._ahead, None
        self._receiving = True
        try:
            message = await (self._receive() if ahead is None else ahead)
        finally:
            self._receiving = False
        if message["type"] == "http.request":
            self._body_complete = not message.get("more_body", False)
        elif message["type"] == "http.disconnect":
            self.disconnected = True
            self._cut_off = not (self._body_complete or self._status)
        elif message["type"] == "websocket.disconnect":
            self._note_closure(message.get("code", 1005))
        return message

    async def send(self, message: Message) -> None:
        """Pass a message to the server; report the end after the last one."""
        kind: str = message["type"]
        if kind in HEADS:
            self._status = message["status"]
            message = with_headers(message, self._with_id(raw_headers(message)))
        elif self._sent and kind == "http.response.body" and self._is_incomplete():
            self._look_for_disconnect()
        try:
            await self._send(message)
        except OSError as error:  # the server reports a client that has left (ASGI 2.4)
            self.disconnected = True
            self._send_error = error
            raise
        if kind in _BODIES:
            self._count(message.get("body", b""))
            if not message.get("more_body", False):
                self._note_end()
        elif kind not in HEADS:
            self._note_sent(kind, message)

    def _note_sent(self, kind: str, message: Message) -> None:
        """Note a message other than the start and the body of a response."""
        if kind in ("http.response.pathsend", "http.response.zerocopysend"):
            if not message.get("more_body", False):
                self._sent = self._declared or self._sent
                self._note_end()
        elif kind == "websocket.accept":
            self._status = _SWITCHING_PROTOCOLS
        elif kind == "websocket.send":
            self._count(message.get("bytes") or (message.get("text") or "").encode())
        elif kind == "websocket.close":
            self._status = self._status or _CLOSED_BEFORE_ACCEPT
            self._note_end()

    def _is_incomplete(self) -> bool:
        """Return whether a part of the body is still to be sent."""
        return self._declared is None or self._sent < self._declared

    def _look_for_disconnect(self) -> None:
        """Check without waiting whether the client disconnected during a response of several messages.

        Servers drop what is sent after that without an error, so that an application that never calls ``receive``
        seems to have sent everything. Messages that arrive are kept for the application.
        """
        # The body of a request that the application does not read must not be gathered here.
        while not self._receiving and not self.disconnected and len(self._pending) < _MOST_AHEAD:
            ahead = self._ahead = self._ahead or MessageAhead(self._receive)
            try:
                message = ahead.poll()
            except Exception:  # noqa: BLE001 - the response does not depend on it; asked again, receive raises again
                self._ahead = None
                return
            if message is None:
                self._ahead = None if ahead.closed else ahead
                return
            self._ahead = None
            self._pending.append(message)
            self.disconnected = message["type"] == "http.disconnect"

    def _count(self, data: bytes) -> None:
        if data:
            if self._first_byte_at is None:
                self._first_byte_at = self._log.monotonic()
            self._sent += len(data)

    def _note_closure(self, code: int) -> None:
        self.disconnected = code not in _NORMAL_CLOSURES
        self.complete = not self.disconnected

    def _with_id(self, headers: RawHeaders) -> RawHeaders:
        own = self._log.raw_header
        for name, value in headers:
            # The length first, as in ``header``.
            if len(name) == _LENGTH and name.lower() == b"content-length":
                self._declared = declared_length(value.decode("latin-1"))
            elif len(name) == len(own) and name.lower() == own:
                headers = [field for field in headers if field[0].lower() != own]
        headers.append(self._own_field)
        return headers

    async def recover(self) -> bool:
        """Respond to an exception with 500; return whether that was still possible."""
        if self._status or self._websocket or self.disconnected:
            return False
        response = self._log.error_response(self.scope)
        await send_response(self.scope, self.send, response)
        return True

    def _note_end(self) -> None:
        self.complete = not self.disconnected
        self._ended = self._log.monotonic()
        # A framework that has answered an exception with 500 raises it afterwards; the record must contain it.
        if self._status < _SERVER_ERROR:
            self.finish()

    def note_return(self) -> None:
        """Note that the application has returned.

        Raises:
            RuntimeError: it has not responded, and the client still waits for a response.
        """
        if self.disconnected:
            return
        if not self._status:
            raise RuntimeError("the application returned without a response")
        if self._status == _SWITCHING_PROTOCOLS:
            self.complete = True  # the server closes the WebSocket

    def note_error(self, error: Exception) -> None:
        """Note an exception of the application, unless it only says that the client has left."""
        has_left = self.disconnected or (self._websocket and self.complete)
        if has_left and _is_disconnect(error):
            return
        cause: BaseException | None = error if self._send_error is not None else None
        for _ in range(_MOST_CAUSES):  # a chain may be a circle
            if cause is None or cause is self._send_error:
                break
            cause = cause.__cause__ or cause.__context__
        if cause is None or cause is not self._send_error:
            self.error = error

    def finish(self) -> None:
        """Report the end, once."""
        if self._reported:
            return
        self._reported = True
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None if self._ahead.closed else self._ahead
        try:
            path = path_below_mount(self.scope)
            if not self._log.skipped.match(path):
                self._report(path)
        except Exception:  # noqa: BLE001 - a log record that cannot be written must not break the response
            self._last_resort()
        self.error = None  # its traceback holds frames that refer to this object

    def _report(self, path: str) -> None:
        scope, error, log = self.scope, self.error, self._log
        status = self._status or (500 if error else 0)
        if self._cut_off and error is None and status >= _SERVER_ERROR:
            # What a framework makes of half a request; nobody has received it.
            status, self._sent, self._first_byte_at = 0, 0, None
        method: str = method_of(scope)
        expects_body = has_body(method, status)
        outcome = outcome_of(
            failed=error is not None,
            complete=self.complete,
            broken_off=self.disconnected or self.cancelled,
            expects_body=expects_body or self._websocket,
            sent=self._sent,
            declared=self._declared,
        )
        ended = log.monotonic() if self._ended is None else self._ended
        duration = ended - self._started
        first, origin = self._first_byte_at, scope.get(ORIGIN_KEY)
        client = scope.get("client")
        fields = record_fields(
            method=method,
            path=mount_of(scope) + path,
            query=query_of(scope) or None,
            route=scope.get(ROUTE_KEY) or route_of(scope),
            refusal=scope.get(REFUSAL_KEY),
            status=status,
            sent=self._sent if expects_body or self._websocket else 0,
            duration=duration,
            first_byte_after=None if first is None else first - self._started,
            outcome=outcome,
            exc_type=None if error is None else type(error).__name__,
            client_ip=(client[0] if client else None) if origin is None else origin.client_ip,
            request_id=self._request_id,
            trace_id=self._trace_id,
            user_agent=self._user_agent,
            user_id=getattr(scope.get(SESSION_KEY), "last_user_id", None),
            shown_query=log.shown_query,
        )
        log.report(fields, duration=duration, error=error, span=self._span)

    def _last_resort(self) -> None:
        """Write an error that could not be logged to stderr, so that it is not lost (ASVS 16.5.4)."""
        import contextlib
        import traceback

        with contextlib.suppress(Exception):
            sys.stderr.write(f"request {self._request_id}: the record could not be written\n")
            if self.error is not None:
                traceback.print_exception(self.error, file=sys.stderr)


def _is_disconnect(error: Exception) -> bool:
    """Return whether an exception is the form in which a framework reports a disconnect.

    ``ClientDisconnect`` and ``WebSocketDisconnect`` of Starlette, for example, end an endpoint that does not catch
    them; the frameworks are not imported here.
    """
    return any("Disconnect" in kind.__name__ for kind in type(error).__mro__)


def _default_of(variable: ContextVar[Any]) -> Any:
    """Return the value that a context variable has where it is not set; it cannot be unset without its token."""
    try:
        return Context().run(variable.get)
    except LookupError:
        return None


def _tracer_environ(scope: dict[str, Any]) -> dict[str, Any]:
    """Return what tracers read of a request, under the keys of WSGI; a WebSocket is a GET."""
    environ = {
        ORIGIN_KEY: scope.get(ORIGIN_KEY),
        "REQUEST_METHOD": method_of(scope),
        "SCRIPT_NAME": mount_of(scope),
        "PATH_INFO": path_below_mount(scope),
        "wsgi.url_scheme": scope.get("scheme", "http").replace("ws", "http"),
    }
    for name in _TRACE_FIELDS:
        value = header(scope, name)
        if value is not None:
            environ[header_key(name.decode())] = value
    return environ
