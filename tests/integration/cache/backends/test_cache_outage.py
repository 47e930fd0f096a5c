"""Invalidations while Redis is away: refused at once, told to Redis at recovery, seen by other processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mks_hardening.cache import MemoryCache, RedisCache, TieredCache
from testbed.fault_proxy import FaultProxy
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis

INVALIDATIONS: dict[str, Callable[[Any], object]] = {
    "delete": lambda cache: cache.delete("k"),
    "tags": lambda cache: cache.invalidate_tags("t"),
    "pattern": lambda cache: cache.delete_pattern("k*"),
    "clear": lambda cache: cache.clear(),
    "set": lambda cache: cache.set("k", "new"),
    "set for no time": lambda cache: cache.set("k", "new", ttl=0),
}
ASYNC: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.adelete("k"),
    "tags": lambda cache: cache.ainvalidate_tags("t"),
    "clear": lambda cache: cache.aclear(),
}


@pytest.fixture
def cache(fault_proxy: FaultProxy) -> Iterator[RedisCache]:
    with RedisCache(f"redis://{fault_proxy.host}:{fault_proxy.port}/0", store_budget=0.3) as made:
        assert made.set("k", "old", tags=["t"])
        assert made.set("other", "kept")
        yield made


@pytest.fixture
def elsewhere(redis_server: RedisServer) -> Iterator[RedisCache]:
    """What another process sees, for which nothing is broken."""
    with RedisCache(redis_server.url, store_budget=5) as made:
        yield made


@pytest.mark.parametrize("invalidate", INVALIDATIONS.values(), ids=INVALIDATIONS)
def test_an_invalidation_that_failed_holds_here_at_once_and_everywhere_soon(
    cache: RedisCache, elsewhere: RedisCache, fault_proxy: FaultProxy, invalidate: Callable[[Any], object]
) -> None:
    fault_proxy.mode = "black_hole"
    assert not invalidate(cache)
    assert elsewhere.get("k") == "old"
    fault_proxy.heal()
    assert cache.get("k") is None
    assert cache.get_many(["k"]) == {}
    assert not cache.exists("k")
    assert cache.get_or_compute("k", lambda: "computed", tags=["t"]) == "computed"
    wait_until(lambda: elsewhere.get("k") != "old", timeout=10, what="an invalidation that is told")


@pytest.mark.parametrize("invalidate", ASYNC.values(), ids=ASYNC)
def test_the_same_on_an_event_loop(
    cache: RedisCache, elsewhere: RedisCache, fault_proxy: FaultProxy, invalidate: Callable[[Any], Any]
) -> None:
    async def scenario() -> None:
        assert await cache.aget("k") == "old"
        fault_proxy.mode = "black_hole"
        assert not await invalidate(cache)
        fault_proxy.heal()
        assert await cache.aget("k") is None
        await cache.aclose()

    asyncio.run(scenario())
    wait_until(lambda: elsewhere.get("k") != "old", timeout=10, what="an invalidation that is told")


@pytest.mark.parametrize("invalidate", ASYNC.values(), ids=ASYNC)
def test_one_that_was_cancelled_is_told_too(
    cache: RedisCache,
    elsewhere: RedisCache,
    fault_proxy: FaultProxy,
    invalidate: Callable[[Any], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        assert await cache.aget("k") == "old"
        fault_proxy.mode = "black_hole"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(invalidate(cache), 0.01)
        fault_proxy.heal()
        assert await cache.aget("k") is None
        await cache.aclose()

    asyncio.run(scenario())
    wait_until(lambda: elsewhere.get("k") is None, timeout=10, what="an invalidation that is told")
    assert "wait until Redis is available" not in caplog.text  # who goes away is no outage


def test_it_is_told_after_a_long_outage_without_any_further_call(
    cache: RedisCache, elsewhere: RedisCache, fault_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    fault_proxy.refuse()
    assert not cache.invalidate_tags("t")
    assert cache.stats().pending_invalidations == 1
    for _ in range(20):
        assert cache.delete("a") == 0
    fault_proxy.heal()
    wait_until(lambda: elsewhere.get("k") is None, timeout=10, what="an invalidation that is told")
    wait_until(lambda: "have been sent to Redis" in caplog.text, timeout=10, what="the end of the outage")
    assert cache.stats().pending_invalidations == 0
    log_records = [record for record in caplog.records if record.name == "mks_hardening.cache"]
    assert len(log_records) == 2  # one when it begins, one when it is over
    wait_until(lambda: cache.get("other") == "kept", timeout=10, what="the other values")


def test_another_cache_of_this_process_refuses_it_too(cache: RedisCache, fault_proxy: FaultProxy) -> None:
    same = RedisCache(f"redis://{fault_proxy.host}:{fault_proxy.port}/0", store_budget=0.3)
    apart = RedisCache(f"redis://{fault_proxy.host}:{fault_proxy.port}/1", store_budget=0.3)
    assert apart.set("k", "another database")
    fault_proxy.mode = "black_hole"
    cache.delete("k")
    fault_proxy.heal()
    assert (same.get("k"), apart.get("k")) == (None, "another database")
    same.close()
    apart.close()


def test_what_is_written_after_it_is_newer_than_it(
    cache: RedisCache, elsewhere: RedisCache, fault_proxy: FaultProxy
) -> None:
    fault_proxy.mode = "black_hole"
    cache.delete("k")
    fault_proxy.heal()
    assert cache.set("k", "new")
    # Nothing if the deletion was being told at that moment, which costs a hit and no more.
    assert {cache.get("k"), elsewhere.get("k")} <= {"new", None}
    wait_until(lambda: cache.stats().pending_invalidations == 0, timeout=10, what="nothing that is owed")


def test_closing_tells_it(cache: RedisCache, elsewhere: RedisCache, fault_proxy: FaultProxy) -> None:
    fault_proxy.mode = "black_hole"
    cache.delete("k")
    fault_proxy.heal()
    cache.close()
    assert elsewhere.get("k") is None


def test_closing_says_what_could_not_be_told(
    cache: RedisCache, fault_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    fault_proxy.mode = "black_hole"
    cache.delete("k", "other")
    cache.close()
    cache.close()
    said = [
        record.getMessage() for record in caplog.records if "when the cache was closed" in record.getMessage()
    ]
    assert said == ["2 invalidations of 'mks' had not reached Redis when the cache was closed"]


def test_a_tier_in_front_forgets_too(
    cache: RedisCache, elsewhere: RedisCache, fault_proxy: FaultProxy
) -> None:
    tiers = TieredCache(MemoryCache(), cache)
    assert tiers.get_or_compute("k", lambda: "unused", tags=["t"]) == "old"
    fault_proxy.mode = "black_hole"
    assert not tiers.invalidate_tags("t")
    fault_proxy.heal()
    assert tiers.get("k") is None
    wait_until(lambda: elsewhere.get("k") is None, timeout=10, what="an invalidation that is told")


def test_a_computation_that_began_before_it_is_not_kept(
    cache: RedisCache, elsewhere: RedisCache, fault_proxy: FaultProxy
) -> None:
    def compute() -> str:
        fault_proxy.mode = "black_hole"
        cache.delete("fresh")
        fault_proxy.heal()
        return "old"

    assert cache.get_or_compute("fresh", compute) == "old"
    assert cache.get("fresh") is None
    wait_until(lambda: elsewhere.get("fresh") is None, timeout=10, what="an invalidation that is told")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_refuses_it_too(cache: RedisCache, fault_proxy: FaultProxy) -> None:
    fault_proxy.mode = "black_hole"
    cache.delete("k")
    child = os.fork()
    if child == 0:
        fault_proxy.mode = "pass"  # the proxy's loop runs in the parent only
        os._exit(0 if cache.get("k") is None else 1)
    fault_proxy.heal()
    assert os.waitpid(child, 0)[1] == 0


def test_a_whole_operation_keeps_to_its_budget(
    cache: RedisCache, elsewhere: RedisCache, fault_proxy: FaultProxy
) -> None:
    """Each round trip of a miss fits into the budget, and all of them together do not."""
    fault_proxy.latency = 0.06  # both ways: 0.12 of 0.3 seconds for each answer
    assert cache.get_or_compute("slow", lambda: "computed", tags=["t"]) == "computed"
    assert cache.stats().errors > 0
    assert elsewhere.get("slow") is None
