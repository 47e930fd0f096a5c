"""Hits in the memory of this process, with the same interface as ``RedisStorage``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.operations import Op
from mks_hardening.security.rate_limits._memory_counters import MemoryCounters
from mks_hardening.security.rate_limits._schedule import PaceSchedule

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security.rate_limits._groups import LimitGroup
    from mks_hardening.security.rate_limits._windows import WindowCount
    from mks_hardening.security.rate_limits.limit import Strategy

__all__ = ["MemoryStorage"]


class MemoryStorage:
    """The counts of one limiter without Redis: no operation needs a round trip."""

    def __init__(self, *, strategy: Strategy, clock: Clock) -> None:
        self.counters = MemoryCounters(strategy=strategy, clock=clock)
        self.schedule = PaceSchedule(None, None, clock)

    def hit_locally(self, rules: LimitGroup, key: str, cost: int) -> WindowCount:
        """Take hits."""
        if 0 < cost <= rules.smallest_quota:
            return self.counters.hit(rules.name, key, rules.limits, cost=cost)
        count = self.counters.test(rules.name, key, rules.limits, cost=rules.fitting(cost))
        return count._replace(source="")

    def hit(self, rules: LimitGroup, key: str, cost: int) -> Op[WindowCount]:
        """Take hits, as an operation."""
        yield from ()
        return self.hit_locally(rules, key, cost)

    def test(self, rules: LimitGroup, key: str, cost: int) -> Op[WindowCount]:
        """Return what ``hit`` would return, without counting."""
        yield from ()
        count = self.counters.test(rules.name, key, rules.limits, cost=rules.fitting(cost))
        return count._replace(source="")

    def give_back(self, rules: LimitGroup, key: str, cost: int, count: WindowCount) -> Op[None]:
        """Subtract the hits that ``count`` is the result of."""
        yield from ()
        self.counters.give_back(rules.name, key, at=count.taken_at or 0, cost=cost)

    def reset(self, rules: LimitGroup, key: str) -> Op[None]:
        """Drop all hits of a key."""
        yield from ()
        self.counters.reset(rules.name, key)

    def forget_refusal(self, rules: LimitGroup, key: str) -> None:
        """Do nothing: refusals are not remembered."""

    def close(self) -> None:
        """Do nothing: there are no connections."""

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""
