"""The public face of every cache, and the one algorithm of "get it or compute it"."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from mks_hardening._core import hooks
from mks_hardening._core.durations import seconds
from mks_hardening._core.sentinel import MISSING
from mks_hardening.cache.effects import Call, Op, Spawn, arun, run
from mks_hardening.cache.entry import (
    CacheStats,
    Entry,
    Lease,
    Terms,
    check_key,
    check_namespace,
    check_tags,
    check_ttl,
    jittered,
)
from mks_hardening.cache.flights import Flight, Flights
from mks_hardening.cache.store import Store
from mks_hardening.events import CacheRead
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import Clock

__all__ = ["BaseCache"]

T = TypeVar("T")
_logger = logging.getLogger("mks_hardening.cache")


class BaseCache:
    """What all caches do alike. Backends say how entries are kept; an outage of theirs never reaches the caller.

    Values are data: None, booleans, numbers, text, bytes, dates, times, decimals, UUIDs, and lists, tuples, sets
    and mappings of them. What comes out is equal to what went in, of the same types, and never the same mutable
    object.
    """

    def __init__(
        self, store: Store, *, namespace: str, default_ttl: float | timedelta, jitter: float, clock: Clock
    ) -> None:
        if not 0 <= jitter <= 0.1:
            raise ConfigurationError("jitter must be a share from 0 to 0.1", parameter="jitter")
        self.store = store
        self.namespace: str = check_namespace(namespace)
        self.default_ttl: float = seconds(default_ttl, parameter="default_ttl")
        self.jitter = jitter
        self.clock = clock
        self._flights = Flights(wait_limit=30.0)
        self._hits = self._misses = self._stale = self._errors = self._bypasses = 0

    # --- reading -----------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        value = self.peek(key)
        return run(self._get(key, default)) if value is MISSING else value

    async def aget(self, key: str, default: Any = None) -> Any:
        """``get`` for asyncio."""
        value = self.peek(key)
        return await arun(self._get(key, default)) if value is MISSING else value

    def peek(self, key: str) -> Any:
        """The value, where it can be had at once without a round trip; otherwise the marker ``MISSING``."""
        value = self.store.peek(key)
        if value is not MISSING:
            self._count("hit")
        return value

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those keys that have one, in one round trip."""
        return run(self._get_many(keys))

    async def aget_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """``get_many`` for asyncio."""
        return await arun(self._get_many(keys))

    def exists(self, key: str) -> bool:
        """Whether ``key`` has a value."""
        return run(self._exists(key))

    async def aexists(self, key: str) -> bool:
        """``exists`` for asyncio."""
        return await arun(self._exists(key))

    def get_or_compute(
        self,
        key: str,
        compute: Callable[[], T],
        *,
        ttl: float | timedelta | None = None,
        tags: Iterable[str] = (),
        stale_while_revalidate: float | timedelta | None = None,
    ) -> T:
        """The value of ``key``; computed, by one caller of all processes, where there is none.

        An invalidation while it is computed wins: the value goes to its caller, but is not kept.

        Args:
            key: text of 1 to 512 characters.
            compute: makes the value; an error of it reaches everybody who waits, and is not kept.
            ttl: seconds the value is kept; the cache's default when left out, 0 for not at all.
            tags: names for ``invalidate_tags``.
            stale_while_revalidate: seconds after ``ttl`` in which the old value is still handed out at once, while
                one caller's thread (or task) computes the new one.

        Raises:
            EncodeError: the value is not data.
        """
        value: Any = self.peek(key)
        if value is MISSING:
            terms = self._terms(ttl, tags, stale_while_revalidate)
            value = run(self._get_or_compute(key, compute, terms))
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
    ) -> T:
        """``get_or_compute`` for asyncio."""
        value: Any = self.peek(key)
        if value is MISSING:
            terms = self._terms(ttl, tags, stale_while_revalidate)
            value = await arun(self._get_or_compute(key, compute, terms))
        result: T = value
        return result

    def _terms(
        self, ttl: float | timedelta | None, tags: Iterable[str], grace: float | timedelta | None
    ) -> Terms:
        return Terms(
            check_ttl(ttl, self.default_ttl),
            0.0 if grace is None else seconds(grace, parameter="stale_while_revalidate"),
            check_tags(tags),
        )

    # --- writing -----------------------------------------------------------------------------

    def set(
        self, key: str, value: Any, *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """Keep a value for ``ttl`` seconds (0: not at all); whether that could be done.

        Raises:
            EncodeError: the value is not data.
        """
        return run(self._set_many({key: value}, ttl, tags))

    async def aset(
        self, key: str, value: Any, *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """``set`` for asyncio."""
        return await arun(self._set_many({key: value}, ttl, tags))

    def set_many(
        self, values: Mapping[str, Any], *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """``set`` for several keys in one round trip."""
        return run(self._set_many(values, ttl, tags))

    async def aset_many(
        self, values: Mapping[str, Any], *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """``set_many`` for asyncio."""
        return await arun(self._set_many(values, ttl, tags))

    # --- forgetting --------------------------------------------------------------------------

    def delete(self, *keys: str) -> int:
        """Forget the keys, and what is being computed for them; how many had a value."""
        return run(self._delete(keys))

    async def adelete(self, *keys: str) -> int:
        """``delete`` for asyncio."""
        return await arun(self._delete(keys))

    def delete_pattern(self, pattern: str) -> int:
        r"""Forget the keys that match a glob pattern (``*``, ``?``, ``[abc]``; ``\`` before a literal one).

        Walks through all keys in small steps: for maintenance. Tags are cheaper and exact.
        """
        return run(self._delete_pattern(pattern))

    async def adelete_pattern(self, pattern: str) -> int:
        """``delete_pattern`` for asyncio."""
        return await arun(self._delete_pattern(pattern))

    def invalidate_tags(self, *tags: str) -> bool:
        """Forget all values with one of the tags, however many, in one round trip; whether that could be done."""
        return run(self._invalidate_tags(tags))

    async def ainvalidate_tags(self, *tags: str) -> bool:
        """``invalidate_tags`` for asyncio."""
        return await arun(self._invalidate_tags(tags))

    def clear(self) -> None:
        """Forget everything in this namespace, and nothing else."""
        self.delete_pattern("*")

    async def aclear(self) -> None:
        """``clear`` for asyncio."""
        await self.adelete_pattern("*")

    # --- the rest ----------------------------------------------------------------------------

    def ping(self) -> bool:
        """Whether the backend answers."""
        return run(self._done(self.store.ping()))

    async def aping(self) -> bool:
        """``ping`` for asyncio."""
        return await arun(self._done(self.store.ping()))

    def stats(self) -> CacheStats:
        """Counts of this process."""
        return CacheStats(self._hits, self._misses, self._stale, self._errors, self._bypasses)

    async def astats(self) -> CacheStats:
        """``stats`` for asyncio."""
        return self.stats()

    def close(self) -> None:
        """Give connections back; harmless when called twice."""
        self.store.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        await self.store.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- for values that are made elsewhere and come later ----------------------------------------

    def begin(self, key: str, tags: Iterable[str] = ()) -> Lease | None:
        """The permission to keep a value of ``key`` that is going to be made; None while somebody else has it."""
        acquiring = self.store.acquire(check_key(key), check_tags(tags), wait=False)
        lease: Entry | Lease | None = run(self._guarded(acquiring, otherwise=None))
        return lease if isinstance(lease, Lease) else None

    def finish(self, key: str, lease: Lease, value: Any, *, ttl: float) -> bool:
        """Keep the value, unless the key or a tag was invalidated since ``begin``; whether it is kept."""
        end = self.clock.time() + jittered(ttl, self.jitter)
        kept: bool = run(
            self._guarded(self.store.commit(key, lease, Entry(value, end, end, lease.tags)), otherwise=False)
        )
        return kept

    def abandon(self, key: str, lease: Lease) -> None:
        """Give the permission back."""
        run(self._guarded(self.store.release(key, lease), otherwise=None))

    def count_bypass(self, reason: str) -> None:
        """Note a call that was not cached on purpose."""
        self._bypasses += 1
        self._tell("bypass", reason)

    # --- operations --------------------------------------------------------------------------

    def _get(self, key: str, default: Any) -> Op[Any]:
        entry = yield from self._entry(check_key(key))
        fresh = self._is_fresh(entry)
        self._count("hit" if fresh else "miss")
        return entry.value if fresh else default

    def _entry(self, key: str, tags: Sequence[str] = ()) -> Op[Any]:
        """The entry, fresh or stale; None when there is none or the backend is away."""
        try:
            (entry,) = yield from self.store.load((key,), tags)
        except BackendUnavailableError as error:
            self._failed(error)
            return None
        return entry

    def _get_many(self, keys: Iterable[str]) -> Op[dict[str, Any]]:
        wanted = [check_key(key) for key in dict.fromkeys(keys)]
        nothing: list[Entry | None] = [None] * len(wanted)
        entries = (
            (yield from self._guarded(self.store.load(wanted), otherwise=nothing)) if wanted else nothing
        )
        found: dict[str, Any] = {}
        for key, entry in zip(wanted, entries, strict=True):
            fresh = self._is_fresh(entry)
            self._count("hit" if fresh else "miss")
            if entry is not None and fresh:
                found[key] = entry.value
        return found

    def _exists(self, key: str) -> Op[bool]:
        return self._is_fresh((yield from self._entry(check_key(key))))

    def _is_fresh(self, entry: Entry | None) -> bool:
        return entry is not None and self.clock.time() < entry.fresh_until

    def _get_or_compute(self, key: str, compute: Callable[[], Any], terms: Terms) -> Op[Any]:
        check_key(key)
        entry = yield from self._entry(key, terms.tags)
        if self._is_fresh(entry):
            self._count("hit")
            return entry.value
        if entry is not None and terms.grace:
            self._count("stale")
            yield from self._refresh_beside(key, compute, terms)
            return entry.value
        self._count("miss")
        if not terms.lifetime or self._flights.is_own(key):
            return (yield Call(compute))
        while True:
            flight, ours = self._flights.join(key, terms.tags)
            if ours:
                return (yield from self._fly(flight, compute, terms))
            value = yield flight
            if value is not MISSING:
                return value

    def _fly(self, flight: Flight, compute: Callable[[], Any], terms: Terms) -> Op[Any]:
        """Compute for everybody in this process that asks meanwhile."""
        try:
            with self._flights.computing(flight.key):
                value, kept = yield from self._compute(flight.key, compute, terms)
        except Exception as error:
            self._flights.leave(flight)
            flight.crash(error)
            raise
        except BaseException:
            self._land(flight, MISSING)  # cancelled or interrupted: somebody else has to do it
            raise
        self._land(flight, value if kept else MISSING)
        return value

    def _land(self, flight: Flight, outcome: Any) -> None:
        self._flights.leave(flight)
        flight.land(outcome)

    def _compute(self, key: str, compute: Callable[[], Any], terms: Terms) -> Op[tuple[Any, bool]]:
        """The value, and whether those who waited may have it too."""
        acquiring = self.store.acquire(key, terms.tags, wait=True)
        lease: Entry | Lease | None = yield from self._guarded(acquiring, otherwise=None)
        if isinstance(lease, Entry):
            return lease.value, True
        if lease is None:
            return (yield Call(compute)), True
        return (yield from self._compute_under(lease, key, compute, terms))

    def _compute_under(
        self, lease: Lease, key: str, compute: Callable[[], Any], terms: Terms
    ) -> Op[tuple[Any, bool]]:
        try:
            value = yield Call(compute)
            end = self.clock.time() + jittered(terms.lifetime, self.jitter)
            entry = Entry(value, end, end + terms.grace, lease.tags)
            return value, (yield from self._guarded(self.store.commit(key, lease, entry), otherwise=True))
        except GeneratorExit:  # nobody is there any more to do anything for us
            raise
        except BaseException:
            yield from self._guarded(self.store.release(key, lease), otherwise=None)
            raise

    def _refresh_beside(self, key: str, compute: Callable[[], Any], terms: Terms) -> Op[None]:
        """Have a stale value computed anew while its readers go on; one process does it, the others need not."""
        flight, ours = self._flights.join(key, terms.tags)
        if ours and not (yield Spawn(self._refresh(flight, compute, terms))):
            self._land(flight, MISSING)

    def _refresh(self, flight: Flight, compute: Callable[[], Any], terms: Terms) -> Op[None]:
        outcome: Any = MISSING
        try:
            acquiring = self.store.acquire(flight.key, terms.tags, wait=False)
            lease = yield from self._guarded(acquiring, otherwise=None)
            if isinstance(lease, Lease):
                outcome = yield from self._refresh_under(lease, flight.key, compute, terms)
        except Exception:
            self._tell("error", "refresh")
            _logger.warning("a cached value could not be computed anew", exc_info=True)
        finally:
            self._land(flight, outcome)

    def _refresh_under(self, lease: Lease, key: str, compute: Callable[[], Any], terms: Terms) -> Op[Any]:
        entry = yield from self._entry(key, terms.tags)
        if self._is_fresh(entry):  # another process was quicker
            yield from self._guarded(self.store.release(key, lease), otherwise=None)
            return entry.value
        with self._flights.computing(key):
            value, kept = yield from self._compute_under(lease, key, compute, terms)
        return value if kept else MISSING

    def _set_many(
        self, values: Mapping[str, Any], ttl: float | timedelta | None, tags: Iterable[str]
    ) -> Op[bool]:
        lifetime = check_ttl(ttl, self.default_ttl)
        entries = {check_key(key): (value, jittered(lifetime, self.jitter)) for key, value in values.items()}
        self._flights.void(keys=entries)
        saving = self.store.save(entries, check_tags(tags)) if lifetime else self.store.remove(list(entries))
        done: bool = yield from self._done(saving)
        return done

    def _delete(self, keys: Sequence[str]) -> Op[int]:
        known = [check_key(key) for key in dict.fromkeys(keys)]
        self._flights.void(keys=known)
        removed: int = yield from self._guarded(self.store.remove(known), otherwise=0)
        return removed

    def _delete_pattern(self, pattern: str) -> Op[int]:
        self._flights.void(everything=True)
        removed: int = yield from self._guarded(self.store.remove_matching(check_key(pattern)), otherwise=0)
        return removed

    def _invalidate_tags(self, tags: Sequence[str]) -> Op[bool]:
        known = check_tags(tags)
        self._flights.void(tags=known)
        return (yield from self._done(self.store.void_tags(known)))

    # --- outages and counting ----------------------------------------------------------------

    def _guarded(self, operation: Op[Any], *, otherwise: Any) -> Op[Any]:
        """The operation, or ``otherwise`` when the backend is away."""
        try:
            return (yield from operation)
        except BackendUnavailableError as error:
            self._failed(error)
            return otherwise

    def _failed(self, error: BackendUnavailableError) -> None:
        self._errors += 1
        self._tell("error", error.reason)

    def _done(self, operation: Op[Any]) -> Op[bool]:
        """Whether the operation could be done."""
        failed = yield from self._guarded(operation, otherwise=MISSING)
        return failed is not MISSING

    def _count(self, outcome: str) -> None:
        if outcome == "hit":
            self._hits += 1
        elif outcome == "miss":
            self._misses += 1
        else:
            self._stale += 1
        self._tell(outcome)

    def _tell(self, outcome: str, reason: str = "") -> None:
        if hooks.observers:
            hooks.emit(CacheRead(self.namespace, outcome, reason))
