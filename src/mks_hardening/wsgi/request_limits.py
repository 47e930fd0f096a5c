"""Middleware that limits the size of requests."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening._edge.request_limits.request_limits import (
    LONGEST_DISCARD,
    MOST_DISCARDED,
    BodyLimit,
    RequestHeadSize,
    RequestLimitRule,
    RequestLimits,
    RequestLimitsRules,
    TooLarge,
    broken_limit,
)
from mks_hardening.wsgi._replaceable_response import ReplaceableHead, replaceable_response
from mks_hardening.wsgi._send_response import send_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock

__all__ = ["RequestLimitsMiddleware"]

_CHUNK: Final = 16 * 1024


class RequestLimitsMiddleware:
    """Middleware that refuses requests whose size or slowness exceeds a limit, before the framework reads them.

    Bodies are counted while the application reads them, so that chunked requests and a false ``Content-Length`` are
    noticed. ``RequestLimitError`` is then raised where it reads, and the client gets 413 or 408 whatever the
    application makes of the exception, unless its response has already begun. The application never takes a part of
    a body for the whole. Refusals are problem documents that name the limit: 400, 405, 408, 413, 414, 415 or 431.

    The rest of a refused body is read and discarded, up to 64 MiB and five seconds, since a client that is still
    sending would lose the response if the connection was closed. Other servers than gunicorn whose reads wait for a
    client that sends little or nothing end this by a timeout of their own, as for every body that is read.

    The server and the proxy in front of it need limits of their own: they read the head of a request before any
    middleware does.

    Args:
        app: the WSGI application.
        limits: limits for all paths that no rule covers; ``RequestLimits()`` by default.
        rules: limits for certain paths, for example larger bodies for uploads; the first that matches decides.
        clock: source of time.
        on_refusal: takes the environ and the ``Refusal`` (``request_limits``) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: something that is not a limit or rule.

    Source: RFC 9110 (15.5), RFC 6585 (5); ASVS 5.0 V5.2.1; CWE-770.
    """

    __slots__ = ("_app", "_monotonic", "_refuser", "_rules")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        limits: RequestLimits | None = None,
        rules: Iterable[RequestLimitRule] = (),
        clock: Clock = SYSTEM_CLOCK,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = wsgi_application(app)
        self._rules = RequestLimitsRules(limits, rules)
        self._refuser = Refuser("request_limits", on_refusal)
        self._monotonic: Callable[[], float] = given_clock(clock).monotonic

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        limits = self._rules.limits(environ.get("PATH_INFO", ""))
        request = _head(environ)
        found = broken_limit(limits, request)
        if found is not None:
            return self._refuse(environ, start_response, found, unread=request.unread)
        source = environ.get("wsgi.input")
        if request.has_body is False or source is None:
            return self._app(environ, start_response)
        body = _LimitedInput(source, BodyLimit(limits, request, self._monotonic()), self._monotonic)
        environ["wsgi.input"] = body
        head = _BodyLimitHead(start_response, body.limit)

        def refusal() -> Iterable[bytes]:
            # Only a body without a declared length gets so far.
            unread = 0 if body.limit.broken == "body_seconds" or request.content_length else MOST_DISCARDED
            environ["wsgi.input"] = source
            return self._refuse(environ, start_response, body.limit.exceeded(), unread=unread)

        return replaceable_response(self._app, environ, head, refusal)

    def _refuse(
        self, environ: WSGIEnvironment, start_response: StartResponse, found: TooLarge, *, unread: int
    ) -> Iterable[bytes]:
        response = self._refuser.refuse(
            environ,
            found.response,
            accept=environ.get("HTTP_ACCEPT", ""),
            seen=found.seen,
            client_ip=request_origin(environ).client_ip,
        )
        body = send_response(environ, start_response, response)
        has_end = environ.get("CONTENT_LENGTH") or environ.get("wsgi.input_terminated")
        # A client that has asked first (Expect) does not send the body.
        if not (body and unread and has_end) or "HTTP_EXPECT" in environ:
            return body
        return self._discarding(body[0], environ, unread)

    def _discarding(self, body: bytes, environ: WSGIEnvironment, unread: int) -> Iterator[bytes]:
        yield body[:-1]  # the last byte later: some servers close the connection after it
        source: Any = environ.get("wsgi.input")
        deadline = self._monotonic() + LONGEST_DISCARD
        # Exceptions of the server, if the client has disconnected.
        with contextlib.suppress(Exception), _reading_ends(environ.get("gunicorn.socket")):
            while unread > 0 and self._monotonic() < deadline and (chunk := source.read(min(unread, _CHUNK))):
                unread -= len(chunk)
        yield body[-1:]


@contextlib.contextmanager
def _reading_ends(connection: Any) -> Generator[None]:
    """End what a client may send after ``LONGEST_DISCARD``.

    A read of gunicorn waits until it is complete, also for a client that sends a byte now and then.
    """
    if connection is None:
        yield
        return
    # A copy, because the server may close its own, and the number become that of another connection. Not the method
    # of the original, which may be a TLS socket: the response still has to be encrypted.
    with socket.socket(fileno=os.dup(connection.fileno())) as copy:

        def end() -> None:
            with contextlib.suppress(OSError):  # it is closed already
                copy.shutdown(socket.SHUT_RD)

        timer = threading.Timer(LONGEST_DISCARD, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


class _BodyLimitHead(ReplaceableHead):
    """Head of the application's response, dropped if the body of the request turns out to exceed a limit."""

    def __init__(self, start_response: StartResponse, limit: BodyLimit) -> None:
        super().__init__(start_response)
        self._limit = limit

    def must_refuse(self, *, failed: bool) -> bool:  # noqa: ARG002 - the same for both
        """Return whether the application has read too much, whatever it has made of the exception."""
        return self._limit.broken is not None and not self.head_sent


class _LimitedInput:
    """``wsgi.input`` that raises instead of returning more than a limit allows."""

    def __init__(self, source: Any, limit: BodyLimit, monotonic: Callable[[], float]) -> None:
        self._source = source
        self._monotonic = monotonic
        self.limit = limit

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as a file does; all that is left in pieces, so that what exceeds the limit is not held in memory."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        return self._counted(self._source.read(size))

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read one line."""
        has_size = size is not None and size >= 0
        return self._counted(self._source.readline(size) if has_size else self._source.readline())

    def readlines(self, hint: int = -1, /) -> list[bytes]:
        """Read all lines."""
        return list(self) if hint <= 0 else [self._counted(line) for line in self._source.readlines(hint)]

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)  # of servers, for example ``close``

    def _counted(self, data: bytes) -> bytes:
        if not self.limit.count(len(data), self._monotonic()):
            raise self.limit.error()
        return data


def _head(environ: WSGIEnvironment) -> RequestHeadSize:
    get = environ.get
    fields = [len(key) - 5 + len(value) for key, value in environ.items() if key.startswith("HTTP_")]
    length = get("CONTENT_LENGTH") or None
    target: str = get("RAW_URI") or get("REQUEST_URI") or ""
    return RequestHeadSize(
        method=get("REQUEST_METHOD", ""),
        path=get("SCRIPT_NAME", "").rstrip("/") + get("PATH_INFO", ""),
        raw_path=target.partition("?")[0],
        target_bytes=len(target) or len(get("PATH_INFO", "")) + len(get("QUERY_STRING", "")),
        fields=fields,
        content_length=length,
        chunked=bool(get("HTTP_TRANSFER_ENCODING")),
        content_type=get("CONTENT_TYPE"),
        http_version=get("SERVER_PROTOCOL", "HTTP/1.1").removeprefix("HTTP/"),
    )
