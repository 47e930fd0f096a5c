"""Changes by middleware to status and headers of a response.

Each middleware adds a step to ``start_response``. The steps of all middleware around an application run in one
call, the innermost first, on one copy of the header list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

__all__ = ["BufferedHead", "ExcInfo", "Headers", "Step", "Write", "is_buffered", "with_step"]

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Headers = list[tuple[str, str]]
Write = Callable[[bytes], object]
Step = Callable[[str, Headers], str]
"""Modifies the header list in place and returns the status line."""


def with_step(start_response: StartResponse, step: Step) -> StartResponse:
    """Return ``start_response`` with one more step, for the inner application.

    The given one is not modified: a middleware in between may call the application twice.
    """
    # A method of a tuple: creating and calling it costs little more than a closure, and it can be inspected.
    if type(start_response) is MethodType and start_response.__func__ is _run_steps:
        calls: _Calls = start_response.__self__  # type: ignore[assignment]  # made below
        return MethodType(_run_steps, (step, *calls))
    return MethodType(_run_steps, (step, start_response))


_Calls = tuple[Callable[..., Any], ...]
_Head = tuple[Any, ...]  # arguments of start_response


def _run_steps(calls: _Calls, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
    """Pass the status from call to call: each gets the result of the one before; the last is the server's."""
    headers = [*headers]  # the application's list is not modified
    result: Any = status
    if exc_info is None:
        for call in calls:
            result = call(result, headers)
    else:
        *steps, start_response = calls
        for step in steps:
            result = step(result, headers)
        try:
            result = start_response(result, headers, exc_info)
        finally:
            exc_info = None  # the traceback refers to this frame
    write: Write = result
    return write


class BufferedHead:
    """Response head that is sent to the server with the first byte, so that it can be replaced until then.

    PEP 3333 lets a server replace a head that it has received (``exc_info``). gunicorn appends the new fields to
    the old ones instead, so that an error before the first byte produces two ``Content-Length`` fields, and the
    ``ETag`` and the cookies of the failed response.
    """

    # Slots: a default on the class would cost more at each reading than setting it here once.
    __slots__ = ("_held", "_is_released", "_start_response", "_write", "head_sent")

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self._held: _Head | None = None
        self._write: Write | None = None
        self._is_released = False
        self.head_sent: bool = False

    @property
    def has_head(self) -> bool:
        """Whether the application has called ``start_response``."""
        return self.head_sent or self._held is not None

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        """Store the head instead of passing it to the server."""
        if self._is_released or (self.head_sent and exc_info is not None):
            self.head_sent = True
            try:
                # The server knows whether the headers are already sent, and then raises the error.
                if exc_info is None:
                    self._write = self._start_response(status, headers)
                else:
                    self._write = self._start_response(status, headers, exc_info)
            finally:
                exc_info = None  # the traceback refers to this frame
            return self.write
        if exc_info is None:
            if self.head_sent or self._held is not None:
                raise AssertionError("start_response was called twice without exc_info (PEP 3333)")
            self._held = status, headers
        else:
            # The server receives the error too: Werkzeug's test client raises it in the test.
            self._held = status, headers, exc_info
            exc_info = None  # the traceback refers to this frame
        return self.write

    def replace_head(self, status: str, headers: Headers) -> None:
        """Replace the head while an error is being handled.

        Raises:
            BaseException: that error, if the server has already sent the head.
        """
        self.start_response(status, headers, sys.exc_info())

    def send_head(self) -> None:
        """Pass the head to the server, if that has not been done yet."""
        held, self._held = self._held, None
        if held is not None:
            # First: a server that rejects a field may have stored those before it.
            self.head_sent = True
            self._write = self._start_response(*held)

    def release(self) -> None:
        """Stop buffering."""
        self._is_released = True
        self.send_head()

    def write(self, data: bytes, /) -> object:
        """Implement the ``write()`` callable of PEP 3333."""
        if not data and not self.head_sent:
            return None  # the head goes with the first byte
        self.send_head()
        assert self._write is not None  # noqa: S101 - only returned after the head
        return self._write(data)


def is_buffered(start_response: StartResponse) -> bool:
    """Return whether an outer middleware already buffers the head."""
    called: object = start_response
    if type(called) is MethodType and called.__func__ is _run_steps:
        called = called.__self__[-1]  # type: ignore[index]  # created by with_step
    return type(called) is MethodType and isinstance(called.__self__, BufferedHead)
