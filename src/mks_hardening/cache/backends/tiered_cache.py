"""Two caches combined: a small, fast one in this process in front of a shared one."""

from __future__ import annotations

from datetime import timedelta

from mks_hardening._core.checks import boolean, instance
from mks_hardening._core.durations import seconds
from mks_hardening.cache.backends._memory_store import MemoryStore
from mks_hardening.cache.backends._redis_store import RedisStore
from mks_hardening.cache.backends._tiered_store import TieredStore
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.exceptions import ConfigurationError

__all__ = ["TieredCache"]


class TieredCache(BaseCache):
    """Reads ``l1`` first, then ``l2``; writes and invalidations go to both.

    An invalidation by another process takes effect here when the copy in ``l1`` expires, after at most ``l1_ttl``
    seconds. With ``client_tracking``, Redis reports each change to this process, which drops the copy, usually
    within a millisecond. Copies are then served only while Redis has answered on that connection within the last
    1.5 seconds, and all of them are dropped when it breaks: while Redis is unavailable, nothing comes from memory.

    Args:
        l1: the fast cache, usually a ``MemoryCache``.
        l2: the shared cache, usually a ``RedisCache``.
        l1_ttl: maximum seconds that a copy stays in ``l1``.
        client_tracking: whether Redis reports changes, on a further connection of each process. Requires a
            ``MemoryCache`` as ``l1`` and, as ``l2``, a ``RedisCache`` on one server or behind Sentinel; an ACL
            must allow ``HELLO``, ``CLIENT TRACKING`` and ``PING``.

    Raises:
        ConfigurationError: ``l1`` or ``l2`` is not a cache, both are the same, or they cannot be tracked.
    """

    def __init__(
        self,
        l1: BaseCache,
        l2: BaseCache,
        *,
        l1_ttl: float | timedelta = 5,
        client_tracking: bool = False,
    ) -> None:
        instance(l1, BaseCache, parameter="l1")
        instance(l2, BaseCache, parameter="l2")
        if l1 is l2:
            raise ConfigurationError("l1 and l2 must be different caches", parameter="l2")
        longest = seconds(l1_ttl, parameter="l1_ttl")
        tracking = None
        if boolean(client_tracking, parameter="client_tracking"):
            if not isinstance(l1.store, MemoryStore) or not isinstance(l2.store, RedisStore):
                raise ConfigurationError(
                    "client_tracking requires a MemoryCache as l1 and a RedisCache as l2, "
                    f"not {type(l1).__name__} and {type(l2).__name__}",
                    parameter="client_tracking",
                )
            tracking = l2.store.track(l1.store)
        store = TieredStore(l1.store, l2.store, l1_ttl=longest, tracking=tracking, clock=l2.clock)
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
