"""Calls of a store, which may be a user's own, as effects of operations (``_core/operations.py``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, ParamSpec, TypeVar, cast

from mks_hardening._core.operations import Op, answered

__all__ = ["ask", "asked"]

P = ParamSpec("P")
T = TypeVar("T")


class _StoreCall(Generic[T]):
    __slots__ = ("_call", "_twin")

    def __init__(self, call: Callable[[], T], twin: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._twin = twin

    def run(self) -> T:
        return answered(self._call())

    async def arun(self) -> T:
        return await self._twin()


def ask(method: Callable[P, T], *args: P.args, **options: P.kwargs) -> Op[T]:
    """Call a method of a store, as an operation."""
    answer: T = yield _StoreCall(lambda: method(*args, **options), lambda: asked(method, *args, **options))
    return answer


async def asked(method: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Call a method of a store on the event loop: the ``a`` twin, or where there is none, a worker thread.

    What is ``async def`` itself is awaited on the loop.
    """
    owner: object = getattr(method, "__self__", None)
    # Without a name: functools.partial, or an object that can be called.
    name: str | None = getattr(method, "__name__", None)
    twin: Callable[P, Awaitable[T]] | None = getattr(owner, f"a{name}", None) if name else None
    if twin is not None:
        return await twin(*args, **options)
    import asyncio

    found = await asyncio.to_thread(method, *args, **options)
    if hasattr(found, "__await__"):
        return await cast("Awaitable[T]", found)
    return found
