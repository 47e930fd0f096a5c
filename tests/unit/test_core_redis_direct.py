"""The short way to Redis is taken only where redis-py keeps its connections as it is known to."""

from __future__ import annotations

import redis

from mks_hardening._core.backend.redis_direct import direct_pool


class OtherPool:
    """A pool of a version to come."""


def test_an_unknown_pool_stays_as_it_is() -> None:
    assert direct_pool(OtherPool) is OtherPool


def test_the_pool_of_the_installed_version_is_known() -> None:
    kind = direct_pool(redis.ConnectionPool)
    assert kind is not redis.ConnectionPool
    assert issubclass(kind, redis.ConnectionPool)
