"""Reading, writing and forgetting, each described once for ``def`` and ``async def`` (``_core/operations.py``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from mks_hardening._core.missing import MISSING
from mks_hardening._core.operations import Op
from mks_hardening.cache._counters import CacheCounters
from mks_hardening.cache._entry import CacheEntry, ComputeLease
from mks_hardening.cache._entry_options import check_key, check_tags, check_ttl, jittered
from mks_hardening.cache._store import CacheStore
from mks_hardening.cache.compute._get_or_compute import Computation
from mks_hardening.exceptions import EncodeError
from mks_hardening.protocols import Clock

__all__ = ["CacheOperations"]


class CacheOperations:
    """What can be done with the entries of one cache; an outage is a miss, or a ``False``."""

    def __init__(
        self,
        store: CacheStore,
        computing: Computation,
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
        """The value, or ``default``; ``tags`` are those the caller expects on it."""
        entry = yield from self._computing.entry(check_key(key), tags)
        return self._value(entry, default)

    def get_many(self, keys: Iterable[str]) -> Op[dict[str, object]]:
        """The values of those keys that have one."""
        wanted = [check_key(key) for key in dict.fromkeys(keys)]
        if not wanted:
            return {}
        nothing: list[CacheEntry | None] = [None] * len(wanted)
        entries = yield from self._computing.guarded(self._store.load(wanted), otherwise=nothing)
        values = {key: self._value(entry, MISSING) for key, entry in zip(wanted, entries, strict=True)}
        return {key: value for key, value in values.items() if value is not MISSING}

    def _value(self, entry: CacheEntry | None, otherwise: object) -> object:
        fresh = self._computing.is_fresh(entry)
        self._counters.read(found=fresh)
        return entry.value if entry is not None and fresh else otherwise

    def exists(self, key: str) -> Op[bool]:
        """Whether the key has a value."""
        return self._computing.is_fresh((yield from self._computing.entry(check_key(key))))

    def set_many(
        self, values: Mapping[str, object], ttl: float | timedelta | None, tags: Iterable[str]
    ) -> Op[bool]:
        """Keep values; whether that could be done."""
        lifetime = check_ttl(ttl, self._default_ttl)
        entries = {check_key(key): (value, jittered(lifetime, self._jitter)) for key, value in values.items()}
        # Before the write: a computation that began earlier must not land after it and bring back what it has
        # read.
        self._computing.flights.void(keys=entries)
        known = check_tags(tags)
        # A ttl of 0 must not leave the former value behind.
        saving = self._store.save(entries, known) if lifetime else self._store.remove(list(entries))
        return (yield from self.done(saving))

    def delete(self, keys: Sequence[str]) -> Op[int]:
        """Forget keys; how many had a value."""
        known = [check_key(key) for key in dict.fromkeys(keys)]
        self._computing.flights.void(keys=known)
        return (yield from self._computing.guarded(self._store.remove(known), otherwise=0))

    def delete_pattern(self, pattern: str) -> Op[int]:
        """Forget the keys that match; how many had a value."""
        # Which of the keys under way match is cheaper to compute anew than to find out.
        self._computing.flights.void(everything=True)
        removing = self._store.remove_matching(check_key(pattern))
        return (yield from self._computing.guarded(removing, otherwise=0))

    def invalidate_tags(self, tags: Sequence[str]) -> Op[bool]:
        """Forget everything with one of the tags; whether that could be done."""
        known = check_tags(tags)
        self._computing.flights.void(tags=known)
        return (yield from self.done(self._store.void_tags(known)))

    def done(self, operation: Op[object]) -> Op[bool]:
        """Whether an operation could be done."""
        return (yield from self._computing.guarded(operation, otherwise=MISSING)) is not MISSING

    def begin(self, key: str, tags: Iterable[str]) -> Op[ComputeLease | None]:
        """A lease for a value that is made elsewhere; None while somebody else has it."""
        acquiring = self._store.acquire(check_key(key), check_tags(tags))
        lease = yield from self._computing.guarded(acquiring, otherwise=None)
        return lease if isinstance(lease, ComputeLease) else None

    def finish(self, key: str, lease: ComputeLease, value: object, *, ttl: float) -> Op[bool]:
        """Keep the value under its lease; whether it is kept. What is no data is only counted."""
        end = self._clock.time() + jittered(ttl, self._jitter)
        entry = CacheEntry(value, fresh_until=end, expires_at=end, tags=lease.tags)
        try:
            return (
                yield from self._computing.guarded(self._store.commit(key, lease, entry), otherwise=False)
            )
        except EncodeError:
            self._counters.bypass("no data")
            # Given back at once; otherwise the next one to ask would wait for a value that does not come.
            yield from self.abandon(key, lease)
            return False

    def abandon(self, key: str, lease: ComputeLease) -> Op[None]:
        """Give a lease back."""
        yield from self._computing.guarded(self._store.release(key, lease), otherwise=None)
