"""Copy a response while the server sends it, and serve a stored one instead of an error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from mks_hardening._core.operations import run
from mks_hardening._edge.response_cache.response_recorder import ResponseRecorder, ServedResponse

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["RecordedBody", "StaleBody", "status_line"]


def status_line(status: int) -> str:
    """Return the status as ``start_response`` takes it."""
    return _STATUS_LINES[status]


_STATUS_LINES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class StaleBody:
    """The body of a stale response.

    Args:
        body: the whole body.
        refresh: called after the server has sent the body, unless the client disconnected first.
    """

    def __init__(self, body: bytes, refresh: Callable[[], None]) -> None:
        self._pieces = iter((body,))
        self._refresh: Callable[[], None] | None = refresh
        self._is_sent = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for piece in self._pieces:
            return piece
        self._is_sent = True
        raise StopIteration

    def close(self) -> None:
        """Make the new response."""
        refresh, self._refresh = self._refresh, None
        if refresh is not None and self._is_sent:
            refresh()


class RecordedBody:
    """The body of a response that the application makes."""

    def __init__(self, recorder: ResponseRecorder, start_response: StartResponse) -> None:
        self._recorder = recorder
        self._start_response = start_response
        self._served: ServedResponse | None = None
        self._stored_body = b""  # to send instead of the application's
        self._has_sent = False
        self._result: Iterable[bytes] = ()
        self._steps: Iterator[bytes] = iter(())
        self._closed = False

    def answer(self, app: WSGIApplication, environ: WSGIEnvironment) -> Iterable[bytes]:
        """Call the application and return the response body."""
        try:
            self._result = app(environ, self.start_response)
            self._steps = iter(self._result)
        except BaseException as error:
            if not self._replaces_error(error):
                raise
        return self

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Inspect the head, and send that of a stored response or of a 304 instead if necessary."""
        if self._recorder.has_replaced:
            return len  # whatever the application writes now
        code = int(status[:3]) if status[:3].isdecimal() else 0
        if exc_info and not (self._recorder.can_replace_errors and not self._has_sent):
            run(self._recorder.drop("error"))
            code = 0
        try:
            served = run(self._recorder.start(code, headers))
            if served.body is not None:
                status = status_line(served.status)
            return self._start(status, served, exc_info)
        finally:
            # As in PEP 3333: the traceback references this frame, and would keep it alive in a cycle.
            exc_info = None

    def _start(
        self, status: str, served: ServedResponse, exc_info: ExcInfo | None
    ) -> Callable[[bytes], object]:
        self._served = served
        self._stored_body = served.body or b""
        try:
            if exc_info:
                write = self._start_response(status, served.headers, exc_info)
            else:
                write = self._start_response(status, served.headers)
        finally:
            exc_info = None

        def counted_write(data: bytes, /) -> object:
            return write(self._record(data))

        return counted_write

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece = next(self._steps)
        except StopIteration:
            run(self._recorder.finish())
            return self._last()
        except BaseException as error:
            if not self._replaces_error(error):
                raise
            return self._last()
        return self._record(piece)

    def _last(self) -> bytes:
        """The stored body that replaces the application's, if it is not sent yet."""
        self._steps = iter(())
        if not self._stored_body:
            raise StopIteration
        piece, self._stored_body = self._stored_body, b""
        return piece

    def close(self) -> None:
        """Close the application's body, once; a response that was not read to its end is not stored."""
        if self._closed:
            return
        self._closed = True
        run(self._recorder.drop("cut short"))
        close = getattr(self._result, "close", None)
        if close is not None:
            close()

    def _record(self, piece: bytes) -> bytes:
        if self._recorder.append(piece):
            run(self._recorder.drop("size"))
        if self._served is not None and self._served.body is not None:
            piece, self._stored_body = self._stored_body, b""
        self._has_sent = self._has_sent or bool(piece)
        return piece

    def _replaces_error(self, error: BaseException) -> bool:
        """Whether the client gets a stored response instead of an exception that is being handled."""
        recorder = self._recorder
        can_replace = recorder.can_replace_errors and not self._has_sent
        if not isinstance(error, Exception) or not (can_replace or recorder.has_replaced):
            run(recorder.drop("error"))
            return False
        recorder.log_error(error)
        if can_replace:
            served = run(recorder.replace_error())
            # A server may have the head of the failed response already.
            self._start(status_line(served.status), served, None if self._served is None else sys.exc_info())
        return True
