"""Two stores combined: a small, fast one in this process in front of a shared one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mks_hardening._core.missing import MISSING
from mks_hardening._core.operations import Op
from mks_hardening.cache._compute_lease import ComputeLease
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache._store import CacheStore
from mks_hardening.cache.backends._client_tracking import ClientTracking
from mks_hardening.protocols import Clock

__all__ = ["TieredStore"]


T = TypeVar("T")


class _TieredLease(ComputeLease):
    """The leases of both stores, which share one computation."""

    __slots__ = ("local", "shared")

    def __init__(self, local: CacheEntry | ComputeLease | None, shared: ComputeLease) -> None:
        super().__init__(None, shared.tags, shared.former)
        self.local = local
        self.shared = shared


def _parts(lease: ComputeLease) -> tuple[CacheEntry | ComputeLease | None, ComputeLease]:
    if not isinstance(lease, _TieredLease):
        raise TypeError("a lease of another store")
    return lease.local, lease.shared


class TieredStore:
    """Entries of a shared store, with copies in a store of this process.

    Args:
        l1: the store of the copies.
        l2: the shared store.
        l1_ttl: maximum seconds that a copy is served.
        tracking: keeps copies current; without it, they expire.
        clock: source of time.
    """

    def __init__(
        self,
        l1: CacheStore,
        l2: CacheStore,
        *,
        l1_ttl: float,
        tracking: ClientTracking | None,
        clock: Clock,
    ) -> None:
        self._l1 = l1
        self._l2 = l2
        self._l1_ttl = l1_ttl
        self._tracking = tracking
        self._clock = clock

    @property
    def budget(self) -> float | None:
        """The budget of the shared store."""
        return self._l2.budget

    @property
    def pending(self) -> int:
        """The pending invalidations of the shared store."""
        return self._l2.pending

    def close(self) -> None:
        self._stop_tracking()
        self._l1.close()
        self._l2.close()

    def _stop_tracking(self) -> None:
        if self._tracking is not None:
            self._tracking.close()

    async def aclose(self) -> None:
        self._stop_tracking()
        await self._l1.aclose()
        await self._l2.aclose()

    def __repr__(self) -> str:
        return f"{self._l1!r}; {self._l2!r}"

    def peek(self, key: str) -> Any:
        # Not a method for both: at each hit, its call would cost as much as the look-up.
        tracking = self._tracking
        return self._l1.peek(key) if tracking is None or tracking.is_current() else MISSING

    def _has_copies(self) -> bool:
        return self._tracking is None or self._tracking.is_current()

    def load(self, keys: Sequence[str], tags: Sequence[str] = ()) -> Op[list[CacheEntry | None]]:
        entries: list[CacheEntry | None] = [None] * len(keys)
        if self._has_copies():
            entries = yield from self._l1.load(keys, tags)
        missing = [key for key, entry in zip(keys, entries, strict=True) if entry is None]
        if not missing:
            return entries
        # The leases for the copies are acquired before the shared store is read, so that an invalidation in between
        # voids them.
        leases: dict[str, CacheEntry | ComputeLease | None] = {}
        for key in missing:
            leases[key] = yield from self._l1.acquire(key, tags)
        found: dict[str, CacheEntry | None] = {}
        try:
            loaded = yield from self._l2.load(missing, tags)
            found = dict(zip(missing, loaded, strict=True))
        finally:
            for key in missing:
                yield from self._copy(key, leases[key], found.get(key))
        return [entry or found[key] for key, entry in zip(keys, entries, strict=True)]

    def _copy(self, key: str, lease: CacheEntry | ComputeLease | None, entry: CacheEntry | None) -> Op[None]:
        """Store a copy of a shared entry here, unless it has a tag unknown here, which could not be invalidated."""
        if not isinstance(lease, ComputeLease):
            return
        can_expire = self._l1_ttl and entry is not None and set(entry.tags) <= set(lease.tags)
        if entry is None or not can_expire or not self._has_copies():
            yield from self._l1.release(key, lease)
            return
        end = min(entry.expires_at, self._clock.time() + self._l1_ttl)
        tags = {tag: lease.tags[tag] for tag in entry.tags}
        yield from self._l1.commit(
            key,
            lease,
            CacheEntry(
                entry.value,
                fresh_until=min(end, entry.fresh_until),
                expires_at=end,
                tags=tags,
                cost=entry.cost,
            ),
        )

    def load_original(self, key: str) -> Op[CacheEntry | None]:
        return (yield from self._l2.load_original(key))

    def save(self, entries: Mapping[str, tuple[object, float]], tags: Sequence[str]) -> Op[None]:
        yield from self._shared_first(self._l2.save(entries, tags), self._l1.remove(list(entries)))

    def _shared_first(self, shared: Op[T], local: Op[object]) -> Op[T]:
        """Run the shared operation first: otherwise a removed entry could be copied from it again afterwards."""
        try:
            return (yield from shared)
        finally:
            yield from local

    def acquire(
        self, key: str, tags: Sequence[str], *, wait: float = 0
    ) -> Op[CacheEntry | ComputeLease | None]:
        local = yield from self._l1.acquire(key, tags)
        if isinstance(local, CacheEntry):
            return local
        shared: CacheEntry | ComputeLease | None = None
        try:
            shared = yield from self._l2.acquire(key, tags, wait=wait)
        finally:
            if not isinstance(shared, ComputeLease):
                yield from self._copy(key, local, shared)
        return _TieredLease(local, shared) if isinstance(shared, ComputeLease) else shared

    def acquire_many(self, keys: Sequence[str], tags: Sequence[str]) -> Op[dict[str, ComputeLease]]:
        local: dict[str, CacheEntry | ComputeLease | None] = {}
        for key in keys:
            local[key] = yield from self._l1.acquire(key, tags)
        shared: dict[str, ComputeLease] = {}
        try:
            shared = yield from self._l2.acquire_many(keys, tags)
        finally:
            for key in keys:
                if key not in shared:
                    yield from self._copy(key, local[key], None)
        return {key: _TieredLease(local[key], lease) for key, lease in shared.items()}

    def commit_many(self, computed: Mapping[str, tuple[ComputeLease, CacheEntry]]) -> Op[list[str]]:
        # Without copies: whether a value was stored is not known for each key, and the next read makes the copy.
        parts = {key: (*_parts(lease), entry) for key, (lease, entry) in computed.items()}
        for key, (local, _shared, _entry) in parts.items():
            yield from self._copy(key, local, None)
        return (
            yield from self._l2.commit_many(
                {key: (shared, entry) for key, (_local, shared, entry) in parts.items()}
            )
        )

    def commit(self, key: str, lease: ComputeLease, entry: CacheEntry) -> Op[bool]:
        local, shared = _parts(lease)
        kept = yield from self._l2.commit(key, shared, entry)
        if kept and not isinstance(local, ComputeLease):
            # Another caller here holds the lease for the copy, and would store a value older than this one.
            yield from self._l1.remove((key,))
        yield from self._copy(key, local, entry if kept else None)
        return kept

    def release(self, key: str, lease: ComputeLease) -> Op[None]:
        local, shared = _parts(lease)
        yield from self._copy(key, local, None)
        yield from self._l2.release(key, shared)

    def remove(self, keys: Sequence[str]) -> Op[int]:
        return (yield from self._shared_first(self._l2.remove(keys), self._l1.remove(keys)))

    def remove_matching(self, pattern: str) -> Op[int]:
        local = self._l1.remove_matching(pattern)
        return (yield from self._shared_first(self._l2.remove_matching(pattern), local))

    def matching(self, pattern: str, most: int | None) -> Op[list[str]]:
        return (yield from self._l2.matching(pattern, most))

    def void_tags(self, tags: Sequence[str]) -> Op[None]:
        yield from self._shared_first(self._l2.void_tags(tags), self._l1.void_tags(tags))

    def void_all(self) -> Op[None]:
        yield from self._shared_first(self._l2.void_all(), self._l1.void_all())

    def ping(self) -> Op[bool]:
        return (yield from self._l2.ping())
