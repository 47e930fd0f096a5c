"""Read, write and delete entries, implemented once for ``def`` and ``async def`` (``_core/operations.py``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from mks_hardening._core.cache_tags import check_tags
from mks_hardening._core.missing import MISSING
from mks_hardening._core.operations import Op
from mks_hardening.cache._counters import CacheCounters
from mks_hardening.cache._entry import CacheEntry, ComputeLease
from mks_hardening.cache._entry_options import check_key, check_ttl, jittered
from mks_hardening.cache._store import CacheStore
from mks_hardening.cache.compute._get_or_compute import ValueComputer
from mks_hardening.exceptions import EncodeError
from mks_hardening.protocols import Clock

__all__ = ["CacheOperations"]


class CacheOperations:
    """The operations on the entries of one cache; an outage of the backend is a miss, or ``False``."""

    def __init__(
        self,
        store: CacheStore,
        computing: ValueComputer,
        counters: CacheCounters,
        *,
        default_ttl: float,
        jitter: float,
        clock: Clock,
    ) -> None:
        self._store = store
        self._computing = computing
        self._counters = counters
        self._default_ttl = default_ttl
        self._jitter = jitter
        self._clock = clock

    def get(self, key: str, default: object, tags: tuple[str, ...] = ()) -> Op[object]:
        """Return the value, or ``default``; ``tags`` are the tags that the caller expects on it."""
        entry = yield from self._computing.entry(check_key(key), tags)
        return self._value(entry, default)

    def get_many(self, keys: Iterable[str]) -> Op[dict[str, object]]:
        """Return the values of those keys that have one."""
        wanted = [check_key(key) for key in dict.fromkeys(keys)]
        if not wanted:
            return {}
        nothing: list[CacheEntry | None] = [None] * len(wanted)
        entries = yield from self._computing.guarded(self._store.load(wanted), otherwise=nothing)
        values = {key: self._value(entry, MISSING) for key, entry in zip(wanted, entries, strict=True)}
        return {key: value for key, value in values.items() if value is not MISSING}

    def get_together(self, keys: Sequence[str], tags: tuple[str, ...]) -> Op[list[object]]:
        """Return the values of several keys, None for a missing one; ``tags`` are expected on the first one."""
        wanted = [check_key(key) for key in keys]
        nothing: list[CacheEntry | None] = [None] * len(wanted)
        entries = yield from self._computing.guarded(self._store.load(wanted, tags), otherwise=nothing)
        self._counters.read(found=self._computing.is_fresh(entries[0]))
        return [
            entry.value if entry is not None and self._computing.is_fresh(entry) else None
            for entry in entries
        ]

    def _value(self, entry: CacheEntry | None, otherwise: object) -> object:
        fresh = self._computing.is_fresh(entry)
        self._counters.read(found=fresh)
        return entry.value if entry is not None and fresh else otherwise

    def exists(self, key: str) -> Op[bool]:
        """Return whether the key has a value."""
        return self._computing.is_fresh((yield from self._computing.entry(check_key(key))))

    def set_many(
        self, values: Mapping[str, object], ttl: float | timedelta | None, tags: Iterable[str]
    ) -> Op[bool]:
        """Store values; return whether the backend did."""
        lifetime = check_ttl(ttl, self._default_ttl)
        entries = {check_key(key): (value, jittered(lifetime, self._jitter)) for key, value in values.items()}
        # Before the write: a computation that began earlier must not be stored after it and restore the older data.
        self._computing.flights.void(keys=entries)
        known = check_tags(tags)
        # A ttl of 0 must also remove the previous value.
        saving = self._store.save(entries, known) if lifetime else self._store.remove(list(entries))
        return (yield from self.done(saving))

    def delete(self, keys: Sequence[str]) -> Op[int]:
        """Delete keys; return how many had a value."""
        known = [check_key(key) for key in dict.fromkeys(keys)]
        self._computing.flights.void(keys=known)
        return (yield from self._computing.guarded(self._store.remove(known), otherwise=0))

    def delete_pattern(self, pattern: str) -> Op[int]:
        """Delete the keys that match; return how many had a value."""
        # All computations are voided: repeating one is cheaper than matching every key.
        self._computing.flights.void(everything=True)
        removing = self._store.remove_matching(check_key(pattern))
        return (yield from self._computing.guarded(removing, otherwise=0))

    def invalidate_tags(self, tags: Sequence[str]) -> Op[bool]:
        """Invalidate all values with one of the tags; return whether the backend did."""
        known = check_tags(tags)
        self._computing.flights.void(tags=known)
        return (yield from self.done(self._store.void_tags(known)))

    def done(self, operation: Op[object]) -> Op[bool]:
        """Perform an operation; return whether the backend could."""
        return (yield from self._computing.guarded(operation, otherwise=MISSING)) is not MISSING

    def begin(self, key: str, tags: Iterable[str], wait: float) -> Op[ComputeLease | None]:
        """Acquire a lease for a value that is made elsewhere; return None while another caller holds it."""
        acquiring = self._acquire(check_key(key), check_tags(tags), wait)
        lease = yield from self._computing.guarded(acquiring, otherwise=None)
        return lease if isinstance(lease, ComputeLease) else None

    def _acquire(self, key: str, tags: tuple[str, ...], wait: float) -> Op[CacheEntry | ComputeLease | None]:
        # First without waiting: then a lease is granted even if there is a fresh entry.
        lease = yield from self._store.acquire(key, tags)
        if lease is None and wait:
            lease = yield from self._store.acquire(key, tags, wait=wait)
        return lease

    def finish(self, key: str, lease: ComputeLease, value: object, *, ttl: float) -> Op[bool]:
        """Store the value under its lease; return whether it was stored. One that cannot be encoded is counted."""
        end = self._clock.time() + jittered(ttl, self._jitter)
        entry = CacheEntry(value, fresh_until=end, expires_at=end, tags=lease.tags)
        try:
            return (
                yield from self._computing.guarded(self._store.commit(key, lease, entry), otherwise=False)
            )
        except EncodeError:
            self._counters.bypass("no data")
            # Released at once; otherwise the next caller would wait for a value that never comes.
            yield from self.abandon(key, lease)
            return False

    def abandon(self, key: str, lease: ComputeLease) -> Op[None]:
        """Release a lease without storing a value."""
        yield from self._computing.guarded(self._store.release(key, lease), otherwise=None)
