import asyncio
import inspect
import json
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mks_hardening import events
from mks_hardening._core import hooks
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, RateLimitExceededError
from mks_hardening.security import (
    DEFAULT_RATE_LIMITS,
    Decision,
    Limit,
    LimitState,
    RateLimiter,
    rate_limit_headers,
    rate_limit_problem,
)
from mks_hardening.security._membership import Announcement
from mks_hardening.security.rate_limits._keys import bounded_key, encode_group, encode_key
from mks_hardening.security.rate_limits._memory_counters import MemoryCounters
from mks_hardening.security.rate_limits._redis_storage import RedisStorage
from mks_hardening.security.rate_limits._windows import WindowCount, counter_for
from mks_hardening.testing import FlakyRedis, FrozenClock

STRATEGIES = ["exact-window", "sliding-window", "fixed-window", "gcra"]


@pytest.fixture
def clock() -> Any:
    return FrozenClock()


@pytest.fixture
def seen() -> Iterator[Any]:
    events = []
    hooks.add_observer(events.append)
    yield events
    hooks.remove_observer(events.append)


def limiter(clock: FrozenClock, spec: Any = "5 per minute", **options: Any) -> Any:
    return RateLimiter({"g": spec}, clock=clock, **options)


# --- what is allowed -----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_exactly_the_quota_passes_and_then_again(clock: FrozenClock, strategy: str) -> None:
    one = limiter(clock, strategy=strategy)
    assert [bool(one.hit("g", "k")) for _ in range(7)] == [True] * 5 + [False] * 2
    assert one.hit("g", "other")
    clock.advance(120)
    assert [bool(one.hit("g", "k")) for _ in range(6)] == [True] * 5 + [False]


def test_a_hit_exactly_one_window_old_does_not_count(clock: FrozenClock) -> None:
    one = limiter(clock, "1 per minute")
    assert one.hit("g", "k")
    clock.advance(59.999)
    assert one.hit("g", "k").retry_after == pytest.approx(0.001)
    clock.advance(0.001)
    assert one.hit("g", "k")


def test_no_window_holds_more_than_the_quota_across_an_edge(clock: FrozenClock) -> None:
    one = limiter(clock, "20 per minute")
    clock.advance(59)
    assert sum(bool(one.hit("g", "k")) for _ in range(40)) == 20
    clock.advance(2)
    assert sum(bool(one.hit("g", "k")) for _ in range(40)) == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_refused_hit_takes_nothing_anywhere(clock: FrozenClock, strategy: str) -> None:
    one = limiter(clock, "5 per minute, 8 per hour", strategy=strategy)
    assert sum(bool(one.hit("g", "k")) for _ in range(20)) == 5
    assert one.test("g", "k").remaining == (0, 3)
    clock.advance(120)
    assert sum(bool(one.hit("g", "k")) for _ in range(20)) >= 3
    minute_left = one.test("g", "k").remaining[0]
    refused = one.hit("g", "k", cost=minute_left) if minute_left else None
    assert not refused
    assert one.test("g", "k").remaining[0] == minute_left


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_costly_hit_that_is_refused_takes_nothing(clock: FrozenClock, strategy: str) -> None:
    one = limiter(clock, "10 per minute", strategy=strategy)
    assert [bool(one.hit("g", "k", cost=cost)) for cost in (8, 5, 1, 1, 1)] == [
        True,
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_decision(clock: FrozenClock, strategy: str) -> None:
    one = limiter(clock, [Limit("burst", 2, 10.0), Limit("steady", 3, 60.0)], strategy=strategy)
    first = one.hit("g", "k")
    assert first.allowed
    assert first.limits == (Limit("burst", 2, 10.0), Limit("steady", 3, 60.0))
    assert first.remaining == (1, 2)
    assert first.retry_after is None
    assert first.breached == ()
    one.hit("g", "k")
    refused = one.hit("g", "k")
    assert not refused
    assert refused.breached == ("burst",)
    assert refused.remaining == (0, 1)
    assert 0 < refused.retry_after <= 20
    assert all(reset > 0 for reset in refused.reset_after)


def test_retry_after_is_the_longest_wait_of_those_that_refuse(clock: FrozenClock) -> None:
    one = limiter(clock, "1 per minute, 1 per hour")
    one.hit("g", "k")
    refused = one.hit("g", "k")
    assert refused.retry_after == 3600
    assert refused.breached == ("minute", "hour")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_test_does_not_count(clock: FrozenClock, strategy: str) -> None:
    one = limiter(clock, strategy=strategy)
    for _ in range(20):
        assert one.test("g", "k").remaining == (5,)
    assert one.hit("g", "k").remaining == (4,)
    assert not one.test("g", "k", cost=5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_reset(clock: FrozenClock, strategy: str) -> None:
    one = limiter(clock, strategy=strategy)
    one.hit("g", "k", cost=5)
    one.hit("g", "l", cost=5)
    one.reset("g", "k")
    assert one.hit("g", "k")
    assert not one.hit("g", "l")


def test_auto_counts_small_quotas_exactly_and_large_ones_by_windows(clock: FrozenClock) -> None:
    one = limiter(clock, "100 per minute, 101 per hour")
    counter = one._storage.counters._fresh("g", "k", one._groups["g"].limits)
    assert [type(part).__name__ for part in counter._parts] == ["ExactWindow", "SlidingWindow"]


def test_threads_share_one_count(clock: FrozenClock) -> None:
    one = limiter(clock, "100 per minute")
    barrier = threading.Barrier(16)

    def work(_: Any) -> Any:
        barrier.wait()
        return sum(bool(one.hit("g", "k")) for _ in range(40))

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(work, range(16))) == 100


def test_the_wall_clock_does_not_matter_in_memory(clock: FrozenClock) -> None:
    one = limiter(clock, "1 per minute")
    assert one.hit("g", "k")
    clock.step_wall(3600)
    assert not one.hit("g", "k")


def test_keys_are_bounded_and_the_ones_in_use_stay(clock: FrozenClock) -> None:
    counters = MemoryCounters(strategy="auto", clock=clock, max_keys=10)
    limits = [Limit("minute", 2, 60.0)]
    for number in range(100):
        counters.hit("g", "hot", limits, cost=1)
        counters.hit("g", f"k{number}", limits, cost=1)
    assert len(counters._counters) == 10
    assert counters.test("g", "hot", limits, cost=1).remaining[0] == 0
    remaining = [counters.hit("g", "new", limits, cost=1).remaining[0] for _ in range(3)]
    assert remaining == [1, 0, 0]
    assert len(counters._counters) == 10


# --- reservations --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_failures_count(clock: FrozenClock, strategy: str) -> None:
    one = limiter(clock, strategy=strategy)
    for _ in range(20):
        reservation = one.reserve("g", "k")
        assert reservation
        reservation.cancel()
        reservation.cancel()
    for _ in range(5):
        assert one.reserve("g", "k")
    refused = one.reserve("g", "k")
    assert not refused
    refused.cancel()
    assert not one.hit("g", "k")


def test_a_reservation_shows_its_decision_and_is_its_truth(clock: FrozenClock) -> None:
    one = limiter(clock, "1 per minute")
    first, second = one.reserve("g", "k"), one.reserve("g", "k")
    assert (bool(first), bool(second)) == (True, False)
    assert second.decision.breached == ("minute",)
    assert repr(second) == f"Reservation({second.decision!r})"


def test_parallel_attempts_do_not_exceed_the_limit_by_reserving(clock: FrozenClock) -> None:
    one = limiter(clock)
    held = [one.reserve("g", "k") for _ in range(32)]
    assert sum(bool(reservation) for reservation in held) == 5
    for reservation in held:
        reservation.cancel()
    assert one.test("g", "k").remaining == (5,)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cost_of_nothing_only_looks(clock: FrozenClock, strategy: str) -> None:
    one = limiter(clock, strategy=strategy)
    for taken in range(6):
        for look in (one.hit("g", "k", cost=0), one.test("g", "k", cost=0)):
            assert look
            assert look.remaining == (5 - taken,)
        assert bool(one.reserve("g", "k", cost=0))
        one.hit("g", "k")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cost_above_a_quota_never_passes_and_takes_nothing(clock: FrozenClock, strategy: str) -> None:
    one = limiter(clock, "5 per minute, 9 per hour", strategy=strategy)
    for ask in (one.hit, one.test):
        refused = ask("g", "k", cost=6)
        assert not refused
        assert refused.retry_after is None
        assert refused.breached == ("minute",)
    assert not one.reserve("g", "k", cost=10)
    assert one.hit("g", "k", cost=10).breached == ("minute", "hour")
    assert one.test("g", "k").remaining == (5, 9)


@pytest.mark.parametrize("key", ["", "x" * 257, "x" * 100_000, "\udc80", "\0", "現場", "a\r\nb"])
def test_any_text_is_a_key_of_its_own(clock: FrozenClock, key: str) -> None:
    one = limiter(clock)
    assert one.hit("g", key).remaining == (4,)
    assert one.hit("g", key).remaining == (3,)
    assert one.hit("g", key + "x").remaining == (4,)
    assert max(len(kept) for _, kept in one._storage.counters._counters) < 300
    one.reset("g", key)
    assert one.hit("g", key).remaining == (4,)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_given_back_late_frees_nothing_else(clock: FrozenClock, strategy: str) -> None:
    one = limiter(clock, strategy=strategy)
    late = one.reserve("g", "k", cost=3)
    clock.advance(180)
    one.hit("g", "k", cost=5)
    late.cancel()
    assert not one.hit("g", "k", cost=4)


# --- decorator -----------------------------------------------------------------------------------


def test_decorator(clock: FrozenClock) -> None:
    one = limiter(clock, "2 per minute")

    @one.limit("g", key=lambda user, **_: user)
    def greet(user: Any, *, times: Any = 1) -> Any:
        """Say hello."""
        return f"hello {user}" * times

    assert greet.__name__ == "greet"
    assert greet.__doc__ == "Say hello."
    assert greet("a") == "hello a"
    assert greet("a", times=2) == "hello ahello a"
    with pytest.raises(RateLimitExceededError) as caught:
        greet("a")
    assert caught.value.group == "g"
    assert dict(rate_limit_headers(caught.value.decision))["Retry-After"] == "60"
    assert greet("b") == "hello b"
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert again.decision == caught.value.decision


def test_decorator_of_coroutines(clock: FrozenClock) -> None:
    one = limiter(clock, "2 per minute")

    @one.limit("g", key=lambda user: user)
    async def greet(user: str) -> str:
        return f"hello {user}"

    async def play() -> None:
        assert await greet("a") == "hello a"
        refused_later = greet("a"), greet("a")
        assert await refused_later[0] == "hello a"
        with pytest.raises(RateLimitExceededError):
            await refused_later[1]

    assert inspect.iscoroutinefunction(greet)
    asyncio.run(play())


def test_decorating_with_an_unknown_group_fails_at_once(clock: FrozenClock) -> None:
    with pytest.raises(ConfigurationError):
        limiter(clock).limit("nope", key=str)


# --- outages -------------------------------------------------------------------------------------


class Server:
    """What all fakes of a shared storage have in common."""

    is_probed = False

    def in_doubt(self) -> bool:
        return False


def over(limiter: Any, server: Server, clock: FrozenClock) -> Any:
    """The limiter, with its counts in this storage."""
    limiter._storage = RedisStorage(
        server,  # type: ignore[arg-type]  # a fake
        limiter._groups,
        strategy="auto",
        clock=clock,
    )
    return limiter


class Away(Server):
    """Counters of a backend that does not answer."""

    def __init__(self) -> None:
        self.away = True
        self.calls = 0

    def __getattr__(self, name: Any) -> Any:
        def refuse(*args: Any, **kwargs: Any) -> None:
            self.calls += 1
            raise BackendUnavailableError("redis", "refused", retry_after=2.5)

        return refuse


class Present(Server):
    """Counters of a backend that has room for everything."""

    def announce(self, *_: Any) -> Any:
        yield from ()
        return Announcement(1, 0, 1, 1)

    def hit(self, group: str, key: str, limits: Any, *, cost: int, **_: Any) -> Any:
        count = WindowCount([limit.quota - cost for limit in limits], [1] * len(limits), [0] * len(limits), 1)
        return SimpleNamespace(run=lambda: count)


def away(clock: FrozenClock, **options: Any) -> Any:
    one = RateLimiter({"g": "5 per minute", "h": "5 per minute"}, clock=clock, **options)
    return over(one, Away(), clock)


def test_local_still_limits(clock: FrozenClock, seen: list[Any]) -> None:
    one = away(clock)
    assert sum(bool(one.hit("g", "k")) for _ in range(20)) == 5
    assert one.test("g", "k").remaining == (0,)
    assert {event.source for event in seen if isinstance(event, events.RateLimitDecided)} == {"local"}


def test_open_allows(clock: FrozenClock, seen: list[Any]) -> None:
    one = away(clock, on_unavailable="open")
    decision = one.hit("g", "k")
    assert decision == Decision(allowed=True, limits=decision.limits, remaining=(5,), reset_after=(0.0,))
    assert all(one.hit("g", "k") for _ in range(20))
    assert one.test("g", "k")
    assert seen[0] == events.RateLimitDecided("g", allowed=True, source="open")


def test_closed_refuses(clock: FrozenClock, seen: list[Any]) -> None:
    one = away(clock, on_unavailable="closed")
    decision = one.hit("g", "k")
    assert not decision
    assert decision.retry_after == 2.5
    assert decision.breached == ("minute",)
    assert not one.reserve("g", "k")
    assert not one.test("g", "k")
    assert seen[0] == events.RateLimitDecided("g", allowed=False, source="closed")


def test_policy_by_group(clock: FrozenClock) -> None:
    one = away(clock, on_unavailable={"g": "closed"})
    assert not one.hit("g", "k")


def test_a_local_reservation_is_given_back_locally(clock: FrozenClock) -> None:
    one = away(clock)
    for _ in range(20):
        reservation = one.reserve("g", "k")
        assert reservation
        reservation.cancel()


def test_a_reservation_that_cannot_be_given_back_stays_counted(clock: FrozenClock) -> None:
    one = limiter(clock)
    over(one, Present(), clock)
    reservation = one.reserve("g", "k")
    assert reservation
    away = one._storage.server = Away()
    reservation.cancel()
    reservation.cancel()
    assert away.calls == 1


def test_reset_says_when_it_could_not(clock: FrozenClock) -> None:
    with pytest.raises(BackendUnavailableError):
        away(clock).reset("g", "k")


def test_dry_run_reports_and_allows(clock: FrozenClock, seen: list[Any]) -> None:
    one = limiter(clock, "1 per minute", dry_run=["g"])
    assert one.hit("g", "k").breached == ()
    decision = one.hit("g", "k")
    assert decision
    assert decision.breached == ("minute",)
    assert decision.retry_after is None
    assert seen[-1] == events.RateLimitDecided("g", allowed=False, source="backend", dry_run=True)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "limits"),
    [
        ("5 per minute", [("minute", 5, 60.0)]),
        (
            "5/second; 20 per hour,100 per day",
            [("second", 5, 1.0), ("hour", 20, 3600.0), ("day", 100, 86400.0)],
        ),
        ("10 per 2 hours", [("7200s", 10, 7200.0)]),
        (Limit("x", 1, 2.5), [("x", 1, 2.5)]),
        (["1 per minute", Limit("y", 2, 60.0)], [("minute", 1, 60.0), ("y", 2, 60.0)]),
    ],
)
def test_ways_to_write_limits(clock: FrozenClock, spec: Any, limits: Any) -> None:
    assert list(limiter(clock, spec).test("g", "k").limits) == limits


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "five per minute",
        "5 per fortnight",
        "0 per minute",
        [],
        ["1 per minute", "2 per minute"],
        Limit("x", 0, 60.0),
        Limit("x", -1, 60.0),
        Limit("x", True, 60.0),
        Limit("x", 1, 0),
        Limit("x", 1, float("nan")),
        Limit("x", 1, float("inf")),
        Limit('x"y', 1, 60.0),
        Limit("名", 1, 60.0),
        Limit("a\r\nSet-Cookie: x", 1, 60.0),
        Limit("x", 1_000_001, 60.0),
        Limit("x", 1, 0.0009),
        Limit("x", 1, 366 * 86400.0 + 1),
    ],
)
def test_impossible_limits(clock: FrozenClock, spec: Any) -> None:
    with pytest.raises(ConfigurationError):
        limiter(clock, spec)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("strategy", "fixed-window-elastic-expiry"),
        ("on_unavailable", "ignore"),
        ("on_unavailable", {"g": "ignore"}),
        ("on_unavailable", {"nope": "open"}),
        ("dry_run", ["nope"]),
        ("storage", "memcached://localhost"),
        ("storage", ""),
    ],
)
def test_impossible_options(clock: FrozenClock, parameter: str, value: Any) -> None:
    with pytest.raises(ConfigurationError):
        limiter(clock, **{parameter: value})


@pytest.mark.parametrize(
    ("group", "key", "cost"),
    [
        ("nope", "k", 1),
        ("g", None, 1),
        ("g", 7, 1),
        ("g", b"k", 1),
        ("g", "k", -1),
        ("g", "k", 1.5),
        ("g", "k", True),
    ],
)
def test_impossible_hits_are_errors_at_once(clock: FrozenClock, group: Any, key: Any, cost: Any) -> None:
    one = limiter(clock)
    for call in (one.hit, one.test, one.reserve):
        with pytest.raises(ConfigurationError):
            call(group, key, cost=cost)
    assert one.test("g", "k").remaining == (5,)


def test_defaults_are_usable_without_the_limits_package(
    clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "limits", None)
    one = RateLimiter(DEFAULT_RATE_LIMITS, clock=clock)
    assert sum(bool(one.hit("auth_login", "k")) for _ in range(9)) == 5


def test_defaults() -> None:
    written = {
        group: ", ".join(f"{limit.quota} per {limit.name}" for limit in limits)
        for group, limits in DEFAULT_RATE_LIMITS.items()
    }
    assert written == {
        "auth_login": "5 per minute, 20 per hour, 100 per day",
        "auth_register": "3 per hour, 10 per day",
        "auth_password_reset": "3 per hour",
        "auth_2fa_verify": "10 per minute, 50 per hour",
        "search": "30 per minute, 500 per hour",
        "api_read": "100 per minute, 5000 per hour",
        "api_write": "20 per minute, 200 per hour",
        "api_delete": "10 per minute, 100 per hour",
        "admin": "200 per minute",
        "file_upload": "5 per minute, 50 per hour",
    }
    lengths = {limit.name: limit.window for limits in DEFAULT_RATE_LIMITS.values() for limit in limits}
    assert lengths == {"minute": 60.0, "hour": 3600.0, "day": 86400.0}


@pytest.mark.parametrize("window", [0.001, 366 * 86400.0])
@pytest.mark.parametrize("quota", [1, 1_000_000])
def test_limits_at_the_edge_of_what_is_possible(clock: FrozenClock, quota: int, window: float) -> None:
    assert limiter(clock, Limit("x", quota, window)).hit("g", "k").remaining == (quota - 1,)


def test_a_decision_can_be_built_by_hand() -> None:
    limit = Limit("minute", 5, 60.0)
    assert Decision.of([LimitState(limit, 4, 60.0)]) == Decision(
        allowed=True, limits=(limit,), remaining=(4,), reset_after=(60.0,)
    )
    assert Decision.of([LimitState(limit, 0, 60.0, 7.0)]) == Decision(
        allowed=False,
        limits=(limit,),
        remaining=(0,),
        reset_after=(60.0,),
        retry_after=7.0,
        breached=("minute",),
    )


def test_a_limiter_is_a_context_manager(clock: FrozenClock) -> None:
    with limiter(clock) as one:
        assert one.hit("g", "k")
    one.close()
    assert repr(one) == "RateLimiter(groups=['g'])"


def test_the_async_methods_are_the_same_limiter(clock: FrozenClock) -> None:
    one = limiter(clock)

    async def play() -> None:
        assert (await one.ahit("g", "k")).remaining == (4,)
        reservation = await one.areserve("g", "k", cost=2)
        assert reservation
        assert (await one.atest("g", "k")).remaining == (2,)
        await reservation.acancel()
        await reservation.acancel()
        assert (await one.atest("g", "k")).remaining == (4,)
        await one.areset("g", "k")
        await one.aclose()

    asyncio.run(play())
    assert one.hit("g", "k").remaining == (4,)


@pytest.mark.parametrize(("policy", "passed"), [("local", 5), ("open", 20), ("closed", 0)])
def test_the_async_methods_know_the_policies(clock: FrozenClock, policy: Any, passed: int) -> None:
    one = away(clock, on_unavailable=policy)

    async def play() -> int:
        return sum([bool(await one.ahit("g", "k")) for _ in range(20)])

    assert asyncio.run(play()) == passed


def test_a_fake_is_asked_in_a_thread_on_an_event_loop(clock: FrozenClock) -> None:
    """As in a user's tests: it has no asynchronous side."""
    where: list[threading.Thread] = []

    class Fake(FlakyRedis):
        def execute_command(self, *args: Any, **options: Any) -> Any:
            where.append(threading.current_thread())
            return super().execute_command(*args, **options)

    one = limiter(clock, "2 per minute", storage=Fake(), on_unavailable="closed", store_budget=5)

    @one.limit("g", key=lambda: "k")
    async def work() -> str:
        return "done"

    async def play() -> list[Any]:
        return [await work(), (await one.ahit("g", "k")).remaining, bool(await one.ahit("g", "k"))]

    assert asyncio.run(play()) == ["done", (0,), False]
    assert threading.main_thread() not in where
    asyncio.run(one.aclose())


# --- exemption, and who is near a limit -------------------------------------------------------------


def test_an_exempt_key_is_neither_counted_nor_refused(clock: FrozenClock, seen: list[Any]) -> None:
    one = limiter(clock, exempt=lambda group, key: (group, key) == ("g", "monitor"))
    for _ in range(20):
        assert one.hit("g", "monitor").remaining == (5,)
        assert one.reserve("g", "monitor", cost=50)
        assert one.test("g", "monitor", cost=50)
    assert seen[0] == events.RateLimitDecided("g", allowed=True, source="exempt")
    assert sum(bool(one.hit("g", "k")) for _ in range(20)) == 5
    assert asyncio.run(one.ahit("g", "monitor"))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("costs", [[1] * 10, [7, 3], [8, 1, 1], [10], [9, 1]])
def test_observers_hear_once_when_a_key_comes_near(
    clock: FrozenClock, seen: list[Any], strategy: str, costs: list[int]
) -> None:
    one = limiter(clock, "10 per minute; 1000 per hour", strategy=strategy)
    used = 0
    for cost in costs:
        one.hit("g", "client typed-as-a-name", cost=cost)
        used += cost
        near = [event for event in seen if isinstance(event, events.RateLimitNear)]
        assert len(near) == (used >= 8)
    assert near[0][:2] == ("g", "minute")
    assert (near[0].quota, near[0].key) == (10, "client typed-as-a-name")
    assert "typed" not in repr(near[0])
    one.hit("g", "client typed-as-a-name")
    one.test("g", "client typed-as-a-name")
    assert [event for event in seen if isinstance(event, events.RateLimitNear)] == near


# --- keys that were just refused ---------------------------------------------------------------------


class Elsewhere(Server):
    """A shared storage that counts exactly and says how often it was asked."""

    def __init__(self, clock: FrozenClock) -> None:
        self.counters = MemoryCounters(strategy="auto", clock=clock)
        self.asked = 0

    announce = Present.announce

    def __getattr__(self, name: str) -> Any:
        def ask(group: str, key: str, limits: Any = (), **rest: Any) -> Any:
            self.asked += 1
            rest.pop("known", None)
            if name in ("hit", "test"):
                return SimpleNamespace(run=lambda: getattr(self.counters, name)(group, key, limits, **rest))
            if name == "give_back":
                return SimpleNamespace(run=lambda: self._give_back(group, key, limits, **rest))
            return self._do(getattr(self.counters, name), group, key, **rest)

        return ask

    def _give_back(self, group: str, key: str, limits: Any, **rest: Any) -> Any:
        self.counters.give_back(group, key, **rest)
        return self.counters.test(group, key, limits, cost=0)

    @staticmethod
    def _do(method: Any, *args: Any, **rest: Any) -> Any:
        yield from ()
        return method(*args, **rest)


def shared(clock: FrozenClock, limits: Any = "5 per minute", **options: Any) -> Any:
    one = limiter(clock, limits, **options)
    return over(one, Elsewhere(clock), clock)


def test_a_refused_key_is_not_asked_for_while_it_is_blocked_anyway(
    clock: FrozenClock, seen: list[Any]
) -> None:
    one = shared(clock)
    first = [one.hit("g", "k") for _ in range(6)][-1]
    asked = one._storage.server.asked
    clock.advance(0.4)
    again = one.hit("g", "k")
    assert not again
    assert again.retry_after == pytest.approx(first.retry_after - 0.4)
    assert again.reset_after == (pytest.approx(first.reset_after[0] - 0.4),)
    assert (again.remaining, again.breached) == (first.remaining, first.breached)
    assert not asyncio.run(one.ahit("g", "k"))
    assert one._storage.server.asked == asked
    assert seen[-1] == events.RateLimitDecided("g", allowed=False, source="remembered")
    assert one.hit("g", "other")


def test_it_opens_exactly_when_the_hit_fits(clock: FrozenClock) -> None:
    one = shared(clock, Limit("moment", 1, 0.5))
    assert one.hit("g", "k")
    assert not one.hit("g", "k")
    clock.advance(0.499)
    assert not one.hit("g", "k")
    clock.advance(0.001)
    assert one.hit("g", "k")


def test_a_larger_hit_is_told_its_own_time(clock: FrozenClock) -> None:
    """Or that it never fits."""
    one = shared(clock, Limit("moment", 2, 10.0))
    assert one.hit("g", "k")
    clock.advance(4)
    assert one.hit("g", "k")
    assert one.hit("g", "k").retry_after == pytest.approx(6)
    assert one.hit("g", "k", cost=2).retry_after == pytest.approx(10)
    assert one.test("g", "k", cost=3).retry_after is None


def test_a_smaller_hit_is_asked_for(clock: FrozenClock) -> None:
    one = shared(clock)
    one.hit("g", "k", cost=3)
    assert not one.hit("g", "k", cost=3)
    assert not one.hit("g", "k", cost=4)
    assert one.hit("g", "k", cost=2)


def test_a_refusal_is_trusted_for_a_second_at_most(clock: FrozenClock) -> None:
    """Another process may have reset the key."""
    one = shared(clock)
    for _ in range(6):
        one.hit("g", "k")
    one._storage.server.counters.reset("g", "k")
    assert not one.hit("g", "k")
    clock.advance(1)
    assert one.hit("g", "k")


@pytest.mark.parametrize("how", ["reset", "cancel", "reserve"])
def test_what_this_process_gives_back_counts_at_once(clock: FrozenClock, how: str) -> None:
    one = shared(clock)
    reservation = one.reserve("g", "k", cost=5)
    assert not one.hit("g", "k")
    if how == "reset":
        one.reset("g", "k")
    elif how == "cancel":
        reservation.cancel()
    else:
        one._storage.server.counters.reset("g", "k")
        assert one.reserve("g", "k")
        return
    assert one.hit("g", "k")


def test_refusals_that_are_remembered_are_bounded(clock: FrozenClock) -> None:
    one = shared(clock, "1 per minute")
    for number in range(10_500):
        one.hit("g", f"k{number}")
        one.hit("g", f"k{number}")
    assert len(one._storage._refusals) <= 10_000


def test_a_dry_run_lets_a_remembered_refusal_pass(clock: FrozenClock) -> None:
    one = shared(clock, "1 per minute", dry_run=["g"])
    for _ in range(5):
        assert one.hit("g", "k")
    assert one.hit("g", "k").breached == ("minute",)


# --- what a refused client reads ---------------------------------------------------------------------


def test_problem_documents(clock: FrozenClock) -> None:
    one = limiter(clock)
    one.hit("g", "k", cost=5)
    clock.advance(0.5)
    refused = one.hit("g", "k")
    assert rate_limit_problem(refused) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too many requests",
        "status": 429,
        "detail": "Try again in 60 seconds.",
        "violated-policies": ["minute"],
    }
    assert (
        rate_limit_problem(refused, language="ja")["detail"]
        == "60 秒ほど待ってから、もう一度お試しください。"
    )
    never = one.hit("g", "k", cost=6)
    assert rate_limit_problem(never)["detail"] == "This request is larger than the limit."
    json.dumps(rate_limit_problem(never, language="ja"))
    with pytest.raises(ConfigurationError):
        rate_limit_problem(refused, language="fr")


# --- where keys are counted ------------------------------------------------------------------------

awkward = st.text(alphabet=st.sampled_from("ab:%{}#\\") | st.characters(), max_size=8)


@given(first=st.tuples(awkward, awkward), second=st.tuples(awkward, awkward))
@example(first=("a", "b:c"), second=("a:b", "c"))
@example(first=("a", "\udc80"), second=("a", "\\udc80"))
@example(first=("a", "%7D"), second=("a", "}"))
def test_no_two_pairs_of_group_and_key_share_a_place(first: Any, second: Any) -> None:
    def place(group: str, key: str) -> str:
        return f"{{{encode_group(group)}:{encode_key(key)}}}"

    assert (place(*first) == place(*second)) == (first == second)
    for whole in (place(*first), place(*second)):
        assert whole.startswith("{")
        assert whole.index("}") == len(whole) - 1  # the hash tag is all of it
        whole.encode("utf-8")


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_bounded_key_is_one_spelling(first: str, second: str) -> None:
    for key in (first, "x" * 200 + second):
        kept = bounded_key(key)
        assert len(kept) < 300
        assert bounded_key(kept) == kept or len(key) > 256
    assert (bounded_key(first) == bounded_key(second)) == (first == second)


def test_a_refused_hit_in_the_next_window_moves_nothing() -> None:
    """The clock steps back over the edge of a window: what was counted there still stands."""
    window = 10_000_000
    counter = counter_for([Limit("l", 1, 10.0)], "sliding-window")
    assert counter.hit(5 * window, 1).taken_at is not None
    assert counter.hit(6 * window, 1).taken_at is None
    assert counter.hit(6 * window - 1, 1).taken_at is None
