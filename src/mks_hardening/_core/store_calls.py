"""Store methods, possibly of a user's own store, as effects of operations (``_core/operations.py``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, ParamSpec, TypeVar, cast

from mks_hardening._core.operations import Op, require_sync_result

__all__ = ["acall_store", "call_store"]

P = ParamSpec("P")
T = TypeVar("T")


class _StoreCall(Generic[T]):
    __slots__ = ("_call", "_twin")

    def __init__(self, call: Callable[[], T], twin: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._twin = twin

    def run(self) -> T:
        return require_sync_result(self._call())

    async def arun(self) -> T:
        return await self._twin()


def call_store(method: Callable[P, T], *args: P.args, **options: P.kwargs) -> Op[T]:
    """Call a store method, as an operation."""
    answer: T = yield _StoreCall(
        lambda: method(*args, **options), lambda: acall_store(method, *args, **options)
    )
    return answer


async def acall_store(method: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Call a store method on the event loop: its asynchronous version (prefix ``a``), else in a worker thread.

    A method that is itself ``async def`` is awaited on the loop.
    """
    owner: object = getattr(method, "__self__", None)
    # No name: functools.partial, or a callable object.
    name: str | None = getattr(method, "__name__", None)
    twin: Callable[P, Awaitable[T]] | None = getattr(owner, f"a{name}", None) if name else None
    if twin is not None:
        return await twin(*args, **options)
    import asyncio

    found = await asyncio.to_thread(method, *args, **options)
    if hasattr(found, "__await__"):
        return await cast("Awaitable[T]", found)
    return found
