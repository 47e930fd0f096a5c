"""A cache in Redis, shared by all processes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.checks import boolean, namespace_of, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.resilience.budget import STORE_BUDGET
from mks_hardening.cache.backends._redis_store import RedisStore
from mks_hardening.cache.backends._stored_bytes import Envelope
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.cache.compute._singleflight import COMPUTE_WAIT
from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisCache"]


class RedisCache(BaseCache):
    """A cache in Redis. During an outage every read is a miss, and no error is raised.

    Invalidations during an outage are not lost: this process ignores the old values from then on, and sends the
    invalidations to Redis when it is back. Names in Redis are ``namespace:v:{=KEY}`` (values),
    ``namespace:l:{=KEY}`` (leases of computations), ``namespace:w:{=KEY}`` (lists that wake waiting callers) and
    ``namespace:t:{=TAG}`` (versions of tags).

    Args:
        url_or_client: Redis URL (one server, Sentinel or Cluster), a ``RedisClient``, or a client of redis-py,
            whose settings are used to create a new one.
        namespace: 1 to 64 characters of ``A-Za-z0-9_.:-``; caches with different namespaces share nothing.
        default_ttl: seconds for which a value is stored when no ``ttl`` is given.
        signing_keys: secrets of at least 16 bytes; the first one signs, all are accepted. Without them, anyone who
            can write to Redis controls what the application reads (data only, never code).
        store_budget: maximum seconds for all Redis round trips of one operation together.
        compute_wait: seconds a caller waits for the same computation in another thread, task or process, before one
            of the waiting callers computes as well; the only wait that may exceed ``store_budget``.
        allow_plaintext: whether unencrypted connections to Redis on other hosts are allowed.
        jitter: share of each ttl, up to 0.1, that is subtracted at random.
        compress_above: bytes from which on a value is compressed: with zstd on Python 3.14 or with the package
            ``backports.zstd``, with zlib otherwise. None: never. Processes of earlier releases cannot read
            compressed values, so set it when all of them have been replaced.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid.
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
        compress_above: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        clock = given_clock(clock)
        name = namespace_of(namespace)
        # Before the client is created: an invalid key must not leave connections open.
        above = (
            None
            if compress_above is None
            else whole_number(compress_above, parameter="compress_above", minimum=0)
        )
        envelope = Envelope(namespace=name, signing_keys=signing_keys, compress_above=above)
        client = RedisClient(
            url_or_client,
            name="cache",
            store_budget=store_budget,
            allow_plaintext=boolean(allow_plaintext, parameter="allow_plaintext"),
            clock=clock,
        )
        store = RedisStore(client, envelope, namespace=name, clock=clock)
        self.redis: RedisStore = store  # the same object as ``store``, with its own type
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
