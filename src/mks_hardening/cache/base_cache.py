"""The base class of all caches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from random import random
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from mks_hardening._core.cache_tags import check_tags
from mks_hardening._core.checks import function as check_function
from mks_hardening._core.checks import namespace_of, number, strings, whole_number
from mks_hardening._core.clock import given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.durations import seconds
from mks_hardening._core.missing import MISSING
from mks_hardening._core.operations import Call, Op, Pause, arun, run
from mks_hardening.cache._compute_lease import ComputeLease
from mks_hardening.cache._counters import CacheCounters
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache._entry_options import check_key, check_ttl, jittered
from mks_hardening.cache._store import CacheStore
from mks_hardening.cache._transaction_scope import current_scopes, entered_scopes
from mks_hardening.cache.cache_stats import CacheStats
from mks_hardening.cache.cache_transaction import CacheTransaction
from mks_hardening.cache.compute._get_or_compute import ComputeOptions, ValueComputer
from mks_hardening.cache.compute._result_computation import ResultComputation
from mks_hardening.exceptions import BackendUnavailableError, DecodeError, EncodeError
from mks_hardening.protocols import Clock

__all__ = ["BaseCache"]

T = TypeVar("T")
# A larger jitter would make the ttl misleading.
_LARGEST_JITTER: Final = 0.1
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


class BaseCache(Closing):
    """The operations of every cache. Backends store the entries; their outages never reach the caller.

    Values are plain data: None, booleans, numbers, text, bytes, dates, times, decimals, UUIDs, and lists, tuples,
    sets and mappings of them. A value read from the cache is equal to the stored one, has the same types, and never
    shares a mutable object with it.
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
        self._computing = ValueComputer(store, self._counters, jitter=self.jitter, clock=clock)

    # --- reading -----------------------------------------------------------------------------

    def get(self, key: str, default: object = None) -> Any:
        """Return the value of ``key``, or ``default``."""
        # Without an operation first: for a hit in memory, its overhead would exceed the cost of the look-up.
        value = self.peek(key)
        return self._run(self._read(key, default)) if value is MISSING else value

    async def aget(self, key: str, default: object = None) -> Any:
        """``get`` for asyncio."""
        value = self.peek(key)
        return await self._arun(self._read(key, default)) if value is MISSING else value

    def peek(self, key: str) -> Any:
        """Return the value if it is available without a round trip; otherwise the marker ``MISSING``."""
        # In a transaction, the tags of the entry decide, which are not known here.
        value = MISSING if entered_scopes() and current_scopes() else self.store.peek(key)
        if value is not MISSING:
            self._counters.hit()
        return value

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those keys that have one, in one round trip."""
        return self._run(self._read_many(keys))

    async def aget_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """``get_many`` for asyncio."""
        return await self._arun(self._read_many(keys))

    def exists(self, key: str) -> bool:
        """Return whether ``key`` has a value."""
        return self._run(self._is_stored(key))

    async def aexists(self, key: str) -> bool:
        """``exists`` for asyncio."""
        return await self._arun(self._is_stored(key))

    def expires_in(self, key: str) -> float | None:
        """Return the seconds until the value of ``key`` expires; None without a value."""
        return self._run(self._expires_in(key))

    async def aexpires_in(self, key: str) -> float | None:
        """``expires_in`` for asyncio."""
        return await self._arun(self._expires_in(key))

    def keys(self, pattern: str = "*", *, most: int | None = None) -> list[str]:
        r"""Return the keys that have a value and match a glob pattern (see ``delete_pattern``), in any order.

        Scans all keys in small steps and reads the values that match, so use it for maintenance.

        Args:
            pattern: the pattern.
            most: maximum number of keys to return; by default all.
        """
        return self._run(self._matching(pattern, most))

    async def akeys(self, pattern: str = "*", *, most: int | None = None) -> list[str]:
        """``keys`` for asyncio."""
        return await self._arun(self._matching(pattern, most))

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
        """Return the value of ``key``; if there is none, one caller among all processes computes it.

        Other callers wait for the value. If the computation takes longer than ``compute_wait`` seconds, one of the
        waiting callers computes as well, another one after that many seconds more, and all get the first value. An
        invalidation during the computation takes precedence: the value is returned but not stored. A value is not
        stored either if it is not plain data, is larger than 64 MiB, or has more than 2,097,152 items in all its
        containers together: it is counted as a bypass, and a warning is logged once per function.

        Args:
            key: string of 1 to 512 characters.
            compute: computes the value; its error is raised in all waiting callers, and is not stored.
            ttl: seconds for which the value is stored, 0 for not at all; by default that of the cache.
            tags: names for ``invalidate_tags``.
            stale_while_revalidate: seconds after ``ttl`` during which the old value is still returned at once,
                while a thread (or task) of one caller computes the new one.
            compute_wait: seconds after which this computation takes too long; by default that of the cache.
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

    def get_or_compute_many(
        self,
        keys: Iterable[str],
        compute: Callable[[list[str]], Mapping[str, T]],
        *,
        ttl: float | timedelta | None = None,
        tags: Iterable[str] = (),
    ) -> dict[str, T]:
        """Return the values of several keys; one call of ``compute`` computes all missing ones.

        Values are read in one round trip, and stored in another, except on a Cluster. An invalidation during the
        computation takes precedence. A key that another caller is computing is computed as well, and not stored.

        Args:
            keys: strings of 1 to 512 characters.
            compute: called with the missing keys; returns their values by key. A key that it omits has no value in
                the result, and nothing is stored for it.
            ttl: seconds for which the values are stored, 0 for not at all; by default that of the cache.
            tags: names for ``invalidate_tags``, of all values.

        Raises:
            ConfigurationError: a parameter is invalid, or ``compute`` does not return a mapping.
        """
        return self._run(self._many(keys, compute, ttl, tags))

    async def aget_or_compute_many(
        self,
        keys: Iterable[str],
        compute: Callable[[list[str]], Awaitable[Mapping[str, T]]],
        *,
        ttl: float | timedelta | None = None,
        tags: Iterable[str] = (),
    ) -> dict[str, T]:
        """``get_or_compute_many`` for asyncio."""
        return await self._arun(self._many(keys, compute, ttl, tags))

    def _many(
        self,
        keys: Iterable[str],
        compute: Callable[[list[str]], object],
        ttl: float | timedelta | None,
        tags: Iterable[str],
    ) -> Op[Any]:
        wanted = [check_key(key) for key in dict.fromkeys(strings(keys, parameter="keys"))]
        terms = self._terms(ttl, tags, None, None)
        return self._computing.get_or_compute_many(
            wanted, check_function(compute, parameter="compute", may_be_async=True), terms
        )

    def get_or_compute_with(self, key: str, compute: Callable[[], object], options: ComputeOptions) -> object:
        """``get_or_compute`` for a cached function, after ``peek`` has found nothing."""
        return self._run(self._result(key, compute, options))

    async def aget_or_compute_with(
        self, key: str, compute: Callable[[], object], options: ComputeOptions
    ) -> object:
        """``get_or_compute_with`` for asyncio."""
        return await self._arun(self._result(key, compute, options))

    def refresh_with(self, key: str, compute: Callable[[], object], options: ComputeOptions) -> object:
        """Compute the value of a cached function now, whatever is stored, and store it."""
        return self._run(self._refreshed(key, compute, options))

    async def arefresh_with(self, key: str, compute: Callable[[], object], options: ComputeOptions) -> object:
        """``refresh_with`` for asyncio."""
        return await self._arun(self._refreshed(key, compute, options))

    def _result(self, key: str, compute: Callable[[], object], options: ComputeOptions) -> Op[object]:
        if not isinstance(compute, ResultComputation):
            return self._computing.get_or_compute(key, compute, options)
        return self._unpacked(key, compute, options)

    def _unpacked(self, key: str, compute: ResultComputation, options: ComputeOptions) -> Op[object]:
        for _ in range(2):
            packed = yield from self._computing.get_or_compute(key, compute, options)
            try:
                return compute.unpack(packed)
            except DecodeError:  # written by someone else: of the same layout, and not of the declared type
                self._counters.bypass("damaged")
                yield from self._remove((key,))
        return (yield Call(compute.__wrapped__))

    def _refreshed(self, key: str, compute: Callable[[], object], options: ComputeOptions) -> Op[object]:
        packed = yield from self._computing.refresh(key, compute, options)
        return compute.unpack(packed) if isinstance(compute, ResultComputation) else packed

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
        """Store a value for ``ttl`` seconds (0: not at all); return whether the backend did.

        Raises:
            EncodeError: the value is not plain data.
        """
        return self._run(self._write({key: value}, ttl, tags))

    async def aset(
        self, key: str, value: object, *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """``set`` for asyncio."""
        return await self._arun(self._write({key: value}, ttl, tags))

    def set_many(
        self, values: Mapping[str, object], *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """``set`` for several keys in one round trip."""
        return self._run(self._write(values, ttl, tags))

    async def aset_many(
        self, values: Mapping[str, object], *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """``set_many`` for asyncio."""
        return await self._arun(self._write(values, ttl, tags))

    def touch(self, key: str, *, ttl: float | timedelta | None = None) -> bool:
        """Store the value of ``key`` for ``ttl`` more seconds from now on; return whether there was one.

        A value written or deleted at the same time is never replaced by the older one.
        """
        return self._run(self._touch(key, ttl))

    async def atouch(self, key: str, *, ttl: float | timedelta | None = None) -> bool:
        """``touch`` for asyncio."""
        return await self._arun(self._touch(key, ttl))

    # --- invalidation ------------------------------------------------------------------------

    def delete(self, *keys: str) -> int:
        """Delete the keys and void running computations of them; return how many had a value."""
        return self._run(self._remove(keys))

    async def adelete(self, *keys: str) -> int:
        """``delete`` for asyncio."""
        return await self._arun(self._remove(keys))

    def delete_pattern(self, pattern: str) -> int:
        r"""Delete the keys that match a glob pattern (``*``, ``?``, ``[abc]``; ``\`` before a literal one).

        Scans all keys in small steps, so use it for maintenance. Tags are cheaper and exact.
        """
        return self._run(self._remove_matching(pattern))

    async def adelete_pattern(self, pattern: str) -> int:
        """``delete_pattern`` for asyncio."""
        return await self._arun(self._remove_matching(pattern))

    def invalidate_tags(self, *tags: str) -> bool:
        """Invalidate all values with one of the tags in one round trip; return whether the backend did."""
        return self._run(self._void_tags(tags))

    async def ainvalidate_tags(self, *tags: str) -> bool:
        """``invalidate_tags`` for asyncio."""
        return await self._arun(self._void_tags(tags))

    def clear(self) -> None:
        """Invalidate everything in this namespace, and nothing else.

        Takes a few hundredths of a second, however much there is. Redis removes the old values when they expire; to
        free their memory at once, use ``delete_pattern("*")``.
        """
        self._run(self._void_all())

    async def aclear(self) -> None:
        """``clear`` for asyncio."""
        await self._arun(self._void_all())

    def transaction(self) -> CacheTransaction:
        """Return a context manager for a database transaction that invalidates the changed entries at its end."""
        return CacheTransaction(self)

    # --- health, statistics, lifecycle -------------------------------------------------------

    def ping(self) -> bool:
        """Return whether the backend responds."""
        return self._run(self._succeeds(self.store.ping()))

    async def aping(self) -> bool:
        """``ping`` for asyncio."""
        return await self._arun(self._succeeds(self.store.ping()))

    def stats(self) -> CacheStats:
        """Return the counts of this process."""
        return self._counters.snapshot(pending=self.store.pending)

    async def astats(self) -> CacheStats:
        """``stats`` for asyncio."""
        return self.stats()

    def close(self) -> None:
        """Release connections; calling it twice is safe."""
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

    # --- for values that are computed elsewhere and stored later ----------------------------------

    def get_tagged(self, key: str, tags: Iterable[str]) -> Any:
        """``get`` for a value stored under these tags, in one round trip."""
        value = self.peek(key)
        return self._run(self._read(key, None, tuple(tags))) if value is MISSING else value

    async def aget_tagged(self, key: str, tags: Iterable[str]) -> Any:
        """``get_tagged`` for asyncio."""
        value = self.peek(key)
        return await self._arun(self._read(key, None, tuple(tags))) if value is MISSING else value

    def get_together(self, keys: Sequence[str], tags: Iterable[str]) -> list[Any]:
        """Return the values of several keys, None for a missing one, in one round trip.

        The read counts as one, of the first key, which is stored under these tags.
        """
        values = [MISSING if current_scopes() else self.store.peek(key) for key in keys]
        if MISSING in values:
            return self._run(self._read_together(keys, tuple(tags)))
        self._counters.hit()
        return values

    async def aget_together(self, keys: Sequence[str], tags: Iterable[str]) -> list[Any]:
        """``get_together`` for asyncio."""
        values = [MISSING if current_scopes() else self.store.peek(key) for key in keys]
        if MISSING in values:
            return await self._arun(self._read_together(keys, tuple(tags)))
        self._counters.hit()
        return values

    def begin(self, key: str, tags: Iterable[str] = (), *, wait: float = 0.0) -> ComputeLease | None:
        """Acquire a lease to store a value of ``key`` later; return None while another caller holds it.

        With ``wait``, None is returned when another process that held it has stored a value, after that many
        seconds at the latest.
        """
        return self._run(self._begin(key, tags, wait))

    async def abegin(self, key: str, tags: Iterable[str] = (), *, wait: float = 0.0) -> ComputeLease | None:
        """``begin`` for asyncio."""
        return await self._arun(self._begin(key, tags, wait))

    def finish(self, key: str, lease: ComputeLease, value: object, *, ttl: float) -> bool:
        """Store the value unless key or tags were invalidated since ``begin``; return whether it was stored."""
        return self._run(self._finish(key, lease, value, ttl=ttl))

    async def afinish(self, key: str, lease: ComputeLease, value: object, *, ttl: float) -> bool:
        """``finish`` for asyncio."""
        return await self._arun(self._finish(key, lease, value, ttl=ttl))

    def abandon(self, key: str, lease: ComputeLease) -> None:
        """Release the lease without storing a value."""
        self._run(self._abandon(key, lease))

    async def aabandon(self, key: str, lease: ComputeLease) -> None:
        """``abandon`` for asyncio."""
        await self._arun(self._abandon(key, lease))

    def replace(
        self, key: str, change: Callable[[CacheEntry | None], tuple[object, float] | None], *, wait: float
    ) -> bool:
        """Replace the value of ``key`` by what ``change`` makes of it; see ``_replace``.

        Raises:
            BackendUnavailableError: the backend is unavailable, or the key was busy for ``wait`` seconds.
            EncodeError: the new value is not plain data.
        """
        try:
            return self._run(self._replace(key, change, wait))
        except BackendUnavailableError as error:
            self._counters.failed(error)
            raise

    def count_bypass(self, reason: str) -> None:
        """Count a call that was deliberately not cached."""
        self._counters.bypass(reason)

    # --- operations; an outage of the backend is a miss, or ``False`` ---------------------------------

    def _read(self, key: str, default: object, tags: tuple[str, ...] = ()) -> Op[object]:
        """Return the value, or ``default``; ``tags`` are the tags that the caller expects on it."""
        entry = yield from self._computing.entry(check_key(key), tags)
        return self._value(entry, default)

    def _read_many(self, keys: Iterable[str]) -> Op[dict[str, object]]:
        """Return the values of those keys that have one."""
        wanted = [check_key(key) for key in dict.fromkeys(keys)]
        if not wanted:
            return {}
        entries = yield from self._computing.entries(wanted)
        values = {key: self._value(entry, MISSING) for key, entry in zip(wanted, entries, strict=True)}
        return {key: value for key, value in values.items() if value is not MISSING}

    def _read_together(self, keys: Sequence[str], tags: tuple[str, ...]) -> Op[list[object]]:
        """Return the values of several keys, None for a missing one; ``tags`` are expected on the first one."""
        wanted = [check_key(key) for key in keys]
        entries = yield from self._computing.entries(wanted, tags)
        self._counters.read(found=self._computing.is_fresh(entries[0]))
        return [
            entry.value if entry is not None and self._computing.is_fresh(entry) else None
            for entry in entries
        ]

    def _value(self, entry: CacheEntry | None, otherwise: object) -> object:
        fresh = self._computing.is_fresh(entry)
        self._counters.read(found=fresh)
        return entry.value if entry is not None and fresh else otherwise

    def _is_stored(self, key: str) -> Op[bool]:
        """Return whether the key has a value."""
        return self._computing.is_fresh((yield from self._computing.entry(check_key(key))))

    def _expires_in(self, key: str) -> Op[float | None]:
        """Return the seconds until the value expires."""
        loading = self.store.load_original(check_key(key))
        entry = yield from self._computing.guarded(loading, otherwise=None)
        left = 0.0 if entry is None else entry.fresh_until - self.clock.time()
        return left if left > 0 else None

    def _matching(self, pattern: str, most: int | None) -> Op[list[str]]:
        """Return the keys that match."""
        limit = None if most is None else whole_number(most, parameter="most", minimum=1)
        nothing: list[str] = []
        matching = self.store.matching(check_key(pattern), limit)
        return (yield from self._computing.guarded(matching, otherwise=nothing))

    def _touch(self, key: str, ttl: float | timedelta | None) -> Op[bool]:
        """Extend the expiry of a value; return whether there was one."""
        lifetime = check_ttl(ttl, self.default_ttl)

        def extend(entry: CacheEntry | None) -> tuple[object, float] | None:
            return None if entry is None else (entry.value, jittered(lifetime, self.jitter))

        replacing = self._replace(key, extend, self.compute_wait)
        return (yield from self._computing.guarded(replacing, otherwise=False))

    def _replace(
        self, key: str, change: Callable[[CacheEntry | None], tuple[object, float] | None], wait: float
    ) -> Op[bool]:
        """Replace a value; return whether that was done. No other write or invalidation is lost.

        ``change`` gets the fresh entry, and returns the new value and its ttl, or None to keep it; with a ttl of
        zero, the value is removed. It may be called several times: while another caller has the lease, or if the
        key is written in between, the operation is repeated for ``wait`` seconds.
        """
        check_key(key)
        until = self.clock.monotonic() + wait
        pause = _FIRST_PAUSE
        while True:
            entry = yield from self.store.load_original(key)
            lease = yield from self.store.acquire(key, () if entry is None else tuple(entry.tags))
            if isinstance(lease, ComputeLease):
                done = yield from self._replace_under(lease, key, change)
                if done is not None:
                    return done
            if self.clock.monotonic() >= until:
                raise BackendUnavailableError("cache", "busy", operation="replace", sent=False)
            yield Pause(pause * (0.5 + random()))  # noqa: S311 - spreads attempts, protects nothing
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _replace_under(
        self,
        lease: ComputeLease,
        key: str,
        change: Callable[[CacheEntry | None], tuple[object, float] | None],
    ) -> Op[bool | None]:
        """Replace a value under a lease; return None if the lease has become void."""
        try:
            changed = change(lease.former)
            if changed is not None and changed[1] > 0:
                value, ttl = changed
                end = self.clock.time() + ttl
                entry = CacheEntry(value, fresh_until=end, expires_at=end, tags=lease.tags)
                return True if (yield from self.store.commit(key, lease, entry)) else None
        except Exception:  # of the caller, or a value that is not plain data
            yield from self.store.release(key, lease)
            raise
        if changed is None:
            yield from self.store.release(key, lease)
            return False
        yield from self.store.remove((key,))
        return True

    def _write(
        self, values: Mapping[str, object], ttl: float | timedelta | None, tags: Iterable[str]
    ) -> Op[bool]:
        """Store values; return whether the backend did."""
        lifetime = check_ttl(ttl, self.default_ttl)
        entries = {check_key(key): (value, jittered(lifetime, self.jitter)) for key, value in values.items()}
        # Before the write: a computation that began earlier must not be stored after it and restore the older data.
        self._computing.flights.void(keys=entries)
        known = check_tags(tags)
        # A ttl of 0 must also remove the previous value.
        saving = self.store.save(entries, known) if lifetime else self.store.remove(list(entries))
        return (yield from self._succeeds(saving))

    def _remove(self, keys: Sequence[str]) -> Op[int]:
        """Delete keys; return how many had a value."""
        known = [check_key(key) for key in dict.fromkeys(keys)]
        self._computing.flights.void(keys=known)
        return (yield from self._computing.guarded(self.store.remove(known), otherwise=0))

    def _remove_matching(self, pattern: str) -> Op[int]:
        """Delete the keys that match; return how many had a value."""
        # All computations are voided: repeating one is cheaper than matching every key.
        self._computing.flights.void(everything=True)
        removing = self.store.remove_matching(check_key(pattern))
        return (yield from self._computing.guarded(removing, otherwise=0))

    def _void_tags(self, tags: Sequence[str]) -> Op[bool]:
        """Invalidate all values with one of the tags; return whether the backend did."""
        known = check_tags(tags)
        self._computing.flights.void(tags=known)
        return (yield from self._succeeds(self.store.void_tags(known)))

    def _void_all(self) -> Op[bool]:
        """Invalidate all values; return whether the backend did."""
        self._computing.flights.void(everything=True)
        return (yield from self._succeeds(self.store.void_all()))

    def _succeeds(self, operation: Op[object]) -> Op[bool]:
        """Perform an operation; return whether the backend could."""
        return (yield from self._computing.guarded(operation, otherwise=MISSING)) is not MISSING

    def _begin(self, key: str, tags: Iterable[str], wait: float) -> Op[ComputeLease | None]:
        """Acquire a lease for a value that is made elsewhere; return None while another caller holds it."""
        acquiring = self._acquire(check_key(key), check_tags(tags), wait)
        lease = yield from self._computing.guarded(acquiring, otherwise=None)
        return lease if isinstance(lease, ComputeLease) else None

    def _acquire(self, key: str, tags: tuple[str, ...], wait: float) -> Op[CacheEntry | ComputeLease | None]:
        # First without waiting: then a lease is granted even if there is a fresh entry.
        lease = yield from self.store.acquire(key, tags)
        if lease is None and wait:
            lease = yield from self.store.acquire(key, tags, wait=wait)
        return lease

    def _finish(self, key: str, lease: ComputeLease, value: object, *, ttl: float) -> Op[bool]:
        """Store the value under its lease; return whether it was stored. One that cannot be encoded is counted."""
        end = self.clock.time() + jittered(ttl, self.jitter)
        entry = CacheEntry(value, fresh_until=end, expires_at=end, tags=lease.tags)
        try:
            return (yield from self._computing.guarded(self.store.commit(key, lease, entry), otherwise=False))
        except EncodeError:
            self._counters.bypass("no data")
            # Released at once; otherwise the next caller would wait for a value that never comes.
            yield from self._abandon(key, lease)
            return False

    def _abandon(self, key: str, lease: ComputeLease) -> Op[None]:
        """Release a lease without storing a value."""
        yield from self._computing.guarded(self.store.release(key, lease), otherwise=None)
