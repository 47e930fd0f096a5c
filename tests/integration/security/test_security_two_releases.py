"""Two releases side by side, each with its limits, on one Redis: neither spoils what the other has counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mks_hardening.security import RateLimiter

pytestmark = pytest.mark.redis

Sides = tuple[RateLimiter, RateLimiter]

TIGHTENED = [
    ("100 per hour", "10 per hour"),
    ("1000 per hour", "200 per hour"),
    ("200 per hour", "50 per hour"),  # counted exactly up to 100, in sliding windows above
    ("20 per hour; 300 per day", "10 per hour; 90 per day"),
    ("50 per hour", "50 per hour; 500 per day"),
]


@pytest.fixture
def two(make_redis: Any) -> Iterator[Any]:
    with ExitStack() as stack:

        def make(blue: str, green: str, strategy: Any = "auto") -> Sides:
            server = make_redis()
            made = [
                stack.enter_context(
                    RateLimiter({"g": limits}, storage=server.url, store_budget=5, strategy=strategy)
                )
                for limits in (blue, green)
            ]
            return made[0], made[1]

        yield make


def used(limiter: RateLimiter) -> int:
    limit = limiter.groups["g"][0]
    return limit.quota - limiter.test("g", "k").remaining[0]


def passed(limiter: RateLimiter, tries: int) -> int:
    return sum(bool(limiter.hit("g", "k")) for _ in range(tries))


@pytest.mark.parametrize("strategy", ["auto", "fixed-window"])
@pytest.mark.parametrize(("blue", "green"), TIGHTENED)
def test_hits_of_both_count_in_both(two: Any, blue: str, green: str, strategy: str) -> None:
    looser, tighter = two(blue, green, strategy)
    quota = looser.groups["g"][0].quota
    together = 0
    for _ in range(20):
        together += passed(tighter, 2) + passed(looser, 3)
        assert used(looser) == min(together, quota)
        assert used(tighter) == min(together, tighter.groups["g"][0].quota)
    together += passed(looser, quota)
    assert together == quota
    assert passed(tighter, 1) == 0


@pytest.mark.parametrize("strategy", ["auto", "exact-window", "sliding-window", "fixed-window", "gcra"])
@pytest.mark.parametrize(
    ("blue", "green"), [("100 per day", "10 per minute"), ("1000 per day", "200 per minute")]
)
def test_a_shorter_window_ends_no_count_of_a_longer_one(
    two: Any, blue: str, green: str, strategy: str
) -> None:
    longer, shorter = two(blue, green, strategy)
    before = passed(longer, 5)
    assert passed(shorter, 1) == 1
    assert longer.test("g", "k").remaining[0] <= longer.groups["g"][0].quota - before
    storage: Any = longer._storage.server
    kept = [storage._client.call("PTTL", key) for key in storage._keys(storage._of("g", ()), "k")[:2]]
    enough = 3_600_000 if strategy != "gcra" else 5 * 86  # GCRA keeps what is ahead alone
    assert max(kept) > enough


@pytest.mark.parametrize(("blue", "green"), TIGHTENED)
def test_what_one_gives_back_is_given_back_in_both(two: Any, blue: str, green: str) -> None:
    looser, tighter = two(blue, green)
    assert passed(tighter, 1) == passed(looser, 1) == 1
    for limiter in (looser, tighter):
        for _ in range(5):
            limiter.reserve("g", "k").cancel()
    assert used(looser) == used(tighter) == 2
