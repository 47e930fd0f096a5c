"""Two caches combined: a small, fast one in this process in front of a shared one."""

from __future__ import annotations

from datetime import timedelta

from mks_hardening._core.checks import instance
from mks_hardening._core.durations import seconds
from mks_hardening.cache.backends._tiered_store import TieredStore
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.exceptions import ConfigurationError

__all__ = ["TieredCache"]


class TieredCache(BaseCache):
    """Reads ``l1`` first, then ``l2``; writes and invalidations go to both.

    An invalidation by another process takes effect here when the copy in ``l1`` expires, after at most ``l1_ttl``
    seconds.

    Args:
        l1: the fast cache, usually a ``MemoryCache``.
        l2: the shared cache, usually a ``RedisCache``.
        l1_ttl: maximum seconds that a copy stays in ``l1``.

    Raises:
        ConfigurationError: ``l1`` or ``l2`` is not a cache, or both are the same.
    """

    def __init__(self, l1: BaseCache, l2: BaseCache, *, l1_ttl: float | timedelta = 5) -> None:
        instance(l1, BaseCache, parameter="l1")
        instance(l2, BaseCache, parameter="l2")
        if l1 is l2:
            raise ConfigurationError("l1 and l2 must be different caches", parameter="l2")
        store = TieredStore(l1.store, l2.store, l1_ttl=seconds(l1_ttl, parameter="l1_ttl"), clock=l2.clock)
        super().__init__(
            store,
            namespace=l2.namespace,
            default_ttl=l2.default_ttl,
            compute_wait=l2.compute_wait,
            jitter=l2.jitter,
            clock=l2.clock,
        )

    def __repr__(self) -> str:
        return f"TieredCache({self.store!r})"
