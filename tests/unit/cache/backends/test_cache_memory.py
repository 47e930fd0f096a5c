"""The memory cache, the null cache and two memory caches as tiers keep the contract."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from mks_hardening.cache import BaseCache, CacheStats, MemoryCache, NullCache, RedisCache, TieredCache
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import CacheContract, FrozenClock


class TestMemoryCache(CacheContract):
    def make_cache(self, namespace: str, *, clock: FrozenClock) -> MemoryCache:
        return MemoryCache(namespace=namespace, jitter=0, clock=clock)


class TestTieredMemory(CacheContract):
    def make_cache(self, namespace: str, *, clock: FrozenClock) -> TieredCache:
        shared = MemoryCache(namespace=namespace, jitter=0, clock=clock)
        return TieredCache(MemoryCache(jitter=0, clock=clock), shared)


def test_the_least_recently_used_goes_first() -> None:
    cache = MemoryCache(max_entries=3)
    cache.set_many({"a": 1, "b": 2, "c": 3})
    cache.get("a")
    cache.set("d", 4)
    assert cache.get_many("abcd") == {"a": 1, "c": 3, "d": 4}


def test_tags_are_bounded_and_a_forgotten_one_forgets_its_values() -> None:
    cache = MemoryCache(max_entries=2)
    cache.set("k", 1, tags=["first"])
    for number in range(20):
        cache.set("other", 1, tags=[f"t{number}"])
    assert cache.get("k") is None
    assert cache.get("other") == 1


def test_a_wall_clock_set_back_revives_nothing() -> None:
    clock = FrozenClock()
    cache = MemoryCache(clock=clock, jitter=0)
    cache.set("k", 1, ttl=10)
    clock.advance(11)
    clock.step_wall(-3600)
    assert cache.get("k") is None
    cache.set("k", 1, ttl=10)
    clock.step_wall(3600)
    assert cache.get("k") == 1


def test_jitter_only_shortens() -> None:
    clock = FrozenClock()
    cache = MemoryCache(clock=clock)
    cache.set_many({f"k{n}": n for n in range(300)}, ttl=100)
    clock.advance(89.9)
    assert len(cache.get_many(f"k{n}" for n in range(300))) == 300
    clock.advance(5)
    assert 60 < len(cache.get_many(f"k{n}" for n in range(300))) < 240
    clock.advance(5.1)
    assert cache.get_many(f"k{n}" for n in range(300)) == {}


def test_the_null_cache_keeps_nothing_and_still_computes() -> None:
    cache = NullCache()
    assert cache.set("k", 1)
    assert cache.get("k") is None
    assert [cache.get_or_compute("k", lambda: 7) for _ in range(2)] == [7, 7]
    assert cache.get_or_compute("k", lambda: object) is object
    assert (cache.delete("k"), cache.delete_pattern("*"), cache.invalidate_tags("t"), cache.ping()) == (
        0,
        0,
        True,
        True,
    )


@pytest.mark.parametrize(("options", "seconds"), [({}, 5), ({"l1_ttl": 2}, 2)])
def test_a_tier_keeps_a_copy_for_a_short_while(options: dict[str, Any], seconds: float) -> None:
    clock = FrozenClock()
    near, far = MemoryCache(clock=clock, jitter=0), MemoryCache(clock=clock, jitter=0)
    tiers = TieredCache(near, far, **options)
    far.set("k", 1, ttl=100)
    assert tiers.get("k") == 1
    far.delete("k")  # as another process does
    clock.advance(seconds - 0.1)
    assert tiers.get("k") == 1
    clock.advance(0.1)
    assert tiers.get("k") is None


def test_an_entry_near_its_end_is_not_prolonged_by_a_tier() -> None:
    clock = FrozenClock()
    near, far = MemoryCache(clock=clock, jitter=0), MemoryCache(clock=clock, jitter=0)
    tiers = TieredCache(near, far, l1_ttl=60)
    far.set("k", 1, ttl=10)
    tiers.get("k")
    clock.advance(11)
    assert tiers.get("k") is None


def test_values_with_tags_nobody_expected_are_not_copied() -> None:
    near, far = MemoryCache(), MemoryCache()
    tiers = TieredCache(near, far)
    far.set("k", 1, tags=["t"])
    assert tiers.get("k") == 1
    assert near.get("k") is None


@pytest.mark.parametrize("tiers", [False, True])
def test_those_who_come_later_do_not_keep_the_first_from_keeping_its_value(tiers: bool) -> None:
    clock = FrozenClock()
    cache: BaseCache = MemoryCache(clock=clock)
    if tiers:
        cache = TieredCache(MemoryCache(clock=clock), cache)
    first = cache.begin("k", ["t"])
    assert first is not None
    assert cache.begin("k", ["t"]) is None
    assert cache.finish("k", first, 1, ttl=60)
    assert cache.get("k") == 1


@pytest.mark.parametrize("end", ["void", "given back", "dropped", "too long"])
def test_a_lease_that_leads_to_nothing_is_nobodys(end: str) -> None:
    clock = FrozenClock()
    cache = MemoryCache(clock=clock)
    first = cache.begin("k", ["t"])
    assert first is not None
    if end == "void":
        cache.invalidate_tags("t")
    elif end == "given back":
        cache.abandon("k", first)
    elif end == "dropped":
        del first
    else:
        clock.advance(30)
    assert cache.begin("k", ["t"]) is not None


def test_a_signal_handler_that_uses_the_cache_does_not_wait_for_itself() -> None:
    cache = MemoryCache()
    with cache.store._lock:  # type: ignore[attr-defined]  # where a signal may arrive
        assert cache.set("k", 1)
        assert cache.get("k") == 1


def test_hit_rate() -> None:
    assert CacheStats().hit_rate == 0
    assert CacheStats(hits=2, misses=1, stale=1).hit_rate == 0.75


def test_no_repr_shows_a_value() -> None:
    cache = MemoryCache()
    cache.set("k", "hunter2")
    assert "hunter2" not in f"{cache!r} {TieredCache(cache, MemoryCache())!r} {NullCache()!r}"


@pytest.mark.parametrize(
    ("parameter", "make"),
    [
        ("max_entries", lambda: MemoryCache(max_entries=0)),
        ("default_ttl", lambda: MemoryCache(default_ttl=-1)),
        ("jitter", lambda: MemoryCache(jitter=0.5)),
        ("namespace", lambda: MemoryCache(namespace="a b")),
        ("l1", lambda: TieredCache({}, MemoryCache())),  # type: ignore[arg-type]
        ("l2", lambda: TieredCache(MemoryCache(), None)),  # type: ignore[arg-type]
        ("l1_ttl", lambda: TieredCache(MemoryCache(), MemoryCache(), l1_ttl=-1)),
    ],
)
def test_impossible_parameters_are_refused(parameter: str, make: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.parameter == parameter


def test_one_text_is_no_list_of_signing_keys() -> None:
    with pytest.raises(ConfigurationError, match="list of secrets, not one string") as caught:
        RedisCache("redis://127.0.0.1:1/0", signing_keys="0123456789abcdef")  # type: ignore[arg-type]  # on purpose
    assert caught.value.parameter == "signing_keys"


def test_a_cache_is_not_two_tiers() -> None:
    cache = MemoryCache()
    with pytest.raises(ConfigurationError, match="different"):
        TieredCache(cache, cache)


def test_the_least_recently_used_goes_when_the_bytes_are_used_up() -> None:
    cache = MemoryCache(max_bytes=10_000)
    for number in range(5):
        cache.set(f"k{number}", "x" * 2500)
    assert cache.keys() == ["k2", "k3", "k4"]
    cache.get("k2")
    cache.set("k5", b"x" * 2500)
    assert sorted(cache.keys()) == ["k2", "k4", "k5"]
    cache.set_many({"k2": 1, "k4": 1})  # smaller ones make room
    cache.set("k6", "x" * 2500)
    assert sorted(cache.keys()) == ["k2", "k4", "k5", "k6"]


def test_a_value_that_is_larger_than_all_is_not_stored() -> None:
    cache = MemoryCache(max_bytes=10_000)
    cache.set_many({"k": 1, "other": 2})
    cache.set("k", list(range(20_000)))
    assert (cache.get("k"), cache.get("other")) == (None, 2)
    assert cache.get_or_compute("k", lambda: "x" * 20_000) == "x" * 20_000
    assert cache.keys() == ["other"]


def test_the_bytes_are_those_of_the_entries_that_are_there() -> None:
    clock = FrozenClock()
    cache = MemoryCache(max_bytes=100_000, clock=clock, jitter=0)
    cache.set_many({f"k{number}": "x" * 1000 for number in range(20)}, tags=["t"])
    cache.set("short", [1], ttl=1)
    for number in range(10):
        cache.set(f"k{number}", "y" * 10)
        cache.delete(f"k{number}")
    clock.advance(2)
    assert cache.get_many(["short"]) == {}
    cache.delete_pattern("k1*")
    assert repr(cache) == "MemoryCache(0 of 10000 entries, 0 of 100000 bytes)"
    cache.set("k", 1)
    assert "1 of 10000 entries, " in repr(cache)
    cache.clear()
    assert repr(cache) == "MemoryCache(0 of 10000 entries, 0 of 100000 bytes)"


def test_the_estimate_is_close_to_what_python_takes() -> None:
    cache = MemoryCache(max_entries=100_000, max_bytes=1 << 40)
    cache.set("warm", 1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(5000):
            cache.set(f"key {number}", {"number": number, "text": "x" * 100})
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    counted = int(repr(cache).split(", ")[1].split(" of ")[0])
    assert 0.7 < counted / taken < 1.4


@pytest.mark.parametrize("max_bytes", [0, -1, 1.5, "1000", True])
def test_the_maximum_is_a_number_of_bytes(max_bytes: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MemoryCache(max_bytes=max_bytes)
    assert caught.value.parameter == "max_bytes"
