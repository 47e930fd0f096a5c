"""One request and its response: observes the head, the body and the end.

``Exchange`` observes the head; ``ResponseBody`` wraps the iterable. These are plain classes instead of generators
for two reasons: a generator that is never started never runs its ``finally`` (PEP 3333 servers may skip the body of
a HEAD request), and each step runs in the request's own ``contextvars.Context``, so that bodies interleaved on one
thread do not see each other's fields.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.web.wsgi_head import BufferedHead, with_step
from mks_hardening.wsgi.request_log._server_file import FileBody, is_server_file

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import ExcInfo, Headers, Write

__all__ = ["Exchange", "ResponseBody", "SizedResponseBody"]

# Iterating these types runs no code of the application, so a step needs no context.
_PLAIN: Final = (list, tuple)
_NOTHING_LEFT: Final = iter(()).__next__


class Exchange(BufferedHead):
    """State of one request and its response; subclasses change the head and report the end.

    Attributes:
        status: status line that was set last; empty until then.
        sent: body bytes handed to the server.
        in_flight: how many of them belong to the last chunk, which the server may still be sending.
        broken_off: whether the server closed the body while it handled an exception.
        first_byte_at: reading of the monotonic clock at the first body byte, or ``None``.
        declared: the Content-Length, if ``step`` noted it.
        complete: whether the application's body was read to its end.
        error: exception from the application, its body or its ``close()``; ``None`` after the end was reported.
    """

    # Class-level defaults: most requests set few of them.
    status = ""
    sent = 0
    in_flight = 0
    broken_off = False
    first_byte_at: float | None = None
    declared: int | None = None
    complete = False
    error: BaseException | None = None
    _done = False

    def __init__(
        self, environ: WSGIEnvironment, start_response: StartResponse, monotonic: Callable[[], float]
    ) -> None:
        self.environ = environ
        # A context per request: bodies are read after the call, and interleaved on one thread.
        self.run = copy_context().run
        BufferedHead.__init__(self, start_response)
        self._monotonic = monotonic

    # --- hooks for subclasses ---

    def begin(self) -> None:
        """Prepare the request's context; called in it, before the application."""

    def step(self, status: str, headers: Headers) -> str:
        """Change the header fields of the response in place and return its status line."""
        raise NotImplementedError

    def failure(self) -> tuple[str, Headers, bytes] | None:
        """Return the response to an exception before the first body byte; ``None`` re-raises the exception."""
        raise NotImplementedError

    def finished(self) -> None:
        """Report the end; called once, in the request's context, after the last byte or the abort."""
        raise NotImplementedError

    # --- request and response ---

    def answer(self, app: WSGIApplication) -> Iterable[bytes]:
        """Call the application and return the iterable for the server."""
        try:
            result, step = self.run(self._call, app)
        except BaseException as error:  # noqa: BLE001 - reported, and re-raised or turned into a response
            return self._failed_call(error)
        if type(result) not in _PLAIN:
            if self.has_head and is_server_file(result, self.environ) and FileBody(self, result).attach():
                self.send_head()
                return result
            if not hasattr(result, "__len__"):
                return ResponseBody(self, result, step).begin()
        return SizedResponseBody(self, result, step).begin()

    def _call(self, app: WSGIApplication) -> tuple[Iterable[bytes], Callable[[], bytes]]:
        self.begin()
        result = app(self.environ, with_step(self.start_response, self.step))
        try:
            step = iter(result).__next__
        except BaseException:
            close = getattr(result, "close", None)
            if close is not None:
                close()
            raise
        if type(result) not in _PLAIN:
            return result, partial(self.run, step)
        # No application code is left that could fail.
        if self.has_head and all(type(chunk) is bytes for chunk in result):
            self.send_head()
        return result, step

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        """Store the head and note the status."""
        write = BufferedHead.start_response(self, status, headers, exc_info)
        self.status = status
        return write

    def write(self, data: bytes, /) -> object:
        """Count and send data passed to the legacy ``write()`` of PEP 3333."""
        check_chunk(data)
        self.send_head()
        if data and self.first_byte_at is None:
            self.first_byte_at = self._monotonic()
        result = BufferedHead.write(self, data)
        self.sent += len(data)
        return result

    def begin_body(self) -> None:
        """Send the head, when the first chunk of the body or its end is known.

        Raises:
            RuntimeError: the application has not called ``start_response``.
        """
        if not self.has_head:
            raise RuntimeError("the application returned a body and never called start_response (PEP 3333)")
        self.send_head()

    def _failed_call(self, error: BaseException) -> ResponseBody:
        try:
            result = [self.recover(error)]
        except BaseException:
            self.finish()
            raise
        return SizedResponseBody(self, result, iter(result).__next__)

    def recover(self, error: BaseException) -> bytes:
        """Respond to an exception with the body of ``failure()``, or re-raise it if that is no longer possible."""
        self.error = error
        answer = None
        # SystemExit and similar exceptions end workers, and must reach the server.
        if isinstance(error, Exception) and self.first_byte_at is None:
            answer = self.failure()
        if answer is None:
            raise error
        status, headers, body = answer
        self.replace_head(status, headers)
        self.send_head()
        return body

    def close(self, close: Callable[[], object] | None) -> None:
        """Close the application's body, if it has ``close``, and report the end."""
        # Servers close in a finally clause: a pending exception means that the client disconnected while they sent.
        self.broken_off = not self.complete and sys.exc_info()[0] is not None
        try:
            if close is not None:
                self.run(close)
        except BaseException as error:
            self.error = error
            raise
        else:
            if self.error is None and not self.broken_off:
                self.send_head()  # for a server that does not read the body, for example for HEAD
        finally:
            self.finish()

    def bytes_sent(self) -> int:
        """Return the bytes that the server has certainly sent; an interrupted chunk does not count."""
        return self.sent - self.in_flight if self.broken_off else self.sent

    def finish(self) -> None:
        """Report the end, once."""
        if not self._done:
            self._done = True
            self.run(self.finished)
            self.error = None  # its traceback holds frames that refer to this object


def check_chunk(chunk: object) -> None:
    """Check that a chunk is bytes, as servers require.

    Raises:
        TypeError: it is not bytes.
    """
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        raise TypeError(f"a body must yield bytes, not {type(chunk).__name__} (PEP 3333)")


class ResponseBody:
    """Iterator over the application's body that counts bytes, keeps the context, and closes exactly once."""

    __slots__ = ("_close", "_exchange", "_first", "_result", "_step")

    def __init__(self, exchange: Exchange, result: Any, step: Callable[[], bytes]) -> None:
        self._exchange = exchange
        self._result = result
        self._step = step
        self._first = b""
        self._close: Callable[[], object] | None = getattr(result, "close", None)

    def begin(self) -> ResponseBody:
        """Read the first chunk and send the head, which servers such as Granian take before the body; return self.

        An exception until then, also after empty chunks, can still get a proper response.
        """
        exchange = self._exchange
        if exchange.head_sent:
            return self
        try:
            try:
                while not self._first:
                    self._first = self._step()
                check_chunk(self._first)
            except StopIteration:
                self._step = _NOTHING_LEFT
            exchange.begin_body()
        except BaseException as error:  # noqa: BLE001 - re-raised or turned into a response
            self._step = _NOTHING_LEFT
            try:
                self._first = exchange.recover(error)
            except BaseException:
                self.close()
                raise
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        chunk, self._first = self._first, b""
        if not chunk:
            try:
                chunk = self._step()
                if type(chunk) is not bytes:
                    check_chunk(chunk)
            except StopIteration:
                exchange.complete = True
                if self._close is None:
                    exchange.finish()
                raise
            except BaseException as error:  # noqa: BLE001 - re-raised or turned into a response
                self._step = _NOTHING_LEFT
                exchange.in_flight = 0
                chunk = exchange.recover(error)
        if chunk and exchange.first_byte_at is None:
            exchange.first_byte_at = exchange._monotonic()  # noqa: SLF001 - the two classes work as one
        exchange.in_flight = len(chunk)
        exchange.sent += exchange.in_flight
        return chunk

    def close(self) -> None:
        """Close the application's body, once, and report the end."""
        close, self._close = self._close, None
        self._exchange.close(close)


class SizedResponseBody(ResponseBody):
    """A body with a known number of chunks; servers derive a Content-Length if ``len(body) == 1``."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._result)
