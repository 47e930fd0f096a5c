"""Watched sections of code: a ``with`` block, or every call of a function or coroutine function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import wraps
from inspect import iscoroutine
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, cast

from mks_hardening.db._function_kind import is_async, refuse_generators

__all__ = ["WatchWindow"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class WatchWindow(Generic[T]):
    """Context manager for a single use, and decorator that opens a new window for each call.

    Unlike the decorators of ``contextlib``, it covers a coroutine function until its end, not until its first
    ``await``.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[T]]) -> None:
        self._make = make
        # A stack, because a window may be entered recursively.
        self._opened: list[AbstractContextManager[T]] = []

    def __enter__(self) -> T:
        opened = self._make()
        entered = opened.__enter__()
        self._opened.append(opened)
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._opened.pop().__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function or a coroutine function.

        Raises:
            ConfigurationError: the function is a generator function, whose body runs only after the call.
        """
        refuse_generators(function)
        body: Callable[P, Any] = function

        async def awaited(running: Awaitable[object]) -> object:
            with self._make():
                return await running

        async def later(*args: P.args, **kwargs: P.kwargs) -> object:
            with self._make():
                return await body(*args, **kwargs)

        def now(*args: P.args, **kwargs: P.kwargs) -> object:
            with self._make():
                result = body(*args, **kwargs)
            # A plain function that wraps a coroutine function: nothing has run yet.
            return awaited(result) if iscoroutine(result) else result

        return cast("Callable[P, R]", wraps(function)(later if is_async(function) else now))
