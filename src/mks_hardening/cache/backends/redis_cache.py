"""A cache in Redis, shared by all processes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.checks import flag, namespace_of
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.resilience.budget import STORE_BUDGET
from mks_hardening.cache.backends._redis_store import RedisStore
from mks_hardening.cache.backends._stored_bytes import Envelope
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.cache.compute._singleflight import COMPUTE_WAIT
from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisCache"]


class RedisCache(BaseCache):
    """Keeps values in Redis. When Redis is away, everything is a miss and nothing is raised.

    What is forgotten meanwhile is not lost: this process refuses the old values from then on, and Redis is told as
    soon as it answers. Names are ``namespace:v:{=KEY}`` (values), ``namespace:l:{=KEY}`` (leases of those who
    compute) and ``namespace:t:{=TAG}`` (versions of tags).

    Args:
        url_or_client: Redis URL (one server, Sentinel or Cluster), a ``RedisClient``, or a client of redis-py,
            which is built anew.
        namespace: 1 to 64 characters of ``A-Za-z0-9_.:-``; caches with different ones share nothing.
        default_ttl: seconds a value is kept when nothing else is said.
        signing_keys: secrets of at least 16 bytes; the first signs, all are accepted. Without them, whoever can
            write to Redis can choose what the application reads (data only, never code).
        store_budget: seconds that all Redis calls of one operation may take together.
        compute_wait: seconds a caller waits for the same computation of another thread, task or process, before one
            of those who wait computes as well; the only thing that may take longer than ``store_budget``.
        allow_plaintext: whether clear text may leave this machine.
        jitter: share of each ttl, up to 0.1, that is taken off at random.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is impossible.
        MissingDependencyError: redis is not installed.
    """

    def __init__(
        self,
        url_or_client: str | RedisLike | RedisClient,
        *,
        namespace: str = "mks",
        default_ttl: float | timedelta = 3600,
        signing_keys: Iterable[str | bytes] | None = None,
        store_budget: float = STORE_BUDGET,
        compute_wait: float | timedelta = COMPUTE_WAIT,
        allow_plaintext: bool = False,
        jitter: float = 0.1,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        clock = given_clock(clock)
        name = namespace_of(namespace)
        # Before the client: a bad key must not leave connections behind.
        envelope = Envelope(namespace=name, signing_keys=signing_keys)
        client = RedisClient(
            url_or_client,
            name="cache",
            store_budget=store_budget,
            allow_plaintext=flag(allow_plaintext, parameter="allow_plaintext"),
            clock=clock,
        )
        store = RedisStore(client, envelope, namespace=name, clock=clock)
        super().__init__(
            store,
            namespace=namespace,
            default_ttl=default_ttl,
            compute_wait=compute_wait,
            jitter=jitter,
            clock=clock,
        )

    def __repr__(self) -> str:
        return f"RedisCache({self.store!r})"
