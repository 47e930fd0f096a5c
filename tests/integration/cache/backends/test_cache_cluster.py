"""The cache on a Redis Cluster of three primaries with replicas: as many hits as on one server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis

from mks_hardening.cache import RedisCache
from testbed.polling import wait_until
from testbed.redis_groups import RedisCluster

pytestmark = [pytest.mark.slow, pytest.mark.redis]

# Braces move a hash tag; an empty one would count as none.
KEYS = [
    *(f"k{number}" for number in range(40)),
    "}",
    "{}",
    "}a",
    "a}b",
    "{a}",
    "user:{17}:name",
    "鉄筋",
    "\ud800",
]


def url_of(cluster: RedisCluster) -> str:
    return cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0")


@pytest.fixture(params=["url", "client"])
def cache(redis_cluster: RedisCluster, request: pytest.FixtureRequest) -> Iterator[RedisCache]:
    if request.param == "url":
        with RedisCache(url_of(redis_cluster), store_budget=5) as made:
            yield made
        return
    with (
        redis.RedisCluster.from_url(redis_cluster.url) as client,
        RedisCache(client, store_budget=5) as made,
    ):
        yield made


def test_every_key_hits(cache: RedisCache) -> None:
    computed: list[str] = []

    def compute(key: str) -> str:
        computed.append(key)
        return "value"

    cache.clear()
    for _ in range(2):
        for key in KEYS:
            assert cache.get_or_compute(key, lambda key=key: compute(key), tags=["t", "u"]) == "value"
    assert computed == KEYS
    assert len(cache.get_many(KEYS)) == len(KEYS)
    stats = cache.stats()
    assert (stats.errors, stats.misses) == (0, len(KEYS))
    assert cache.delete(*KEYS[:3]) == 3
    assert cache.delete_pattern("k*") == 37
    assert cache.invalidate_tags("u")
    assert cache.get_many(KEYS) == {}


def test_many_missing_keys_are_computed_in_one_call(cache: RedisCache) -> None:
    calls: list[list[str]] = []

    def compute(keys: list[str]) -> dict[str, str]:
        calls.append(keys)
        return dict.fromkeys(keys, "value")

    cache.clear()
    for _ in range(2):
        assert cache.get_or_compute_many(KEYS, compute, tags=["t"]) == dict.fromkeys(KEYS, "value")
    assert calls == [KEYS]
    cache.invalidate_tags("t")
    assert cache.get_many(KEYS) == {}


def test_every_key_hits_on_an_event_loop(redis_cluster: RedisCluster) -> None:
    async def scenario() -> None:
        async with RedisCache(url_of(redis_cluster), namespace="async", store_budget=5) as cache:

            async def compute() -> str:
                return "value"

            for _ in range(2):
                for key in KEYS:
                    assert await cache.aget_or_compute(key, compute, tags=["t"]) == "value"
            assert cache.stats().misses == len(KEYS)
            assert await cache.adelete_pattern("*") == len(KEYS)
            assert cache.stats().errors == 0

    asyncio.run(scenario())


def test_an_invalidation_while_one_primary_is_away_is_told_later(redis_cluster: RedisCluster) -> None:
    with (
        RedisCache(url_of(redis_cluster), namespace="away", store_budget=0.5) as cache,
        RedisCache(url_of(redis_cluster), namespace="away", store_budget=5) as elsewhere,
    ):
        assert cache.set("k", "old", ttl=600)
        primary = redis_cluster.owner("away:v:{=k}")
        primary.pause()
        assert cache.delete("k") == 0
        primary.resume()
        assert cache.get("k") is None
        wait_until(lambda: elsewhere.get("k") is None, timeout=20, what="an invalidation that is told")


def test_a_cluster_that_is_addressed_as_one_server_is_told_once(
    redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisCache(redis_cluster.url, store_budget=5) as cache:
        for number in range(30):
            cache.set(f"k{number}", number)
    messages = [record.getMessage() for record in caplog.records if record.name == "mks_hardening.redis"]
    assert len(messages) == 1
    assert "the URL must begin with redis+cluster://" in messages[0]
