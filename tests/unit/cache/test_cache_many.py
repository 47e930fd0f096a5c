"""Many keys at once: one look, one computation for all that are missing, and an invalidation in between wins."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakeredis import FakeRedis

from mks_hardening.cache import BaseCache, MemoryCache, NullCache, RedisCache, TieredCache
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture(params=["memory", "redis", "tiers"])
def cache(request: pytest.FixtureRequest, clock: FrozenClock) -> BaseCache:
    if request.param == "memory":
        return MemoryCache(clock=clock, jitter=0)
    shared = RedisCache(FakeRedis(), store_budget=30, clock=clock, jitter=0)
    return shared if request.param == "redis" else TieredCache(MemoryCache(clock=clock, jitter=0), shared)


class Batch:
    def __init__(self, **others: object) -> None:
        self.asked: list[list[str]] = []
        self.others = others

    def __call__(self, keys: list[str]) -> dict[str, object]:
        self.asked.append(keys)
        return {key: self.others.get(key, key.upper()) for key in keys if key != "none"}


def test_only_missing_ones_are_computed_in_one_call(cache: BaseCache, clock: FrozenClock) -> None:
    batch = Batch()
    cache.set("b", "stored")
    read: Any = lambda keys: cache.get_or_compute_many(keys, batch, ttl=10, tags=["t"])  # noqa: E731
    assert read(["a", "b", "c", "a"]) == {"a": "A", "b": "stored", "c": "C"}
    assert read(["d", "a", "b", "c"]) == {"a": "A", "b": "stored", "c": "C", "d": "D"}
    assert read([]) == {}
    assert batch.asked == [["a", "c"], ["d"]]
    clock.advance(11)
    assert read(["a", "b"]) == {"a": "A", "b": "stored"}
    cache.invalidate_tags("t")
    read(["a", "b"])
    assert batch.asked[2:] == [["a"], ["a"]]
    assert (cache.stats().misses, cache.stats().hits) == (5, 6)


def test_left_out_keys_have_no_value_and_others_are_ignored(cache: BaseCache) -> None:
    batch = Batch()
    assert cache.get_or_compute_many(["none", "a"], batch) == {"a": "A"}
    assert cache.get_or_compute_many(["x"], lambda _keys: {"x": 1, "other": 2}) == {"x": 1}
    assert not cache.exists("none")
    assert not cache.exists("other")
    assert cache.get_or_compute("none", lambda: "now") == "now"  # no lease is left


def test_what_is_no_data_is_returned_and_not_stored(cache: BaseCache) -> None:
    thing = object()
    assert cache.get_or_compute_many(["a", "b"], Batch(b=thing)) == {"a": "A", "b": thing}
    assert cache.get_many(["a", "b"]) == {"a": "A"}
    assert cache.stats().bypasses == 1
    assert cache.get_or_compute("b", lambda: 7) == 7


def test_an_invalidation_in_between_wins(cache: BaseCache) -> None:
    def compute(keys: list[str]) -> dict[str, str]:
        cache.delete("a")
        cache.invalidate_tags("u")
        return dict.fromkeys(keys, "old")

    assert cache.get_or_compute_many(["a", "b"], compute, tags=["t"]) == {"a": "old", "b": "old"}
    assert cache.get_many(["a", "b"]) == {"b": "old"}
    cache.clear()
    cache.get_or_compute_many(["a", "b"], compute, tags=["u"])
    assert cache.get_many(["a", "b"]) == {}


def test_an_error_is_raised_and_nothing_is_held(cache: BaseCache) -> None:
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute_many(["a", "b"], lambda _keys: {"a": 1 // 0})
    assert cache.get_or_compute_many(["a", "b"], Batch()) == {"a": "A", "b": "B"}
    assert cache.get_many(["a", "b"]) == {"a": "A", "b": "B"}


def test_in_a_transaction_nothing_is_stored(cache: BaseCache) -> None:
    with cache.transaction():
        assert cache.get_or_compute_many(["a"], Batch()) == {"a": "A"}
    assert not cache.exists("a")


def test_without_storing_and_with_asyncio() -> None:
    batch = Batch()
    assert NullCache().get_or_compute_many(["a"], batch) == {"a": "A"}
    cache = MemoryCache()
    assert cache.get_or_compute_many(["a"], batch, ttl=0) == {"a": "A"}
    assert not cache.exists("a")

    async def compute(keys: list[str]) -> dict[str, object]:
        return batch(keys)

    async def scenario() -> list[object]:
        return [await cache.aget_or_compute_many(["a", "b"], compute) for _ in range(2)]

    assert asyncio.run(scenario()) == [{"a": "A", "b": "B"}] * 2
    assert batch.asked == [["a"], ["a"], ["a", "b"]]


@pytest.mark.parametrize(
    ("parameter", "keys", "compute"),
    [
        ("key", [""], Batch()),
        ("keys", [7], Batch()),
        ("keys", "abc", Batch()),
        ("compute", ["a"], None),
        ("compute", ["a"], lambda _keys: ["A"]),
    ],
)
def test_impossible_parameters_are_refused(parameter: str, keys: Any, compute: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MemoryCache().get_or_compute_many(keys, compute)
    assert caught.value.parameter == parameter
