"""The public face of every cache."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from mks_hardening._core.checks import namespace_of, number
from mks_hardening._core.clock import given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.durations import seconds
from mks_hardening._core.missing import MISSING
from mks_hardening._core.operations import Op, arun, run
from mks_hardening.cache._counters import CacheCounters
from mks_hardening.cache._entry import ComputeLease
from mks_hardening.cache._entry_options import check_tags, check_ttl
from mks_hardening.cache._operations import CacheOperations
from mks_hardening.cache._store import CacheStore
from mks_hardening.cache.compute._get_or_compute import Computation, ComputeOptions
from mks_hardening.cache.stats import CacheStats
from mks_hardening.protocols import Clock

__all__ = ["BaseCache"]

T = TypeVar("T")
# More would make a ttl mean something else than it says.
_LARGEST_JITTER: Final = 0.1


class BaseCache(Closing):
    """What all caches do alike. Backends say how entries are kept; an outage of theirs never reaches the caller.

    Values are data: None, booleans, numbers, text, bytes, dates, times, decimals, UUIDs, and lists, tuples, sets
    and mappings of them. What comes out is equal to what went in, of the same types, and never the same mutable
    object.
    """

    def __init__(
        self,
        store: CacheStore,
        *,
        namespace: str,
        default_ttl: float | timedelta,
        compute_wait: float | timedelta,
        jitter: float,
        clock: Clock,
    ) -> None:
        self.store = store
        self.namespace: str = namespace_of(namespace)
        self.default_ttl: float = seconds(default_ttl, parameter="default_ttl")
        self.jitter: float = number(jitter, parameter="jitter", minimum=0, maximum=_LARGEST_JITTER)
        self.compute_wait: float = seconds(compute_wait, parameter="compute_wait")
        self.clock: Clock = given_clock(clock)
        self._counters = CacheCounters(self.namespace)
        self._computing = Computation(store, self._counters, jitter=self.jitter, clock=clock)
        self._operations = CacheOperations(
            store,
            self._computing,
            self._counters,
            default_ttl=self.default_ttl,
            jitter=self.jitter,
            clock=clock,
        )

    # --- reading -----------------------------------------------------------------------------

    def get(self, key: str, default: object = None) -> Any:
        """The value of ``key``, or ``default``."""
        # First without an operation: for a hit in memory the machinery around it would cost more than the look-
        # up.
        value = self.peek(key)
        return self._run(self._operations.get(key, default)) if value is MISSING else value

    async def aget(self, key: str, default: object = None) -> Any:
        """``get`` for asyncio."""
        value = self.peek(key)
        return await self._arun(self._operations.get(key, default)) if value is MISSING else value

    def peek(self, key: str) -> Any:
        """The value, where it can be had at once without a round trip; otherwise the marker ``MISSING``."""
        value = self.store.peek(key)
        if value is not MISSING:
            self._counters.read(found=True)
        return value

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those keys that have one, in one round trip."""
        return self._run(self._operations.get_many(keys))

    async def aget_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """``get_many`` for asyncio."""
        return await self._arun(self._operations.get_many(keys))

    def exists(self, key: str) -> bool:
        """Whether ``key`` has a value."""
        return self._run(self._operations.exists(key))

    async def aexists(self, key: str) -> bool:
        """``exists`` for asyncio."""
        return await self._arun(self._operations.exists(key))

    def get_or_compute(
        self,
        key: str,
        compute: Callable[[], T],
        *,
        ttl: float | timedelta | None = None,
        tags: Iterable[str] = (),
        stale_while_revalidate: float | timedelta | None = None,
        compute_wait: float | timedelta | None = None,
    ) -> T:
        """The value of ``key``; computed, by one caller of all processes, where there is none.

        Whoever asks meanwhile waits for it. If it takes longer than ``compute_wait`` seconds, one of those who wait
        computes as well, another one after so many seconds more, and the first value is for all. An invalidation
        while it is computed wins: the value goes to its caller, but is not kept. Nor is one that is no data, larger
        than 64 MiB, or of more than 2,097,152 items in all its containers together: it is counted as a bypass, and
        warned of once a function.

        Args:
            key: text of 1 to 512 characters.
            compute: makes the value; an error of it reaches everybody who waits, and is not kept.
            ttl: seconds the value is kept; the cache's default when left out, 0 for not at all.
            tags: names for ``invalidate_tags``.
            stale_while_revalidate: seconds after ``ttl`` in which the old value is still handed out at once, while
                one caller's thread (or task) computes the new one.
            compute_wait: seconds after which this computation takes too long; the cache's own when left out.
        """
        value: Any = self.peek(key)
        if value is MISSING:
            terms = self._terms(ttl, tags, stale_while_revalidate, compute_wait)
            value = self._run(self._computing.get_or_compute(key, compute, terms))
        result: T = value
        return result

    async def aget_or_compute(
        self,
        key: str,
        compute: Callable[[], Awaitable[T]],
        *,
        ttl: float | timedelta | None = None,
        tags: Iterable[str] = (),
        stale_while_revalidate: float | timedelta | None = None,
        compute_wait: float | timedelta | None = None,
    ) -> T:
        """``get_or_compute`` for asyncio."""
        value: Any = self.peek(key)
        if value is MISSING:
            terms = self._terms(ttl, tags, stale_while_revalidate, compute_wait)
            value = await self._arun(self._computing.get_or_compute(key, compute, terms))
        result: T = value
        return result

    def _terms(
        self,
        ttl: float | timedelta | None,
        tags: Iterable[str],
        grace: float | timedelta | None,
        wait: float | timedelta | None,
    ) -> ComputeOptions:
        return ComputeOptions(
            check_ttl(ttl, self.default_ttl),
            0.0 if grace is None else seconds(grace, parameter="stale_while_revalidate"),
            check_tags(tags),
            self.compute_wait if wait is None else seconds(wait, parameter="compute_wait"),
        )

    # --- writing -----------------------------------------------------------------------------

    def set(
        self, key: str, value: object, *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """Keep a value for ``ttl`` seconds (0: not at all); whether that could be done.

        Raises:
            EncodeError: the value is not data.
        """
        return self._run(self._operations.set_many({key: value}, ttl, tags))

    async def aset(
        self, key: str, value: object, *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """``set`` for asyncio."""
        return await self._arun(self._operations.set_many({key: value}, ttl, tags))

    def set_many(
        self, values: Mapping[str, object], *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """``set`` for several keys in one round trip."""
        return self._run(self._operations.set_many(values, ttl, tags))

    async def aset_many(
        self, values: Mapping[str, object], *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """``set_many`` for asyncio."""
        return await self._arun(self._operations.set_many(values, ttl, tags))

    # --- forgetting --------------------------------------------------------------------------

    def delete(self, *keys: str) -> int:
        """Forget the keys, and what is being computed for them; how many had a value."""
        return self._run(self._operations.delete(keys))

    async def adelete(self, *keys: str) -> int:
        """``delete`` for asyncio."""
        return await self._arun(self._operations.delete(keys))

    def delete_pattern(self, pattern: str) -> int:
        r"""Forget the keys that match a glob pattern (``*``, ``?``, ``[abc]``; ``\`` before a literal one).

        Walks through all keys in small steps: for maintenance. Tags are cheaper and exact.
        """
        return self._run(self._operations.delete_pattern(pattern))

    async def adelete_pattern(self, pattern: str) -> int:
        """``delete_pattern`` for asyncio."""
        return await self._arun(self._operations.delete_pattern(pattern))

    def invalidate_tags(self, *tags: str) -> bool:
        """Forget all values with one of the tags, however many, in one round trip; whether that could be done."""
        return self._run(self._operations.invalidate_tags(tags))

    async def ainvalidate_tags(self, *tags: str) -> bool:
        """``invalidate_tags`` for asyncio."""
        return await self._arun(self._operations.invalidate_tags(tags))

    def clear(self) -> None:
        """Forget everything in this namespace, and nothing else."""
        self.delete_pattern("*")

    async def aclear(self) -> None:
        """``clear`` for asyncio."""
        await self.adelete_pattern("*")

    # --- the rest ----------------------------------------------------------------------------

    def ping(self) -> bool:
        """Whether the backend answers."""
        return self._run(self._operations.done(self.store.ping()))

    async def aping(self) -> bool:
        """``ping`` for asyncio."""
        return await self._arun(self._operations.done(self.store.ping()))

    def stats(self) -> CacheStats:
        """Counts of this process."""
        return self._counters.snapshot(owed=self.store.owed)

    async def astats(self) -> CacheStats:
        """``stats`` for asyncio."""
        return self.stats()

    def close(self) -> None:
        """Give connections back; harmless when called twice."""
        self.store.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        await self.store.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _run(self, operation: Op[T]) -> T:
        return run(operation, budget=self.store.budget)

    async def _arun(self, operation: Op[T]) -> T:
        return await arun(operation, budget=self.store.budget)

    # --- for values that are made elsewhere and come later ----------------------------------------

    def get_tagged(self, key: str, tags: Iterable[str]) -> Any:
        """``get`` of a value that is kept under these tags, in one round trip."""
        value = self.peek(key)
        return self._run(self._operations.get(key, None, tuple(tags))) if value is MISSING else value

    def begin(self, key: str, tags: Iterable[str] = ()) -> ComputeLease | None:
        """The permission to keep a value of ``key`` that is going to be made; None while somebody else has it."""
        return self._run(self._operations.begin(key, tags))

    def finish(self, key: str, lease: ComputeLease, value: object, *, ttl: float) -> bool:
        """Keep the value, unless the key or a tag was invalidated since ``begin``; whether it is kept."""
        return self._run(self._operations.finish(key, lease, value, ttl=ttl))

    def abandon(self, key: str, lease: ComputeLease) -> None:
        """Give the permission back."""
        self._run(self._operations.abandon(key, lease))

    def count_bypass(self, reason: str) -> None:
        """Note a call that was not cached on purpose."""
        self._counters.bypass(reason)
