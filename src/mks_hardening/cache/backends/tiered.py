"""Two caches as one: a small quick one in this process before a shared one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from mks_hardening._core.durations import seconds
from mks_hardening.cache.base import BaseCache
from mks_hardening.cache.effects import Op
from mks_hardening.cache.entry import Entry, Lease
from mks_hardening.cache.store import Store
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock

__all__ = ["TieredCache"]


class TieredCache(BaseCache):
    """Reads ``l1`` first, then ``l2``; writes and invalidations go to both.

    What another process invalidates is seen here when the copy in ``l1`` ends, after ``l1_ttl`` seconds at most.

    Args:
        l1: the quick one, normally a ``MemoryCache``.
        l2: the shared one, normally a ``RedisCache``.
        l1_ttl: longest time in seconds a copy stays in ``l1``.

    Raises:
        ConfigurationError: ``l1`` or ``l2`` is no cache, or both are the same.
    """

    def __init__(self, l1: BaseCache, l2: BaseCache, *, l1_ttl: float | timedelta = 5) -> None:
        for name, cache in (("l1", l1), ("l2", l2)):
            if not isinstance(cache, BaseCache):
                raise ConfigurationError(
                    f"{name} must be a cache, not {type(cache).__name__}", parameter=name
                )
        if l1 is l2:
            raise ConfigurationError("l1 and l2 must be different caches", parameter="l2")
        store = _TieredStore(l1.store, l2.store, l1_ttl=seconds(l1_ttl, parameter="l1_ttl"), clock=l2.clock)
        super().__init__(
            store, namespace=l2.namespace, default_ttl=l2.default_ttl, jitter=l2.jitter, clock=l2.clock
        )

    def __repr__(self) -> str:
        return f"TieredCache({self.store!r})"


class _TieredStore:
    def __init__(self, l1: Store, l2: Store, *, l1_ttl: float, clock: Clock) -> None:
        self._l1 = l1
        self._l2 = l2
        self._l1_ttl = l1_ttl
        self._clock = clock

    def close(self) -> None:
        self._l1.close()
        self._l2.close()

    async def aclose(self) -> None:
        await self._l1.aclose()
        await self._l2.aclose()

    def __repr__(self) -> str:
        return f"{self._l1!r}; {self._l2!r}"

    def peek(self, key: str) -> Any:
        return self._l1.peek(key)

    def load(self, keys: Sequence[str], tags: Sequence[str] = ()) -> Op[list[Entry | None]]:
        entries = yield from self._l1.load(keys, tags)
        missing = [key for key, entry in zip(keys, entries, strict=True) if entry is None]
        if not missing:
            return entries
        # The copies' leases are taken before the shared cache is asked, so that an invalidation meanwhile wins.
        leases: dict[str, Entry | Lease | None] = {}
        for key in missing:
            leases[key] = yield from self._l1.acquire(key, tags, wait=False)
        found: dict[str, Entry | None] = {}
        try:
            loaded = yield from self._l2.load(missing, tags)
            found = dict(zip(missing, loaded, strict=True))
        finally:
            for key in missing:
                yield from self._copy(key, leases[key], found.get(key))
        return [entry or found[key] for key, entry in zip(keys, entries, strict=True)]

    def _copy(self, key: str, lease: Entry | Lease | None, entry: Entry | None) -> Op[None]:
        """Keep a shared entry here for a while, unless its tags are unknown here and could not be invalidated."""
        if not isinstance(lease, Lease):
            return
        if entry is None or not self._l1_ttl or not set(entry.tags) <= set(lease.tags):
            yield from self._l1.release(key, lease)
            return
        end = min(entry.expires_at, self._clock.time() + self._l1_ttl)
        tags = {tag: lease.tags[tag] for tag in entry.tags}
        yield from self._l1.commit(key, lease, Entry(entry.value, min(end, entry.fresh_until), end, tags))

    def save(self, entries: Mapping[str, tuple[Any, float]], tags: Sequence[str]) -> Op[None]:
        yield from self._shared_first(self._l2.save(entries, tags), self._l1.remove(list(entries)))

    def _shared_first(self, shared: Op[Any], local: Op[Any]) -> Op[Any]:
        """What the shared cache forgets must not be copied from it after the local one has forgotten it."""
        try:
            return (yield from shared)
        finally:
            yield from local

    def acquire(self, key: str, tags: Sequence[str], *, wait: bool) -> Op[Entry | Lease | None]:
        local = yield from self._l1.acquire(key, tags, wait=False)
        if isinstance(local, Entry):
            return local
        shared: Entry | Lease | None = None
        try:
            shared = yield from self._l2.acquire(key, tags, wait=wait)
        finally:
            if not isinstance(shared, Lease):
                yield from self._copy(key, local, shared)
        return Lease((local, shared), shared.tags) if isinstance(shared, Lease) else shared

    def commit(self, key: str, lease: Lease, entry: Entry) -> Op[bool]:
        local, shared = lease.token
        kept = yield from self._l2.commit(key, shared, entry)
        yield from self._copy(key, local, entry if kept else None)
        return kept

    def release(self, key: str, lease: Lease) -> Op[None]:
        local, shared = lease.token
        yield from self._copy(key, local, None)
        yield from self._l2.release(key, shared)

    def remove(self, keys: Sequence[str]) -> Op[int]:
        removed: int = yield from self._shared_first(self._l2.remove(keys), self._l1.remove(keys))
        return removed

    def remove_matching(self, pattern: str) -> Op[int]:
        local = self._l1.remove_matching(pattern)
        removed: int = yield from self._shared_first(self._l2.remove_matching(pattern), local)
        return removed

    def void_tags(self, tags: Sequence[str]) -> Op[None]:
        yield from self._shared_first(self._l2.void_tags(tags), self._l1.void_tags(tags))

    def ping(self) -> Op[bool]:
        return (yield from self._l2.ping())
