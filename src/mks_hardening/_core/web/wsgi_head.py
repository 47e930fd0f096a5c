"""The one way in which wrappers change the head of an answer.

Each wrapper adds a step to ``start_response``; the steps of all wrappers around an application run in one call, the
innermost first, on one copy of the header list.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

__all__ = ["ExcInfo", "Headers", "Step", "Write", "with_step"]

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Headers = list[tuple[str, str]]
Write = Callable[[bytes], object]
Step = Callable[[str, Headers], str]
"""Changes the header list in place and returns the status line."""


def with_step(start_response: StartResponse, step: Step) -> StartResponse:
    """``start_response`` with one more step, for what is called inside.

    The one that was handed in stays as it is: a wrapper between may call the application twice.
    """
    # A method of a tuple: making and calling one costs little more than a closure, and it can be looked into.
    if type(start_response) is MethodType and start_response.__func__ is _take_head:
        calls: _Calls = start_response.__self__  # type: ignore[assignment]  # made below
        return MethodType(_take_head, (step, *calls))
    return MethodType(_take_head, (step, start_response))


_Calls = tuple[Callable[..., Any], ...]


def _take_head(calls: _Calls, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
    """Hand the head from call to call: each gets what the one before returned; the last is the server's."""
    headers = [*headers]  # the application's list stays as it is
    told: Any = status
    if exc_info is None:
        for call in calls:
            told = call(told, headers)
    else:
        *steps, start_response = calls
        for step in steps:
            told = step(told, headers)
        try:
            told = start_response(told, headers, exc_info)
        finally:
            exc_info = None  # the traceback holds this very frame
    write: Write = told
    return write
