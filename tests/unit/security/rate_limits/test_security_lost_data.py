"""Counts that the server has lost are restored from what the processes have seen, and no others."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from losing_redis import LosingRedis
from mks_hardening.security import RateLimiter
from mks_hardening.testing import FrozenClock

STRATEGIES = ["auto", "exact-window", "sliding-window", "fixed-window", "gcra"]
GROUPS = {"g": "10 per hour; 1000 per day"}


class Site:
    """Processes that share one server."""

    def __init__(self, strategy: Any, policy: Any) -> None:
        self.server, self.clock = LosingRedis(), FrozenClock()
        self.one, self.other, self.third = (
            RateLimiter(
                GROUPS,
                storage=self.server,
                store_budget=30,
                strategy=strategy,
                on_unavailable=policy,
                clock=self.clock,
            )
            for _ in range(3)
        )

    def evict(self, kind: str = "*") -> None:
        names = self.server.keys(f"mks:limit:{{g:k}}:{kind}")
        if names:
            self.server.delete(*names)


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["local", "closed"])
def site(request: pytest.FixtureRequest, strategy: Any) -> Site:
    return Site(strategy, request.param)


@pytest.fixture
def move_server_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock of the fake server, which reads ``time.time``."""
    ahead, real = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    def move(seconds: float) -> None:
        ahead[0] += seconds

    return move


def passed(limiter: RateLimiter, tries: int) -> int:
    return sum(bool(limiter.hit("g", "k")) for _ in range(tries))


def used(limiter: RateLimiter) -> list[int]:
    left = limiter.test("g", "k").remaining
    return [limit.quota - one for limit, one in zip(limiter.groups["g"], left, strict=True)]


def test_evicted_counts_are_restored(site: Site) -> None:
    assert passed(site.one, 4) == 4
    site.evict()
    assert passed(site.one, 20) == 6
    assert used(site.other)[0] == 10
    site.evict()
    site.clock.advance(2)  # until the refusal is forgotten
    assert passed(site.one, 20) == 0


def test_the_largest_count_wins_and_later_hits_count_beside_it(site: Site) -> None:
    assert passed(site.one, 2) + passed(site.other, 3) == 5
    site.evict()
    assert passed(site.third, 1) == 1  # it has seen nothing
    assert passed(site.one, 1) + passed(site.other, 1) == 2
    assert used(site.third)[0] == 8
    assert passed(site.one, 1) + passed(site.other, 20) + passed(site.third, 20) == 2


def test_a_part_that_is_evicted(site: Site) -> None:
    """Of a group that is counted in two ways, each way has a key of its own."""
    assert passed(site.one, 4) == 4
    for kind in ("hits", "counts"):
        site.evict(kind)
        assert passed(site.one, 1) == 1
    assert used(site.other) == [6, 6]


def test_what_another_process_has_reset_is_not_restored(site: Site) -> None:
    assert passed(site.one, 10) == 10
    site.other.reset("g", "k")
    site.clock.advance(2)
    assert passed(site.one, 3) == 3
    assert used(site.one) == [3, 3]
    site.evict()
    assert passed(site.one, 20) == 7


def test_what_another_process_has_given_back_is_not_restored(site: Site) -> None:
    reservations = [site.other.reserve("g", "k") for _ in range(10)]
    assert passed(site.one, 1) == 0
    for reservation in reservations:
        reservation.cancel()
    site.clock.advance(2)
    assert passed(site.one, 1) == 1
    assert used(site.one)[0] == 1


def test_what_this_process_has_given_back_is_not_restored(site: Site) -> None:
    assert passed(site.one, 2) == 2
    site.one.reserve("g", "k", cost=5).cancel()
    assert passed(site.one, 1) == 1
    assert used(site.one)[0] == 3


@pytest.mark.parametrize("kind", ["*", "hits", "counts"])
@pytest.mark.parametrize("who", ["one", "other"])
def test_what_is_left_after_hits_are_given_back_is_restored(site: Site, kind: str, who: str) -> None:
    assert passed(site.one, 8) == 8
    getattr(site, who).reserve("g", "k").cancel()
    site.evict(kind)
    assert 1 <= passed(site.one, 20) <= 2  # what was given back may still count if all is lost
    assert 9 <= used(site.third)[0] <= 10


@pytest.mark.parametrize("kind", ["*", "hits", "counts"])
def test_hits_given_back_many_times_between_losses(site: Site, kind: str) -> None:
    total = 0
    for _ in range(5):
        total += passed(site.one, 8)
        site.one.reserve("g", "k").cancel()
        site.evict(kind)
        site.clock.advance(2)
    assert total + passed(site.one, 20) <= 10


@pytest.mark.parametrize("ahead", [3600, 86_400, 7 * 86_400])
def test_a_server_clock_that_is_set_forward_ends_no_window(
    site: Site, move_server_clock: Callable[[float], None], ahead: float
) -> None:
    assert passed(site.other, 2) + passed(site.one, 3) == 5
    move_server_clock(ahead)
    assert 4 <= passed(site.one, 20) + passed(site.other, 20) + passed(site.third, 20) <= 5


def test_a_server_clock_that_is_set_back_ends_no_window(
    site: Site, move_server_clock: Callable[[float], None]
) -> None:
    assert passed(site.one, 5) == 5
    move_server_clock(-3600)
    assert passed(site.other, 20) + passed(site.one, 20) <= 5


def test_a_window_that_has_passed_is_not_restored(
    site: Site, move_server_clock: Callable[[float], None]
) -> None:
    assert passed(site.one, 10) == 10
    for seconds in (7200, 2 * 86_400):
        site.clock.advance(seconds)
        move_server_clock(seconds)
        site.evict()
        assert passed(site.one, 20) == 10
