"""One request on its way through a wrapper: what the application answers, sends and leaves behind.

``Exchange`` stands in for ``start_response``; ``Body`` stands in for the iterable. Plain classes instead of
generators, because a generator that is never started never runs its ``finally`` (PEP 3333 servers may skip the
body of a HEAD request), and because each step runs inside the request's own ``contextvars.Context``, so that
bodies that are interleaved on one thread do not see each other's fields.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
    Headers = list[tuple[str, str]]

__all__ = ["Body", "Exchange", "SizedBody"]

# Iterating these runs no code of the application, so a step needs no context.
_PLAIN: Final = (list, tuple)
_NOTHING_LEFT: Final = iter(()).__next__


class Exchange:
    """State of one request and answer; subclasses decide what is added to the head and what happens at the end.

    Attributes:
        status: status line the application gave last; empty until then.
        sent: body bytes handed to the server.
        first_byte_at: reading of the monotonic clock at the first body byte, or ``None``.
        declared: the Content-Length, where ``head`` noted it.
        complete: whether the application's body was read to its end.
        error: what left the application, its body or its ``close()``; ``None`` after the end was reported.
    """

    # Defaults of the class: most requests set few of them.
    status = ""
    sent = 0
    first_byte_at: float | None = None
    declared: int | None = None
    complete = False
    error: BaseException | None = None
    _write: Callable[[bytes], object] | None = None
    _done = False

    def __init__(
        self, environ: WSGIEnvironment, start_response: StartResponse, monotonic: Callable[[], float]
    ) -> None:
        self.environ = environ
        self.run = copy_context().run
        self._start_response = start_response
        self._monotonic = monotonic

    # --- what subclasses decide ---

    def begin(self) -> None:
        """Prepare the request's context; runs inside it, before the application."""

    def head(self, status: str, headers: Headers) -> Headers:
        """The header list to send instead of the application's, which must not be changed in place."""
        raise NotImplementedError

    def failure(self) -> tuple[str, Headers, bytes] | None:
        """The answer for an error that left the application before the first byte; ``None`` raises it on."""
        raise NotImplementedError

    def finished(self) -> None:
        """Called once, inside the request's context, after the last byte or the abort."""
        raise NotImplementedError

    # --- the exchange ---

    def answer(self, app: WSGIApplication) -> Iterable[bytes]:
        """Call the application and return the iterable for the server."""
        try:
            result, step = self.run(self._call, app)
        except BaseException as error:  # noqa: BLE001 - reported and raised on, or answered
            return self._failed_call(error)
        if type(result) not in _PLAIN:
            if _is_server_file(result, self.environ) and FileBody(self, result).attach():
                return result
            if not hasattr(result, "__len__"):
                return Body(self, result, step)
        return SizedBody(self, result, step)

    def _call(self, app: WSGIApplication) -> tuple[Iterable[bytes], Callable[[], bytes]]:
        self.begin()
        result = app(self.environ, self.start_response)
        try:
            step = iter(result).__next__
        except BaseException:
            close = getattr(result, "close", None)
            if close is not None:
                close()
            raise
        return result, step if type(result) in _PLAIN else partial(self.run, step)

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """The ``start_response`` given to the application."""
        headers = self.head(status, headers)
        try:
            if exc_info is None:
                self._write = self._start_response(status, headers)
            else:
                self._write = self._start_response(status, headers, exc_info)
        finally:
            exc_info = None  # the traceback holds this very frame
        self.status = status
        return self.write

    def write(self, data: bytes, /) -> object:
        """The old ``write()`` of PEP 3333, counted."""
        assert self._write is not None  # noqa: S101 - only handed out by start_response
        self._count(data)
        return self._write(data)

    def _count(self, data: bytes) -> None:
        if data:
            if self.first_byte_at is None:
                self.first_byte_at = self._monotonic()
            self.sent += len(data)

    def _failed_call(self, error: BaseException) -> Body:
        try:
            result = [self.recover(error)]
        except BaseException:
            self.finish()
            raise
        return SizedBody(self, result, iter(result).__next__)

    def recover(self, error: BaseException) -> bytes:
        """Answer an error with the body of ``failure()``, or raise it on when that is no longer possible."""
        self.error = error
        answer = None
        if isinstance(error, Exception) and self.first_byte_at is None:
            answer = self.failure()
        if answer is None:
            raise error
        status, headers, body = answer
        self._start_response(status, headers, sys.exc_info())
        self.status = status
        return body

    def close(self, close: Callable[[], object] | None) -> None:
        """Close the application's body, if that can be closed, and report the end."""
        try:
            if close is not None:
                self.run(close)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.finish()

    def finish(self) -> None:
        """Report the end, once."""
        if not self._done:
            self._done = True
            self.run(self.finished)
            self.error = None  # its traceback holds frames that hold this object


class Body:
    """Iterator over the application's body that counts, keeps the context, and closes exactly once."""

    __slots__ = ("_close", "_exchange", "_result", "_step")

    def __init__(self, exchange: Exchange, result: Any, step: Callable[[], bytes]) -> None:
        self._exchange = exchange
        self._result = result
        self._step = step
        self._close: Callable[[], object] | None = getattr(result, "close", None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        try:
            chunk = self._step()
        except StopIteration:
            exchange.complete = True
            if self._close is None:
                exchange.finish()
            raise
        except BaseException as error:  # noqa: BLE001 - raised on, or answered
            self._step = _NOTHING_LEFT
            chunk = exchange.recover(error)
        if chunk:
            if exchange.first_byte_at is None:
                exchange.first_byte_at = exchange._monotonic()  # noqa: SLF001 - the two halves of one object
            exchange.sent += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the application's body (once) and report the end."""
        close, self._close = self._close, None
        self._exchange.close(close)


class SizedBody(Body):
    """A body with a known number of chunks; servers derive a Content-Length from ``len(body) == 1``."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._result)


class FileBody:
    """A file that the server may send by itself (``sendfile``): not wrapped, only its ``close()`` is heard.

    The bytes sent are read off the file's position, which ``read`` and ``socket.sendfile`` move. gunicorn puts it
    back after it has sent everything; then, and only then, it is where it was although no exception is under way.
    """

    __slots__ = ("_close", "_exchange", "_file", "_puts_back", "_result", "_start")

    def __init__(self, exchange: Exchange, result: Any) -> None:
        self._exchange = exchange
        self._result = result
        self._close: Callable[[], object] | None = getattr(result, "close", None)
        self._puts_back = hasattr(result, "filelike")  # gunicorn's name, and wsgiref's; waitress says "file"
        self._file: Any = result.filelike if self._puts_back else getattr(result, "file", None)
        self._start = _position(self._file)

    def attach(self) -> bool:
        """Take the place of the wrapper's ``close``; ``False`` when it lets nobody do so."""
        try:
            self._result.close = self.close
        except AttributeError:
            return False
        exchange = self._exchange
        if exchange.first_byte_at is None:
            exchange.first_byte_at = exchange._monotonic()  # noqa: SLF001 - as in Body
        return True

    def close(self) -> None:
        """Take stock, close the file (once) and report the end."""
        close, self._close = self._close, None
        with contextlib.suppress(OSError):
            self._take_stock()
        self._exchange.close(close)

    def _take_stock(self) -> None:
        exchange, start, end = self._exchange, self._start, _position(self._file)
        if start is None or end is None:
            exchange.complete = True
            return
        size = _size(self._file) if self._puts_back else None
        if end == start and size is not None and sys.exc_info()[0] is None:
            end = size if exchange.declared is None else min(size, start + exchange.declared)
            exchange.complete = True
        else:
            exchange.complete = not self._file.read(1)
        exchange.sent += end - start


def _position(file: Any) -> int | None:
    try:
        return int(file.tell())
    except (AttributeError, OSError, ValueError):
        return None


def _size(file: Any) -> int | None:
    """Size of a file that ``sendfile`` can send; ``None`` for others."""
    try:
        return os.fstat(file.fileno()).st_size
    except (AttributeError, OSError, ValueError):
        return None


def _is_server_file(result: object, environ: WSGIEnvironment) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(result, wrapper)
