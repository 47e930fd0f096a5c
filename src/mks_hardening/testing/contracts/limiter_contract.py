"""Contract suite for rate limiters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mks_hardening.testing.contracts.contract_checks import DISTINCT_TEXTS, aclosed, at_once, require

if TYPE_CHECKING:
    from mks_hardening.protocols import (
        LimitDecision,
        Limiter,
    )

__all__ = ["LimiterContract"]


class LimiterContract:
    """Required behaviour of every ``Limiter``; derive a test class and implement ``make_limiter``.

    Windows are a minute or longer, so that a test ends within one.
    """

    def make_limiter(self, groups: Mapping[str, str]) -> Limiter:
        """Return a new limiter without any hits, with groups like ``{"g": "3 per minute, 5 per hour"}``."""
        raise NotImplementedError

    def test_the_quota_passes_and_no_more(self) -> None:
        """Each key has its own quota."""
        limiter = self.make_limiter({"g": "3 per minute"})
        require(self._passed(limiter, "k", 6) == 3, "hits within the quota are allowed")
        require(self._passed(limiter, "other", 6) == 3, "keys are counted separately")

    def test_groups_are_counted_apart(self) -> None:
        """The same key in two groups has two counters."""
        limiter = self.make_limiter({"g": "1 per minute", "h": "1 per minute"})
        require(bool(limiter.hit("g", "k")) and bool(limiter.hit("h", "k")), "groups are counted separately")

    def test_a_refused_hit_takes_nothing(self) -> None:
        """A rejected hit is counted neither by the limit that rejected it nor by the others."""
        limiter = self.make_limiter({"g": "3 per minute, 5 per hour"})
        require(self._passed(limiter, "k", 10) == 3, "the strictest limit decides")
        require(tuple(limiter.hit("g", "k").remaining) == (0, 2), "a refused hit consumes nothing")

    def test_cost(self) -> None:
        """A hit with a cost is counted in full or not at all."""
        limiter = self.make_limiter({"g": "10 per minute"})
        taken = [bool(limiter.hit("g", "k", cost=cost)) for cost in (8, 5, 1, 1, 1)]
        require(taken == [True, False, True, True, False], "a refused hit with a cost consumes nothing")

    def test_what_a_decision_tells(self) -> None:
        """A decision contains the limits in the given order, remaining hits, and seconds to wait."""
        limiter = self.make_limiter({"g": "1 per minute, 5 per hour"})
        allowed, refused = limiter.hit("g", "k"), limiter.hit("g", "k")
        rows = [(limit.quota, limit.window) for limit in allowed.limits]
        require(rows == [(1, 60.0), (5, 3600.0)], "limits come in the order given")
        require(tuple(allowed.remaining) == (0, 4), "remaining is after the hit")
        require(allowed.allowed and allowed.retry_after is None, "an allowed hit need not be retried")
        require(all(0 < reset <= 7200 for reset in allowed.reset_after), "reset lies within two windows")
        require(not refused.allowed and not refused, "a refused hit is false")
        self._retry_in_seconds(refused)

    def test_unknown_groups_are_errors(self) -> None:
        """A misspelt name must not mean "no limit"."""
        limiter = self.make_limiter({"g": "1 per minute"})
        try:
            limiter.hit("nope", "k")
        except ValueError:
            return
        raise AssertionError("an unknown group is an error")

    def test_threads_share_one_count(self) -> None:
        """Exactly the quota is allowed, however many threads call at once."""
        limiter = self.make_limiter({"g": "20 per minute"})
        passed = at_once(lambda _: self._passed(limiter, "k", 10), threads=8)
        require(sum(passed) == 20, "threads share one count")

    def test_a_cost_of_nothing_only_looks(self) -> None:
        """A cost of zero returns the current state."""
        limiter = self.make_limiter({"g": "3 per minute"})
        limiter.hit("g", "k")
        for _ in range(5):
            look = limiter.hit("g", "k", cost=0)
            require(bool(look) and tuple(look.remaining) == (2,), "a cost of 0 consumes nothing")

    def test_a_cost_above_a_quota_never_passes(self) -> None:
        """Waiting does not help, and nothing is counted."""
        limiter = self.make_limiter({"g": "3 per minute, 5 per hour"})
        refused = limiter.hit("g", "k", cost=4)
        require(not refused and refused.retry_after is None, "a cost above a quota is refused for good")
        require(tuple(limiter.hit("g", "k").remaining) == (2, 4), "a refused hit consumes nothing")

    def test_any_text_is_a_key(self) -> None:
        """Keys come from clients: each has its own counter, whatever it contains."""
        limiter = self.make_limiter({"g": "1 per minute", "g:a": "1 per minute"})
        keys = ("", "a:b", "a", "}", "{}", "%7D", "\udc80", "\\udc80", "\0", "現場", "x" * 5000, "x" * 5001)
        for key in keys:
            require(self._passed(limiter, key, 2) == 1, "different texts are different keys")
        require(bool(limiter.hit("g:a", "b")), "group and key are kept apart")

    def test_keys_are_compared_exactly(self) -> None:
        """There is no case folding, no whitespace stripping, no Unicode normalisation."""
        limiter = self.make_limiter({"g": "1 per minute"})
        for key in DISTINCT_TEXTS:
            require(bool(limiter.hit("g", key)), f"{key!a} is a separate key")
        for key in DISTINCT_TEXTS:
            require(not limiter.hit("g", key), f"{key!a} was counted")

    def test_the_async_twin_counts_the_same_hits(self) -> None:
        """For a limiter with an asynchronous version (``AsyncLimiter``)."""
        import asyncio

        limiter = self.make_limiter({"g": "3 per minute"})
        ahit = getattr(limiter, "ahit", None)
        if ahit is None:
            return

        async def play() -> list[bool]:
            answers = [await ahit("g", "k"), await ahit("g", "k", cost=2), await ahit("g", "k")]
            require(not limiter.hit("g", "k"), "the async methods count the same hits")
            await aclosed(limiter)
            return [bool(answer) for answer in answers]

        require(asyncio.run(play()) == [True, True, False], "the async methods enforce the limit")

    def test_the_async_twin_decides_in_the_same_shape(self) -> None:
        """For a limiter with ``ahit``: the same limits, remaining hits, seconds, costs and keys as ``hit``."""
        import asyncio

        limiter = self.make_limiter({"g": "1 per minute, 5 per hour", "h": "2 per minute"})
        ahit = getattr(limiter, "ahit", None)
        if ahit is None:
            return

        async def play() -> None:
            allowed, refused = await ahit("g", "k"), await ahit("g", "k")
            rows = [(limit.quota, limit.window) for limit in allowed.limits]
            require(rows == [(1, 60.0), (5, 3600.0)], "limits come in the order given")
            require(tuple(allowed.remaining) == (0, 4), "remaining is after the hit")
            require(allowed.allowed and allowed.retry_after is None, "an allowed hit need not be retried")
            require(not refused.allowed and not refused, "a refused hit is false")
            self._retry_in_seconds(refused)
            require(tuple(refused.remaining) == (0, 4), "a refused hit consumes nothing")
            require(tuple((await ahit("h", "k", cost=0)).remaining) == (2,), "a cost of nothing only looks")
            for key in DISTINCT_TEXTS:
                require(bool(await ahit("h", key, cost=2)), f"{key!a} is a separate key")
            for key in DISTINCT_TEXTS:
                require(not await ahit("h", key), f"{key!a} was counted")
            await aclosed(limiter)

        asyncio.run(play())

    @staticmethod
    def _retry_in_seconds(refused: LimitDecision) -> None:
        """Check a rejection by a limit of one per minute: the wait is no longer than until that limit resets."""
        retry, reset = refused.retry_after, refused.reset_after[0]
        require(retry is not None and 0 < retry <= 120, "a refusal says how many seconds to wait")
        require(retry is not None and retry <= reset + 1, "retry_after is not later than the reset")

    @staticmethod
    def _passed(limiter: Limiter, key: str, tries: int) -> int:
        decisions: list[LimitDecision] = [limiter.hit("g", key) for _ in range(tries)]
        return sum(bool(decision) for decision in decisions)
