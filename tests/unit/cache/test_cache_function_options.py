"""What a cached function decides by its result, and what its callers get while it fails or takes long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from fakeredis import FakeRedis

from mks_hardening.cache import BaseCache, MemoryCache, NullCache, RedisCache, TieredCache, cached
from mks_hardening.cache.compute import _get_or_compute
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture(params=["memory", "redis", "signed", "tiers"])
def cache(request: pytest.FixtureRequest, clock: FrozenClock) -> Iterator[BaseCache]:
    keys = ["0123456789abcdef"] if request.param == "signed" else None
    made: BaseCache
    if request.param == "memory":
        made = MemoryCache(clock=clock, jitter=0)
    else:
        # Redis itself has another clock: entries are compared with the one given.
        made = RedisCache(FakeRedis(), store_budget=30, clock=clock, jitter=0, signing_keys=keys)
        if request.param == "tiers":
            made = TieredCache(MemoryCache(clock=clock, jitter=0), made)
    yield made
    made.close()


def _refreshed() -> None:
    """Wait for refreshes that run beside."""
    for thread in threading.enumerate():
        if thread.name == "mks-cache-refresh":
            thread.join(30)


class Source:
    """Answers, one after another; an error is raised."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> object:
        self.calls += 1
        answer = self.answers[min(self.calls, len(self.answers)) - 1]
        assert self.gate.wait(30)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _function(source: Callable[[], object], **options: Any) -> Any:
    return cached(key_prefix="f", **options)(source)


# --- by the result ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "lives"),
    [
        ({"ttl": 5}, 5),
        ({"ttl": 50.5}, 50.5),
        ({"ttl": timedelta(seconds=7)}, 7),
        ({"ttl": None}, 3600),
        ({"ttl": 0}, 0),
    ],
)
def test_the_result_says_how_long_it_lives(
    cache: BaseCache, clock: FrozenClock, answer: Any, lives: float
) -> None:
    source = Source(answer)
    function = _function(source, cache=cache, ttl=lambda result: result["ttl"])
    function()
    if lives:
        clock.advance(lives - 0.5)
        function()
        assert source.calls == 1
        clock.advance(1)
    function()
    assert source.calls == 2


def test_an_impossible_ttl_of_a_result_is_an_error_and_nothing_is_kept(cache: BaseCache) -> None:
    function = _function(Source(1), cache=cache, ttl=lambda _result: -1)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="ttl"):
            function()
    assert not cache.exists(function.cache_key())


def test_the_result_says_whether_it_is_kept(cache: BaseCache) -> None:
    source = Source(None, None, "found", "other")
    function = _function(source, cache=cache, store_if=lambda result: result is not None)
    assert [function() for _ in range(4)] == [None, None, "found", "found"]


def test_callers_at_the_same_time_share_a_result_that_is_not_kept() -> None:
    cache = MemoryCache()
    source = Source(None)
    source.gate.clear()
    function = _function(source, cache=cache, store_if=lambda result: result is not None)
    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(function())) for _ in range(5)]
    for thread in threads:
        thread.start()
    while cache.stats().misses < 5:
        pass
    source.gate.set()
    for thread in threads:
        thread.join(30)
    assert answers == [None] * 5
    assert source.calls == 1


# --- while the function fails ------------------------------------------------------------------


def test_an_old_result_is_returned_while_the_function_fails_and_attempts_are_rare(
    cache: BaseCache, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source("old", *[OSError("down")] * 4, "new")
    function = _function(source, cache=cache, ttl=10, stale_on_error=1000)
    assert function() == "old"
    clock.advance(11)
    attempts = []
    for _ in range(60):  # by quarters of a second
        assert function() == "old"
        attempts.append(source.calls)
        clock.advance(0.25)
    # After one second, two, four: 1 + 4 attempts in 15 seconds, not 60.
    assert [attempts.index(number) / 4 for number in (2, 3, 4, 5)] == [0, 1, 3, 7]
    assert caplog.text.count("could not be recomputed") == 4
    assert function.cache_info().stale == 60
    clock.advance(10)
    assert function() == "new"
    assert source.calls == 6


def test_after_that_time_the_error_is_raised(cache: BaseCache, clock: FrozenClock) -> None:
    function = _function(Source("old", OSError("down")), cache=cache, ttl=10, stale_on_error=20)
    function()
    clock.advance(31)
    with pytest.raises(OSError, match="down"):
        function()


def test_an_invalidated_result_is_not_an_old_one(cache: BaseCache, clock: FrozenClock) -> None:
    function = _function(Source("old", OSError("down")), cache=cache, ttl=10, stale_on_error=1000)
    function()
    clock.advance(11)
    function.invalidate()
    with pytest.raises(OSError, match="down"):
        function()


def test_old_results_first_beside_then_for_errors(cache: BaseCache, clock: FrozenClock) -> None:
    source = Source("old", "new", OSError("down"))
    function = _function(source, cache=cache, ttl=10, stale_while_revalidate=10, stale_on_error=100)
    function()
    clock.advance(15)
    assert function() == "old"
    _refreshed()
    assert function() == "new"
    clock.advance(25)
    assert function() == "new"
    assert source.calls == 3


def test_an_asynchronous_function_fails_in_the_same_way(clock: FrozenClock) -> None:
    source = Source("old", OSError("down"))

    @cached(cache=MemoryCache(clock=clock, jitter=0), key_prefix="f", ttl=10, stale_on_error=100)
    async def function() -> object:
        await asyncio.sleep(0)
        return source()

    async def scenario() -> list[object]:
        first = await function()
        clock.advance(11)
        return [first, *await asyncio.gather(*(function() for _ in range(10)))]

    assert asyncio.run(scenario()) == ["old"] * 11
    assert source.calls == 2


# --- while it takes long -----------------------------------------------------------------------


def test_a_slow_computation_goes_on_while_the_old_result_is_returned(
    cache: BaseCache, clock: FrozenClock
) -> None:
    source = Source("old", "new")
    function = _function(source, cache=cache, ttl=10, stale_on_error=100, soft_timeout=0.01)
    assert function() == "old"
    clock.advance(11)
    source.gate.clear()
    assert [function() for _ in range(5)] == ["old"] * 5
    assert source.calls == 2  # one at a time
    source.gate.set()
    _refreshed()
    assert function() == "new"


def test_a_quick_computation_is_waited_for(cache: BaseCache, clock: FrozenClock) -> None:
    function = _function(Source("old", "new"), cache=cache, ttl=10, stale_on_error=100, soft_timeout=30)
    function()
    clock.advance(11)
    assert function() == "new"


def test_an_error_within_the_soft_timeout_is_not_raised(cache: BaseCache, clock: FrozenClock) -> None:
    function = _function(Source("old", OSError()), cache=cache, ttl=10, stale_on_error=100, soft_timeout=30)
    function()
    clock.advance(11)
    assert [function(), function()] == ["old", "old"]


def test_a_slow_coroutine_goes_on_too(clock: FrozenClock) -> None:
    async def scenario() -> list[object]:
        gate = asyncio.Event()
        answers = iter(["old", "new"])

        @cached(
            cache=MemoryCache(clock=clock, jitter=0),
            key_prefix="f",
            ttl=10,
            stale_on_error=100,
            soft_timeout=0.01,
        )
        async def function() -> object:
            answer = next(answers)
            if answer == "new":
                await gate.wait()
            return answer

        seen: list[object] = [await function()]
        clock.advance(11)
        seen.append(await function())
        gate.set()
        while (latest := await function()) == "old":  # noqa: ASYNC110 - the refresh tells nobody
            await asyncio.sleep(0)
        return [*seen, latest]

    assert asyncio.run(scenario()) == ["old", "old", "new"]


# --- before it expires -------------------------------------------------------------------------


def test_xfetch_recomputes_the_sooner_the_longer_it_takes(
    cache: BaseCache, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_get_or_compute, "random", lambda: 1 - 1 / 2.718281828)  # -ln(1 - random) is 1
    calls: list[int] = []

    @cached(cache=cache, key_prefix="f", ttl=100, early_refresh=2)
    def function() -> int:
        clock.advance(3)  # it takes three seconds
        calls.append(1)
        return len(calls)

    function()
    clock.advance(93)  # six seconds are 2 times 3, and it expires in seven
    assert function() == 1
    _refreshed()
    assert len(calls) == 1
    clock.advance(1.5)
    assert function() == 1  # nobody waits
    _refreshed()
    assert function() == 2
    assert len(calls) == 2


def test_without_it_nothing_is_recomputed_early(cache: BaseCache, clock: FrozenClock) -> None:
    source = Source(1)
    function = _function(source, cache=cache, ttl=100)
    function()
    clock.advance(99.9)
    function()
    _refreshed()
    assert source.calls == 1


# --- by hand -----------------------------------------------------------------------------------


def test_refresh_computes_now_and_keeps_it(cache: BaseCache) -> None:
    function = _function(Source(1, 2, OSError("down"), 4), cache=cache)
    assert [function(), function.refresh(), function()] == [1, 2, 2]
    with pytest.raises(OSError, match="down"):
        function.refresh()
    assert [function(), function.refresh(), function()] == [2, 4, 4]


def test_refresh_without_a_cache_calls_the_function() -> None:
    assert cached(key_prefix="f")(Source(1, 2)).refresh() == 1
    assert cached(key_prefix="f", cache=NullCache())(Source(1, 2)).refresh() == 1


def test_refresh_of_a_coroutine_function(cache: BaseCache) -> None:
    source = Source(1, 2)

    @cached(cache=MemoryCache(), key_prefix="f")
    async def function() -> object:
        return source()

    async def scenario() -> list[object]:
        return [await function(), await function.refresh(), await function()]

    assert asyncio.run(scenario()) == [1, 2, 2]


def test_a_computation_that_began_before_a_refresh_is_not_kept() -> None:
    cache = MemoryCache()
    source = Source("older", "newer")
    source.gate.clear()
    function = _function(source, cache=cache)
    answers: list[object] = []
    first = threading.Thread(target=lambda: answers.append(function()))
    first.start()
    while not source.calls:
        pass
    second = threading.Thread(target=lambda: answers.append(function.refresh()))
    second.start()
    while source.calls < 2:
        pass
    source.gate.set()
    first.join(30)
    second.join(30)
    assert sorted(map(str, answers)) == ["newer", "older"]
    assert function() == "newer"


def test_cache_info_counts_by_function(cache: BaseCache, clock: FrozenClock) -> None:
    one: Any = cached(cache=cache, key_prefix="one", ttl=10, stale_on_error=50, condition=bool)(
        lambda number: 1 // (number - 1)
    )
    other = cached(cache=cache, key_prefix="other")(lambda number: number)
    one(2), one(2), one(3), other(2)
    with pytest.raises(ZeroDivisionError):
        one(1)
    with pytest.raises(ZeroDivisionError):
        one(True)
    info = one.cache_info()
    assert (info.hits, info.misses, info.stale, info.bypasses) == (1, 4, 0, 0)
    assert one(0) == -1
    assert one.cache_info().bypasses == 1
    assert (other.cache_info().hits, other.cache_info().misses) == (0, 1)
    assert cache.stats().misses == 5


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("store_if", {"store_if": True}),
        ("stale_on_error", {"stale_on_error": -1}),
        ("stale_on_error", {"stale_on_error": "10"}),
        ("soft_timeout", {"soft_timeout": 1}),
        ("soft_timeout", {"soft_timeout": -1, "stale_on_error": 10}),
        ("soft_timeout", {"soft_timeout": 1, "stale_on_error": 0}),
        ("early_refresh", {"early_refresh": -1}),
        ("early_refresh", {"early_refresh": 11}),
        ("early_refresh", {"early_refresh": "1"}),
    ],
)
def test_impossible_parameters_are_refused(parameter: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        cached(**options)
    assert caught.value.parameter == parameter
