"""The pace of outgoing calls: one schedule, in turn, and no turn that comes too late."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening import events
from mks_hardening._core import hooks
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, PaceTimeoutError
from mks_hardening.security import Limit, RateLimiter
from mks_hardening.security._membership import Announcement, Membership
from mks_hardening.security.rate_limits._schedule import PaceSchedule, WantedTurn
from mks_hardening.testing import FrozenClock
from turns import turn

TEN: Any = {"mail": Limit("second", 10, 1.0)}


def waiting(limiter: RateLimiter, *args: Any, **options: Any) -> Any:
    made = limiter.pace(*args, **options)
    made._waited = True
    return made._operation()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


def test_turns_come_evenly_and_in_order(clock: FrozenClock) -> None:
    limiter = RateLimiter(TEN, clock=clock)
    assert [turn(limiter, "mail") for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert turn(limiter, "mail", "another host") == 0
    clock.advance(0.25)
    assert [turn(limiter, "mail") for _ in range(2)] == pytest.approx([0.15, 0.25])
    clock.advance(60)
    assert [turn(limiter, "mail") for _ in range(2)] == pytest.approx([0, 0.1])  # nothing is saved up


def test_the_slowest_limit_sets_the_pace(clock: FrozenClock) -> None:
    limiter = RateLimiter({"mail": [Limit("s", 10, 1.0), Limit("m", 60, 60.0)]}, clock=clock)
    assert [turn(limiter, "mail") for _ in range(3)] == pytest.approx([0, 1, 2])


def test_cost_makes_room_behind_a_call(clock: FrozenClock) -> None:
    limiter = RateLimiter(TEN, clock=clock)
    assert [turn(limiter, "mail", cost=cost) for cost in (5, 1, 20, 1)] == pytest.approx([0, 0.5, 0.6, 2.6])


def test_a_burst_after_a_pause(clock: FrozenClock) -> None:
    limiter = RateLimiter(TEN, clock=clock)
    assert [turn(limiter, "mail", burst=3) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.2])
    clock.advance(0.4)
    assert [turn(limiter, "mail", burst=3) for _ in range(3)] == pytest.approx([0, 0, 0.1])


def test_a_turn_that_comes_too_late_is_refused_and_reserves_nothing(clock: FrozenClock) -> None:
    limiter = RateLimiter(TEN, clock=clock)
    assert [turn(limiter, "mail", timeout=0.2) for _ in range(3)] == pytest.approx([0, 0.1, 0.2])
    for _ in range(3):
        with pytest.raises(PaceTimeoutError) as raised:
            turn(limiter, "mail", timeout=0.2)
        assert (raised.value.group, raised.value.wait) == ("mail", pytest.approx(0.3))
        assert isinstance(raised.value, TimeoutError)
    assert turn(limiter, "mail", timeout=0.3) == pytest.approx(0.3)


def test_who_is_interrupted_gives_the_turn_up_unless_others_have_come(clock: FrozenClock) -> None:
    limiter = RateLimiter(TEN, clock=clock)
    turn(limiter, "mail")
    last = waiting(limiter, "mail")
    next(last)
    with pytest.raises(KeyboardInterrupt):
        last.throw(KeyboardInterrupt())
    first, second = waiting(limiter, "mail"), waiting(limiter, "mail")
    assert next(first)._seconds == pytest.approx(0.1)
    assert next(second)._seconds == pytest.approx(0.2)
    with pytest.raises(KeyboardInterrupt):
        first.throw(KeyboardInterrupt())
    assert turn(limiter, "mail") == pytest.approx(0.3)  # a gap is not filled: others know their turns


@given(
    quota=st.integers(1, 20),
    window=st.integers(1, 1000),
    calls=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 3)), max_size=40),
)
def test_no_window_holds_more_than_its_limit(quota: int, window: int, calls: Any) -> None:
    clock = FrozenClock()
    limiter = RateLimiter({"g": Limit("l", quota, window / 1000)}, clock=clock)
    starts, before = [], -1.0
    for gap, cost in calls:
        clock.advance(gap / 1000)
        at = clock.monotonic() + turn(limiter, "g", cost=cost, timeout=10_000)
        assert at >= before  # first come, first served
        before = at
        starts.append((at, cost))
    for at, _ in starts:
        inside = [cost for other, cost in starts if at <= other < at + window / 1000 - 1e-5]
        assert sum(inside) - inside[-1] < quota  # what goes out last may cost more than is left


def test_waiting_in_threads_and_coroutines() -> None:
    limiter = RateLimiter({"g": "1000 per second"})
    answers = [limiter.pace("g").wait() for _ in range(3)]
    assert answers[0] == 0
    assert all(0 <= answer <= 1 for answer in answers)

    async def call() -> float:
        return await limiter.pace("g")

    async def play() -> list[float]:
        return await asyncio.gather(*(call() for _ in range(5)))

    waits = asyncio.run(play())
    assert waits == sorted(waits)
    assert len(set(waits[1:])) == 4


def test_cancelled_coroutines_give_their_turn_up(clock: FrozenClock) -> None:
    limiter = RateLimiter({"g": "1 per minute"}, clock=clock)

    async def play() -> None:
        assert await limiter.pace("g") == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await limiter.pace("g", timeout=1000)
        assert turn(limiter, "g", timeout=1000) == pytest.approx(60)

    asyncio.run(play())


def test_a_turn_nobody_waits_for_is_told_of() -> None:
    limiter = RateLimiter(TEN)
    with pytest.warns(ResourceWarning, match="never awaited"):
        limiter.pace("mail")
    waited = limiter.pace("mail")
    waited.wait()
    assert repr(waited) == "Turn('mail')"


def test_exempt_calls_do_not_wait(clock: FrozenClock) -> None:
    limiter = RateLimiter(TEN, clock=clock, exempt=lambda group, key: key == "inside")
    assert [turn(limiter, "mail", "inside") for _ in range(5)] == [0] * 5


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (("nope",), {}),
        (("mail", b"k"), {}),
        (("mail",), {"cost": 0}),
        (("mail",), {"cost": 1.5}),
        (("mail",), {"burst": 0}),
        (("mail",), {"timeout": -1}),
        (("mail",), {"timeout": float("inf")}),
    ],
)
def test_impossible_calls_are_refused(args: Any, options: Any) -> None:
    with pytest.raises(ConfigurationError):
        RateLimiter(TEN).pace(*args, **options)


# --- a storage that is away ----------------------------------------------------------------------


class Shared:
    """A schedule for all, as long as it answers."""

    def __init__(self, clock: FrozenClock) -> None:
        self.away = False
        self.workers, self.number, self.life = 4, 0, 1
        self.inner = PaceSchedule(None, None, clock)

    def in_doubt(self) -> bool:
        return False

    def reserve(self, rules: Any, key: str, wanted: Any, *, known: int) -> Any:
        self._answer()
        yield from ()
        place = rules.name, key
        self.inner._till[place] = max(self.inner._till.get(place, 0), self.inner._now() + known)
        return self.inner._reserve_locally(rules.name, key, wanted)

    def announce(self, *_: Any) -> Any:
        self._answer()
        yield from ()
        return Announcement(self.workers, self.number, self.life, self.workers)

    def _answer(self) -> None:
        if self.away:
            raise BackendUnavailableError("redis", "refused")


def site(clock: FrozenClock, policy: Any = "local") -> Any:
    limiter: Any = RateLimiter(TEN, clock=clock, on_unavailable=policy)
    limiter.shared = Shared(clock)
    limiter._storage.schedule = PaceSchedule(
        limiter.shared, Membership(limiter.shared.announce, clock), clock
    )
    return limiter


def test_each_process_goes_on_at_its_share_of_the_pace(clock: FrozenClock) -> None:
    limiter = site(clock)
    assert [turn(limiter, "mail") for _ in range(3)] == pytest.approx([0, 0.1, 0.2])
    limiter.shared.away = True
    assert [turn(limiter, "mail") for _ in range(3)] == pytest.approx([0.3, 0.7, 1.1])
    with pytest.raises(PaceTimeoutError):
        turn(limiter, "mail", timeout=1)


def test_a_storage_that_has_forgotten_is_told(clock: FrozenClock) -> None:
    limiter = site(clock)
    assert [turn(limiter, "mail") for _ in range(9)][-1] == pytest.approx(0.8)
    limiter.shared.inner._till.clear()
    assert turn(limiter, "mail") == pytest.approx(0.8, abs=0.11)


def test_the_other_policies(clock: FrozenClock) -> None:
    seen: list[Any] = []
    free, closed = site(clock, "open"), site(clock, "closed")
    free.shared.away = closed.shared.away = True
    hooks.add_observer(seen.append)
    try:
        assert [turn(free, "mail") for _ in range(5)] == [0] * 5
        with pytest.raises(BackendUnavailableError):
            turn(closed, "mail")
    finally:
        hooks.remove_observer(seen.append)
    assert seen == [events.RateLimitDecided("mail", allowed=True, source="open")] * 5


def test_schedules_are_bounded(clock: FrozenClock) -> None:
    schedule = RateLimiter(TEN, clock=clock)._storage.schedule
    with schedule._lock:
        for number in range(100_010):
            schedule._remember(("mail", str(number)), number)
    assert len(schedule._till) == 100_000


def test_threads_have_turns_of_their_own(clock: FrozenClock) -> None:
    limiter = RateLimiter(TEN, clock=clock)
    schedule, rules, waits = limiter._storage.schedule, limiter._groups["mail"], []
    wanted = WantedTurn(spacing=100_000, cost=1, burst=1, longest=100_000_000)

    def call() -> None:
        place = schedule._reserve_locally(rules.name, "", wanted)
        waits.append((place.start - place.now) / 1e6)

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == pytest.approx([number / 10 for number in range(20)])
