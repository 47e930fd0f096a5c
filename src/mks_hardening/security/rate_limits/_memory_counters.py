"""Counters in the memory of one process: exact, atomic across threads, bounded in the number of keys.

``MemoryStorage`` gives them the interface of ``RedisStorage``.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from mks_hardening._core.operations import Op
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.security.rate_limits._schedule import PaceSchedule
from mks_hardening.security.rate_limits._windows import WindowCount, WindowCounter, counter_for

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security.rate_limits._groups import LimitGroup
    from mks_hardening.security.rate_limits.limit import Limit, Strategy

__all__ = ["MemoryCounters", "MemoryStorage"]

_MOST_KEYS: Final = 100_000


class MemoryCounters:
    """Counters by group and key; beyond ``max_keys`` the least recently used ones are evicted."""

    def __init__(self, *, strategy: Strategy, clock: Clock, max_keys: int = _MOST_KEYS) -> None:
        self._strategy: Strategy = strategy
        self._monotonic = clock.monotonic
        self._max_keys = max_keys
        self.reset_after_fork()
        self._counters: OrderedDict[tuple[str, str], WindowCounter] = OrderedDict()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock: one that another thread holds at the moment of a fork stays locked in the child."""
        self._lock = threading.RLock()

    def hit(self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int) -> WindowCount:
        """Count hits against all limits or none."""
        place = group, key
        with self._lock:
            counter = self._counters.get(place)
            if counter is None:
                counter = self._counters[place] = self._fresh(group, key, limits)
                if len(self._counters) > self._max_keys:
                    # Keys come from clients: an attacker with many keys can evict the counts of others, but cannot
                    # exhaust memory.
                    self._counters.popitem(last=False)
            else:
                self._counters.move_to_end(place)
            return counter.hit(int(self._monotonic() * 1e6), cost)

    def test(self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int) -> WindowCount:
        """Return what ``hit`` would return, without counting."""
        with self._lock:
            # A test stores no counter, so testing many keys takes no memory.
            counter = self._counters.get((group, key)) or self._fresh(group, key, limits)
            return counter.peek(self._now(), cost)

    def give_back(self, group: str, key: str, *, at: int, cost: int) -> None:
        """Subtract hits that were counted at the given time."""
        with self._lock:
            counter = self._counters.get((group, key))
            if counter is not None:
                counter.give_back(at, cost)

    def reset(self, group: str, key: str) -> None:
        """Drop all hits of a key."""
        with self._lock:
            self._counters.pop((group, key), None)

    def _fresh(self, group: str, key: str, limits: tuple[Limit, ...]) -> WindowCounter:  # noqa: ARG002 - for subclasses
        return counter_for(limits, self._strategy)

    def _now(self) -> int:
        return int(self._monotonic() * 1e6)


class MemoryStorage:
    """The counts of one limiter without Redis: no operation needs a round trip."""

    def __init__(self, *, strategy: Strategy, clock: Clock) -> None:
        self.counters = MemoryCounters(strategy=strategy, clock=clock)
        self.schedule = PaceSchedule(None, None, clock)

    def hit_locally(self, rules: LimitGroup, key: str, cost: int) -> WindowCount:
        """Count hits."""
        if 0 < cost <= rules.smallest_quota:
            return self.counters.hit(rules.name, key, rules.limits, cost=cost)
        count = self.counters.test(rules.name, key, rules.limits, cost=rules.fitting(cost))
        return count._replace(source="")

    def hit(self, rules: LimitGroup, key: str, cost: int) -> Op[WindowCount]:
        """Count hits, as an operation."""
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
