"""A cache in the memory of this process."""

from __future__ import annotations

from datetime import timedelta

from mks_hardening._core.checks import whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening.cache.backends._memory_store import MemoryStore
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.cache.compute._singleflight import COMPUTE_WAIT
from mks_hardening.protocols import Clock

__all__ = ["MemoryCache"]


class MemoryCache(BaseCache):
    """A cache in this process: for a single process, for tests, or in front of Redis (``TieredCache``).

    Args:
        max_entries: maximum number of entries; the least recently used ones are evicted first.
        max_bytes: maximum memory of all entries together, estimated from the size of keys and values; a value that
            is larger by itself is not stored. By default, only their number is limited.
        default_ttl: seconds for which a value is stored when no ``ttl`` is given.
        namespace: name of the cache in events.
        compute_wait: seconds a caller waits for the same computation in another thread or task, before one of the
            waiting callers computes as well.
        jitter: share of each ttl, up to 0.1, that is subtracted at random.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid.
    """

    def __init__(
        self,
        *,
        max_entries: int = 10_000,
        default_ttl: float | timedelta = 3600,
        namespace: str = "memory",
        compute_wait: float | timedelta = COMPUTE_WAIT,
        jitter: float = 0.1,
        clock: Clock = SYSTEM_CLOCK,
        max_bytes: int | None = None,
    ) -> None:
        clock = given_clock(clock)
        most = whole_number(max_entries, parameter="max_entries", minimum=1)
        size = None if max_bytes is None else whole_number(max_bytes, parameter="max_bytes", minimum=1)
        store = MemoryStore(max_entries=most, max_bytes=size, clock=clock)
        super().__init__(
            store,
            namespace=namespace,
            default_ttl=default_ttl,
            compute_wait=compute_wait,
            jitter=jitter,
            clock=clock,
        )

    def __repr__(self) -> str:
        return f"MemoryCache({self.store!r})"
