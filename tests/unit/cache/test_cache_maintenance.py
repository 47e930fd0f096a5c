"""Keys, expiry and replacement of values: on every backend."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fakeredis import FakeRedis

from mks_hardening.cache import BaseCache, MemoryCache, NullCache, RedisCache, TieredCache
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.testing import FrozenClock

MakeCache = Callable[..., BaseCache]


@pytest.fixture(params=["memory", "redis", "tiers"])
def make_cache(request: pytest.FixtureRequest) -> MakeCache:
    def make(**options: Any) -> BaseCache:
        if request.param == "memory":
            return MemoryCache(**options)
        shared = RedisCache(FakeRedis(), store_budget=30, **options)
        return shared if request.param == "redis" else TieredCache(MemoryCache(**options), shared)

    return make


def test_keys_are_those_with_a_value(make_cache: MakeCache) -> None:
    clock = FrozenClock()
    cache = make_cache(clock=clock, jitter=0)
    keys = ["a:1", "a:2", "b{x}", "技術", "\udc80", "x}y"]
    cache.set_many(dict.fromkeys(keys, 1), ttl=100)
    cache.set("a:short", 1, ttl=10)
    cache.set("a:tagged", 1, tags=["t"])
    cache.set("a:gone", 1)
    assert sorted(cache.keys("a:*")) == ["a:1", "a:2", "a:gone", "a:short", "a:tagged"]
    clock.advance(11)
    cache.invalidate_tags("t")
    cache.delete("a:gone")
    assert sorted(cache.keys()) == sorted(keys)
    assert sorted(asyncio.run(cache.akeys("a:*"))) == ["a:1", "a:2"]
    assert cache.keys("b{*") == ["b{x}"]
    assert (len(cache.keys(most=2)), cache.keys("none")) == (2, [])
    for key in keys:
        assert cache.get(key) == 1, key


@pytest.mark.parametrize(
    ("arguments", "parameter"), [({"most": 0}, "most"), ({"most": "2"}, "most"), ({"pattern": ""}, "key")]
)
def test_keys_refuse_what_is_no_pattern_or_number(
    make_cache: MakeCache, arguments: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_cache().keys(**arguments)
    assert caught.value.parameter == parameter


def test_the_expiry_is_known_and_can_be_moved(make_cache: MakeCache) -> None:
    clock = FrozenClock()
    cache = make_cache(clock=clock, jitter=0)
    cache.set("k", "value", ttl=10, tags=["t"])
    clock.advance(4)
    assert cache.expires_in("k") == pytest.approx(6)
    assert cache.touch("k", ttl=100)
    assert asyncio.run(cache.aexpires_in("k")) == pytest.approx(100)
    clock.advance(50)
    assert (cache.get("k"), asyncio.run(cache.atouch("k"))) == ("value", True)
    cache.invalidate_tags("t")  # the tags stay
    assert (cache.get("k"), cache.expires_in("k"), cache.touch("k")) == (None, None, False)
    cache.set("k", 1)
    assert (cache.touch("k", ttl=0), cache.get("k")) == (True, None)


def test_a_touch_never_brings_an_older_value_back(make_cache: MakeCache) -> None:
    cache = make_cache()
    cache.set("k", 0)
    seen: list[object] = []

    def change(entry: Any) -> tuple[object, float]:
        seen.append(entry.value)
        if len(seen) == 1:
            cache.set("k", 10)  # another caller, in between
        return entry.value + 1, 60.0

    assert cache.replace("k", change, wait=1)
    assert (seen, cache.get("k")) == ([0, 10], 11)


def test_a_deleted_value_is_not_brought_back(make_cache: MakeCache) -> None:
    cache = make_cache()
    cache.set("k", 0)
    seen: list[object] = []

    def change(entry: Any) -> tuple[object, float] | None:
        seen.append(entry and entry.value)
        if len(seen) == 1:
            cache.delete("k")
        return None if entry is None else (1, 60.0)

    assert not cache.replace("k", change, wait=1)
    assert (seen, cache.exists("k")) == ([0, None], False)


def test_a_key_that_is_busy_is_reported(make_cache: MakeCache) -> None:
    cache = make_cache()
    lease = cache.begin("k")
    assert lease is not None
    with pytest.raises(BackendUnavailableError, match="busy"):
        cache.replace("k", lambda _entry: (1, 60.0), wait=0.01)
    assert not cache.touch("other")
    cache.abandon("k", lease)
    assert cache.replace("k", lambda _entry: (1, 60.0), wait=0.01)


def test_an_error_of_the_change_releases_the_key(make_cache: MakeCache) -> None:
    cache = make_cache()

    def fail(_entry: object) -> tuple[object, float]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.replace("k", fail, wait=1)
    assert cache.replace("k", lambda _entry: (1, 60.0), wait=0)


def test_no_replacement_is_lost(make_cache: MakeCache) -> None:
    cache = make_cache()
    cache.set("n", 0)

    def count() -> None:
        for _ in range(10):
            cache.replace("n", lambda entry: entry and (entry.value + 1, 60.0), wait=30)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 40


def test_a_copy_is_not_older_than_the_shared_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second replacement is stored between the shared value and the local copy of the first one."""
    shared = RedisCache(FakeRedis(), store_budget=30)
    cache = TieredCache(MemoryCache(), shared)
    store: Any = shared.store
    commit = store.commit

    def overtaken(key: str, lease: object, entry: object) -> Any:
        kept = yield from commit(key, lease, entry)
        monkeypatch.setattr(store, "commit", commit)
        assert cache.replace("n", lambda _entry: ("second", 60.0), wait=1)
        return kept

    monkeypatch.setattr(store, "commit", overtaken)
    assert cache.replace("n", lambda _entry: ("first", 60.0), wait=1)
    assert cache.get("n") == "second"


def test_a_cache_that_stores_nothing_has_no_keys() -> None:
    cache = NullCache()
    cache.set("k", 1)
    assert (cache.keys(), cache.expires_in("k"), cache.touch("k")) == ([], None, False)


def test_an_outage_has_no_keys() -> None:
    cache = RedisCache("redis://127.0.0.1:1/0", store_budget=0.05)
    assert (cache.keys(), cache.expires_in("k"), cache.touch("k")) == ([], None, False)
    with pytest.raises(BackendUnavailableError):
        cache.replace("k", lambda _entry: (1, 60.0), wait=1)
    assert cache.stats().errors == 4
