"""A limit that is changed in operation goes on from what was counted, whichever way it was counted."""

from __future__ import annotations

import pytest

from losing_redis import LosingRedis
from mks_hardening.security import RateLimiter


def opened(server: LosingRedis, limits: str, strategy: str = "auto") -> RateLimiter:
    groups = {"g": limits}
    return RateLimiter(groups, storage=server, strategy=strategy, store_budget=30)  # type: ignore[arg-type]


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


def test_looking_at_a_key_that_was_never_hit_leaves_nothing() -> None:
    server = LosingRedis()
    for limits in ("100 per hour", "150 per hour"):
        assert used(opened(server, limits)) == 0
    assert server.keys("*{g:*") == []
