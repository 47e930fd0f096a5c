"""Counts in the memory of one process: exact, atomic among its threads, bounded in keys."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from mks_hardening._core.forked import renew_in_child
from mks_hardening.security._counters import Count
from mks_hardening.security._windows import Counter, Look, counter_for

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security._limits import Limit, Strategy

__all__ = ["MemoryCounters"]

_MOST_KEYS: Final = 100_000


class MemoryCounters:
    """Counters by group and key; the ones used longest ago are forgotten beyond ``max_keys``."""

    def __init__(self, *, strategy: Strategy, clock: Clock, max_keys: int = _MOST_KEYS) -> None:
        self._strategy: Strategy = strategy
        self._clock = clock
        self._max_keys = max_keys
        self.renew()
        self._counters: OrderedDict[tuple[str, str], tuple[Counter, ...]] = OrderedDict()
        renew_in_child(self)

    def renew(self) -> None:
        """A fresh lock: one held by another thread at the moment of a fork stays held in the child."""
        self._lock = threading.Lock()

    def hit(self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int) -> Count:
        """Take hits from all limits or from none."""
        with self._lock:
            now = self._now()
            counters = self._counters_of(group, key, limits)
            looks = [counter.look(now, cost) for counter in counters]
            for look in looks:
                if look.retry_after:
                    return Count(looks)
            return Count(
                [
                    Look(look.remaining - cost, counter.take(now, cost))
                    for look, counter in zip(looks, counters, strict=True)
                ],
                now,
            )

    def test(self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int) -> Count:
        """What ``hit`` would see, without counting."""
        with self._lock:
            counters = self._counters.get((group, key)) or self._fresh(limits)
            now = self._now()
            return Count([counter.look(now, cost) for counter in counters])

    def give_back(
        self,
        group: str,
        key: str,
        limits: tuple[Limit, ...],  # noqa: ARG002 - other backends do not keep them
        *,
        at: int,
        cost: int,
    ) -> None:
        """Uncount hits taken at that moment."""
        with self._lock:
            for counter in self._counters.get((group, key), ()):
                counter.give_back(at, cost)

    def reset(self, group: str, key: str) -> None:
        """Forget all hits of a key."""
        with self._lock:
            self._counters.pop((group, key), None)

    def close(self) -> None:
        """Nothing to release."""

    def _counters_of(self, group: str, key: str, limits: tuple[Limit, ...]) -> tuple[Counter, ...]:
        found = self._counters.get((group, key))
        if found is None:
            found = self._counters[group, key] = self._fresh(limits)
            if len(self._counters) > self._max_keys:
                self._counters.popitem(last=False)
        else:
            self._counters.move_to_end((group, key))
        return found

    def _fresh(self, limits: tuple[Limit, ...]) -> tuple[Counter, ...]:
        return tuple(counter_for(limit, self._strategy) for limit in limits)

    def _now(self) -> int:
        return int(self._clock.monotonic() * 1e6)
