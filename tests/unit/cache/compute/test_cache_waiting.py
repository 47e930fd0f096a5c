"""Callers that wait for each other: nobody hangs, nobody shares a mutable object, nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mks_hardening.cache import MemoryCache, cached
from mks_hardening.cache.backends._pending_invalidations import PendingInvalidations
from mks_hardening.cache.compute._singleflight import Flight, Flights, FlightWait
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock

WAIT = 0.05


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache(compute_wait=WAIT)


def test_two_functions_that_call_each_other_from_two_threads(cache: MemoryCache) -> None:
    both = threading.Barrier(2)

    def ask(own: str, other: str) -> str:
        def compute() -> str:
            both.wait(10)  # each holds its own key now
            return own + cache.get_or_compute(other, lambda: other)

        return cache.get_or_compute(own, compute)

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(ask, "a", "b"), pool.submit(ask, "b", "a")]
        assert [answer.result(10)[0] for answer in answers] == ["a", "b"]


def test_a_loop_that_ended_meanwhile_disturbs_nobody(
    cache: MemoryCache, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        assert go_on.wait(10)
        return 1

    async def quick() -> int:
        return 2

    with ThreadPoolExecutor(1) as pool:
        computed = pool.submit(cache.get_or_compute, "k", slow)
        assert begun.wait(10)
        assert asyncio.run(cache.aget_or_compute("k", quick)) == 2  # waited, and is gone
        go_on.set()
        assert computed.result(10) == 1
    assert not caplog.records


def test_two_coroutines_that_await_each_other(cache: MemoryCache) -> None:
    async def scenario() -> list[str]:
        begun = [asyncio.Event(), asyncio.Event()]

        async def ask(number: int, own: str, other: str) -> str:
            async def plain() -> str:
                return other

            async def compute() -> str:
                begun[number].set()
                await begun[1 - number].wait()
                return own + await cache.aget_or_compute(other, plain)

            return await cache.aget_or_compute(own, compute)

        return [*await asyncio.wait_for(asyncio.gather(ask(0, "a", "b"), ask(1, "b", "a")), 10)]

    assert [answer[0] for answer in asyncio.run(scenario())] == ["a", "b"]


def test_a_function_that_asks_for_its_own_key_from_a_pool_thread(cache: MemoryCache) -> None:
    with ThreadPoolExecutor(1) as pool:

        def compute() -> str:
            return pool.submit(cache.get_or_compute, "k", lambda: "inner").result(10) + " outer"

        assert cache.get_or_compute("k", compute) == "inner outer"
    assert cache.get("k") == "inner outer"


def _together(cache: MemoryCache, compute: Callable[[], Any], *, callers: int) -> list[Any]:
    """Answers of callers that all ask while one computes."""
    computing, go_on = threading.Event(), threading.Event()

    def slow() -> Any:
        computing.set()
        assert go_on.wait(10)
        return compute()

    with ThreadPoolExecutor(callers) as pool:
        first = pool.submit(cache.get_or_compute, "k", slow)
        assert computing.wait(10)
        others = [pool.submit(cache.get_or_compute, "k", slow) for _ in range(callers - 1)]
        (flight,) = cache._computing.flights._under_way.values()
        while flight.waiting < callers - 1:
            threading.Event().wait(0.001)
        go_on.set()
        return [first.result(10), *(other.result(10) for other in others)]


def test_callers_that_waited_have_copies_of_their_own() -> None:
    answers = _together(MemoryCache(compute_wait=10), lambda: {"list": [1]}, callers=4)
    assert answers == [{"list": [1]}] * 4
    assert len({id(answer["list"]) for answer in answers}) == 4


def test_what_cannot_be_kept_is_not_computed_one_after_the_other() -> None:
    answers = _together(MemoryCache(compute_wait=10), object, callers=4)
    assert len({id(answer) for answer in answers}) == 4


def test_a_value_larger_than_any_cache_keeps_is_returned(caplog: pytest.LogCaptureFixture) -> None:
    cache = MemoryCache()
    large = bytes(70 * 2**20)

    @cached(cache=cache, key_prefix="large")
    def function() -> list[bytes]:
        return [large]

    assert [function()[0] is large for _ in range(2)] == [True, True]
    assert cache.stats().bypasses == 2
    assert len(caplog.records) == 1


def test_a_value_made_elsewhere_that_is_no_data_is_only_counted(cache: MemoryCache) -> None:
    lease = cache.begin("k")
    assert lease is not None
    assert cache.finish("k", lease, object(), ttl=60) is False
    assert (cache.stats().bypasses, cache.get("k")) == (1, None)


def test_a_reader_of_a_stale_value_needs_no_free_thread(
    cache: MemoryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mks_hardening.testing import FrozenClock

    clock = FrozenClock()
    cache = MemoryCache(clock=clock, jitter=0)

    def ask() -> Any:
        return cache.get_or_compute("k", lambda: next(values), ttl=1, stale_while_revalidate=60)

    values = iter(range(3))
    assert ask() == 0
    clock.advance(2)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert [ask(), ask()] == [0, 0]


# --- pending invalidations ---------------------------------------------------------------------


def test_more_than_can_be_remembered_counts_as_everything() -> None:
    pending = PendingInvalidations("mks")
    for number in range(1100):
        pending.add([("key", f"k{number}")])
    assert [pending.covers(key, ()) for key in ("k0", "k1099", "never named")] == [True] * 3
    assert len(pending) <= 1000
    pending.mark_flushed(pending.snapshot())
    assert (len(pending), pending.covers("k0", ())) == (0, False)


def test_what_is_invalidated_again_while_it_is_sent_stays_pending() -> None:
    pending = PendingInvalidations("mks")
    pending.add([("key", "k"), ("tag", "t")])
    sent = pending.snapshot()
    pending.add([("tag", "t")])
    pending.mark_flushed(sent)
    assert (pending.covers("k", ()), pending.covers("k", ["t"])) == (False, True)
    assert len(pending) == 1


def test_a_key_that_was_written_anew_is_not_pending_any_more() -> None:
    pending = PendingInvalidations("mks")
    pending.add([("key", "k"), ("key", "l")])
    pending.supersede([("key", "k")])
    assert (pending.covers("k", ()), pending.covers("l", ())) == (False, True)


def test_an_answer_that_comes_as_the_wait_ends_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    flight = Flight("k", ())
    flight.waiting = 1
    patiently = flight.future.result

    def result(timeout: float | None = None) -> Any:
        if not flight.future.done():
            flight.land(["computed"])
            raise TimeoutError
        return patiently(timeout)

    monkeypatch.setattr(flight.future, "result", result)
    assert FlightWait(flight, 0.1).run() == ["computed"]


def test_a_flight_that_was_voided_leaves_its_successor_alone() -> None:
    flights = Flights()
    old, _ = flights.join("k", ())
    flights.void(keys=["k"])
    new, ours = flights.join("k", ())
    assert ours
    flights.leave(old)
    assert flights.join("k", ()) == (new, False)
    flights.leave(new)
    assert flights.join("k", ())[1]


def _slow_for_many(cache: MemoryCache, *, callers: int, **options: Any) -> int:
    """How often a computation is done that many ask for, and that ends when it was begun a second time."""
    begun: list[int] = []
    again = threading.Event()

    def slow() -> int:
        begun.append(1)
        if len(begun) > 1:
            again.set()
        assert again.wait(10)
        return 7

    with ThreadPoolExecutor(callers) as pool:
        answers = [
            pool.submit(cache.get_or_compute, "k", slow, compute_wait=0.5, **options) for _ in range(callers)
        ]
        assert {answer.result(20) for answer in answers} == {7}
    return len(begun)


def test_when_a_computation_takes_too_long_one_of_those_who_wait_computes_as_well() -> None:
    # A third may begin while the machine is busy with fifty threads, not fifty.
    assert _slow_for_many(MemoryCache(), callers=50) in {2, 3}


def test_the_value_of_the_slow_one_is_kept_and_given_to_those_who_wait_for_its_successor() -> None:
    cache = MemoryCache(compute_wait=0.2)
    first_may_end, second_may_end, second_began = (threading.Event() for _ in range(3))

    def slow() -> str:
        assert first_may_end.wait(10)
        return "first"

    def slower() -> str:
        second_began.set()
        assert second_may_end.wait(10)
        return "second"

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(cache.get_or_compute, "k", slow)
        while not cache._computing.flights._under_way:
            threading.Event().wait(0.001)
        second = pool.submit(cache.get_or_compute, "k", slower)
        assert second_began.wait(10)
        third = pool.submit(cache.get_or_compute, "k", lambda: "third", compute_wait=10)
        (flight,) = cache._computing.flights._under_way.values()
        while not flight.waiting:
            threading.Event().wait(0.001)
        first_may_end.set()
        assert (first.result(10), third.result(10)) == ("first", "first")
        assert cache.get("k") == "first"
        second_may_end.set()
        assert second.result(10) == "second"
    assert cache.get("k") == "first"


def test_the_wait_can_be_set_for_one_function() -> None:
    cache = MemoryCache(compute_wait=0.01)
    begun = []

    @cached(cache=cache, key_prefix="slow", compute_wait=30)
    def slow() -> int:
        begun.append(1)
        threading.Event().wait(0.2)
        return 7

    with ThreadPoolExecutor(8) as pool:
        assert {answer.result(20) for answer in [pool.submit(slow) for _ in range(8)]} == {7}
    assert len(begun) == 1
    with pytest.raises(ConfigurationError, match="compute_wait"):
        cached(compute_wait=-1)


def test_those_who_wait_with_asyncio_compute_one_by_one_too() -> None:
    async def scenario() -> int:
        cache, again, begun = MemoryCache(), asyncio.Event(), []

        async def slow() -> int:
            begun.append(1)
            if len(begun) > 1:
                again.set()
            await asyncio.wait_for(again.wait(), 10)
            return 7

        asked = (cache.aget_or_compute("k", slow, compute_wait=0.5) for _ in range(50))
        assert set(await asyncio.gather(*asked)) == {7}
        return len(begun)

    assert asyncio.run(scenario()) in {2, 3}


def test_refreshes_beside_are_bounded_with_asyncio() -> None:
    async def scenario() -> int:
        clock = FrozenClock()
        cache, go_on, begun = MemoryCache(clock=clock, jitter=0), asyncio.Event(), []

        async def compute() -> int:
            begun.append(1)
            await go_on.wait()
            return 1

        for n in range(400):
            await cache.aget_or_compute(f"s{n}", _zero, ttl=1, stale_while_revalidate=60)
        clock.advance(2)
        stale = [
            await cache.aget_or_compute(f"s{n}", compute, ttl=1, stale_while_revalidate=60)
            for n in range(400)
        ]
        assert stale == [0] * 400
        await asyncio.sleep(0)
        under_way = len(begun)
        go_on.set()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        return under_way

    assert 0 < asyncio.run(scenario()) <= 32


async def _zero() -> int:
    return 0


def test_those_who_compute_something_themselves_take_over_one_by_one_too() -> None:
    cache = MemoryCache()
    begun: list[int] = []
    again = threading.Event()

    def slow() -> int:
        begun.append(1)
        if len(begun) > 1:
            again.set()
        assert again.wait(10)
        return 7

    def outer(number: int) -> int:
        return cache.get_or_compute(
            f"outer{number}", lambda: cache.get_or_compute("inner", slow, compute_wait=0.5)
        )

    with ThreadPoolExecutor(30) as pool:
        assert {answer.result(20) for answer in [pool.submit(outer, n) for n in range(30)]} == {7}
    assert len(begun) in {2, 3}
