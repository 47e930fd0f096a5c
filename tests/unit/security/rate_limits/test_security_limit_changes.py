"""A limit that is changed in operation goes on from what was counted, whichever way it was counted."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from losing_redis import LosingRedis
from mks_hardening.security import RateLimiter
from mks_hardening.testing import FrozenClock

CLOCK = FrozenClock()


def opened(server: LosingRedis, limits: str, strategy: str = "auto") -> RateLimiter:
    groups = {"g": limits}
    return RateLimiter(groups, storage=server, strategy=strategy, store_budget=30, clock=CLOCK)  # type: ignore[arg-type]


@pytest.fixture
def pause(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock of the limiters, and that of the fake server, which reads ``time.time``."""
    seconds, real = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds[0])

    def move(more: float) -> None:
        seconds[0] += more
        CLOCK.advance(more)

    return move


def used(limiter: RateLimiter) -> int:
    *_, limit = limiter.groups["g"]
    return limit.quota - limiter.test("g", "k").remaining[-1]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("150 per hour", "100 per hour"),
        ("100 per hour", "101 per hour"),
        ("100 per hour", "150 per hour"),
        ("5 per second; 150 per hour", "5 per second; 100 per hour"),
        ("90 per second; 100 per hour", "90 per second; 150 per hour"),
        ("90 per second; 150 per hour; 1000 per day", "90 per second; 100 per hour; 100 per day"),
    ],
)
def test_a_changed_quota_goes_on_from_what_was_counted(before: str, after: str) -> None:
    server = LosingRedis()
    one, other = opened(server, before), opened(server, after)
    hits = 5 if before.startswith("5 ") else 80
    assert all(one.hit("g", "k") for _ in range(hits))
    assert used(other) == hits
    passed = sum(bool(other.hit("g", "k")) for _ in range(200))
    assert used(other) == hits + passed
    assert used(one) == min(hits + passed, one.groups["g"][-1].quota)


def test_a_refused_key_stays_refused() -> None:
    server = LosingRedis()
    one, other = opened(server, "150 per hour"), opened(server, "100 per hour")
    assert sum(bool(one.hit("g", "k")) for _ in range(200)) == 150
    refused = other.hit("g", "k")
    assert not refused
    assert 0 < (refused.retry_after or 0) <= 3600


@pytest.mark.parametrize(
    "strategies",
    [("exact-window", "sliding-window"), ("sliding-window", "exact-window")],
    ids="-".join,
)
def test_a_changed_strategy_goes_on_from_what_was_counted(strategies: tuple[str, str]) -> None:
    server = LosingRedis()
    one, other = (opened(server, "50 per hour", strategy) for strategy in strategies)
    assert all(one.hit("g", "k", cost=10) for _ in range(3))
    assert other.hit("g", "k", cost=10)
    assert used(other) == used(one) == 40


@pytest.mark.parametrize(
    "limits", [("100 per hour", "101 per hour"), ("5 per day; 100 per hour", "5 per day; 150 per hour")]
)
def test_processes_of_both_configurations_count_together(limits: tuple[str, str]) -> None:
    """While a release rolls out, old and new processes serve the same clients."""
    server = LosingRedis()
    sides = [opened(server, limit) for limit in limits]
    passed = sum(bool(side.hit("g", "k")) for _ in range(150) for side in sides)
    most = max(limiter.groups["g"][-1].quota for limiter in sides)
    assert passed <= most
    assert passed in (5, most)


@pytest.mark.parametrize("starts", ["exact", "sliding"])
@pytest.mark.parametrize("gap", [0.0, 1.5, 70.0])
def test_a_short_window_beside_removes_nothing_of_the_long_one(
    pause: Callable[[float], None], starts: str, gap: float
) -> None:
    """Both releases have a short window that is counted exactly, one also the long window, in the same list."""
    server = LosingRedis()
    exact = opened(server, "20 per second; 100 per day")
    sliding = opened(server, "20 per second; 150 per day")
    passed = 0
    for turn in range(10):
        side = exact if (turn % 2 == 0) == (starts == "exact") else sliding
        passed += sum(bool(side.hit("g", "k")) for _ in range(10))
        pause(1.5)
    pause(gap)
    assert passed == used(sliding) == used(exact) == 100
    assert not exact.hit("g", "k")
    assert [bool(sliding.hit("g", "k")) for _ in range(20)] == [True] * 20
    assert (used(exact), used(sliding)) == (100, 120)


def test_hits_of_the_long_window_count_although_a_list_of_the_short_one_is_there(
    pause: Callable[[float], None],
) -> None:
    server = LosingRedis()
    sliding = opened(server, "20 per second; 150 per day")
    for _ in range(5):
        assert all(sliding.hit("g", "k") for _ in range(20))
        pause(1.5)
    assert sliding.hit("g", "k")
    exact = opened(server, "20 per second; 100 per day")  # starts within the second of that hit
    assert used(exact) == 100
    assert not exact.hit("g", "k")
    pause(86_300)
    assert not exact.hit("g", "k")


def test_looking_at_a_key_that_was_never_hit_leaves_nothing() -> None:
    server = LosingRedis()
    for limits in ("100 per hour", "150 per hour"):
        assert used(opened(server, limits)) == 0
    assert server.keys("*{g:*") == []
