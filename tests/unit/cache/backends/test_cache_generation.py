"""``clear``: a new generation, which no older entry survives, in any process and whatever is being computed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakeredis import FakeRedis, FakeServer

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.cache import BaseCache, MemoryCache, RedisCache, TieredCache
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache.backends._generation import KnownGeneration
from mks_hardening.testing import FrozenClock

GENERATION = "mks:t:{= generation}"
Make = Callable[..., BaseCache]


@pytest.fixture
def server() -> FakeRedis:
    return FakeRedis(server=FakeServer())


@pytest.fixture(params=["redis", "tiers"])
def make(request: pytest.FixtureRequest, server: FakeRedis) -> Make:
    def made(**options: Any) -> BaseCache:
        shared = RedisCache(server, **{"store_budget": 30, "jitter": 0, **options})
        clock = options.get("clock")
        near = MemoryCache() if clock is None else MemoryCache(clock=clock)
        return shared if request.param == "redis" else TieredCache(near, shared, l1_ttl=0)

    return made


def test_no_process_reads_what_was_cleared(make: Make) -> None:
    one, other = make(), make()
    for round_ in range(5):
        one.set("k", round_, tags=["t"])
        one.set_many({"a": 1, "b": 2})
        assert (other.get("k"), other.get_many(["a", "b"])) == (round_, {"a": 1, "b": 2})
        one.clear()
        assert (other.get("k"), other.get_many(["a", "b"]), other.keys()) == (None, {}, [])
        assert (one.get("k"), one.exists("a")) == (None, False)
        other.set("k", "new")
        assert one.get("k") == "new"
    asyncio.run(one.aclear())
    assert other.get("k") is None


def test_other_namespaces_stay(make: Make) -> None:
    here, there = make(), make(namespace="there")
    there.set("k", 1)
    here.clear()
    assert there.get("k") == 1


def test_a_stopped_clock_of_the_cache_does_not_keep_what_was_cleared(make: Make) -> None:
    clock = FrozenClock()
    one, other = make(clock=clock), make(clock=clock)
    one.set("k", 1)
    assert other.get("k") == 1
    one.clear()
    assert other.get("k") is None


def test_what_was_being_computed_is_returned_and_not_stored(make: Make) -> None:
    one, other = make(), make()

    def compute() -> str:
        other.clear()
        return "old"

    assert one.get_or_compute("k", compute) == "old"
    assert one.get("k") is None
    assert one.get_or_compute_many(["a"], lambda keys: other.clear() or dict.fromkeys(keys, "old")) == {
        "a": "old"
    }
    assert one.get("a") is None


def test_nobody_waits_for_a_computation_from_before(make: Make) -> None:
    one, other = make(compute_wait=30), make(compute_wait=30)
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert go_on.wait(30)
        return "old"

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(one.get_or_compute, "k", slow)
        assert begun.wait(30)
        other.clear()
        assert other.get_or_compute("k", lambda: "new") == "new"
        go_on.set()
        assert first.result(30) == "old"
    assert (one.get("k"), other.get("k")) == ("new", "new")


def test_a_value_is_not_replaced_by_one_from_before(make: Make) -> None:
    one, other = make(), make()
    one.set("n", 1)
    seen: list[object] = []

    def change(entry: Any) -> tuple[object, float] | None:
        seen.append(entry and entry.value)
        if len(seen) == 1:
            other.clear()
        return None if entry is None else (entry.value + 1, 60.0)

    one.replace("n", change, wait=1)
    assert other.get("n") is None


def test_a_lost_generation_is_a_miss(make: Make, server: FakeRedis) -> None:
    cache = make()
    cache.set("k", 1)
    server.delete(GENERATION)
    assert make().get("k") is None
    another = make()
    another.set("l", 2)
    assert (make().get("k"), make().get("l")) == (None, 2)


def test_entries_of_an_earlier_release_are_valid_until_the_first_clear(make: Make, server: FakeRedis) -> None:
    old: Any = RedisCache(server, store_budget=30)
    now = old.clock.time()
    data = old.store._envelope.seal(
        "k", CacheEntry("old", fresh_until=now + 60, expires_at=now + 60, tags={})
    )
    server.set("mks:v:{=k}", data)
    assert make().get("k") == "old"
    make().set("l", 1)
    assert make().get_or_compute("k", lambda: "new") == "old"
    make().clear()
    assert make().get("k") is None
    make().set("l", 1)
    assert make().get_or_compute("k", lambda: "new") == "new"


def test_an_earlier_release_reads_the_generation_as_a_tag(server: FakeRedis) -> None:
    cache: Any = RedisCache(server, store_budget=30)
    cache.set("k", 1, tags=["t"])
    data: Any = server.get("mks:v:{=k}")
    # Layout of version 2: two tags, each with the version that Redis has under its name.
    assert data[19:21] == (2).to_bytes(2, "big")
    assert data[21:34] == (11).to_bytes(2, "big") + b" generation"
    assert data[34:42] == server.get(GENERATION)
    assert data[42:45] == (1).to_bytes(2, "big") + b"t"
    assert data[45:53] == server.get("mks:t:{=t}")


def test_a_clear_in_an_outage_follows_when_redis_is_back() -> None:
    server = FakeServer()
    client = FakeRedis(server=server)
    cache, other = (RedisCache(FakeRedis(server=server), store_budget=30) for _ in range(2))
    other.set("k", 1)
    server.connected = False
    cache.clear()
    assert (cache.get("k"), cache.stats().pending_invalidations) == (None, 1)
    server.connected = True
    before = client.get(GENERATION)
    cache.close()  # sends what is pending
    assert client.get(GENERATION) != before
    assert RedisCache(FakeRedis(server=server), store_budget=30).get("k") is None


@pytest.mark.parametrize("tag", [" generation", "\N{NO-BREAK SPACE}generation"])
def test_callers_cannot_have_the_tag_of_the_generation(make: Make, tag: str) -> None:
    with pytest.raises(ValueError, match="tags"):
        make().set("k", 1, tags=[tag])


# --- responses in another order -------------------------------------------------------------------

FIRST, LATER = bytes(8), b"\1" + bytes(7)


@pytest.mark.parametrize(
    ("responses", "value"),
    [
        ([(None, 1.0)], None),
        ([(FIRST, 1.0)], FIRST),
        ([(FIRST, 1.0), (None, 1.5)], FIRST),  # sent before the first generation was made
        ([(None, 1.5), (FIRST, 1.0)], FIRST),
        ([(FIRST, 1.0), (LATER, 2.0)], LATER),
        ([(LATER, 2.0), (FIRST, 1.0)], LATER),
    ],
)
def test_a_late_response_does_not_replace_a_newer_generation(
    responses: list[tuple[bytes | None, float]], value: bytes | None
) -> None:
    known = KnownGeneration()
    for response, asked_at in responses:
        known.learn(response, asked_at=asked_at)
    assert known.value == value


def test_what_is_forgotten_is_learnt_again() -> None:
    known, now = KnownGeneration(), SYSTEM_CLOCK.monotonic() + 60
    for response in (None, FIRST):
        known.learn(response, asked_at=now)
        assert known.is_current
        known.forget()
        assert not known.is_current
    known.learn(LATER, asked_at=now - 30)
    assert (known.value, known.is_current) == (LATER, True)
