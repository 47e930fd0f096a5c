"""The four ways to count, over whole microseconds.

Each counter answers where it stands and whether a hit fits (``look``), takes hits that fit (``take``), and gives
them back (``give_back``). Time is whole microseconds, so that the arithmetic is exact and the same as in Redis.

- ``exact-window``: the moments of the last hits; never more than the quota in any window. A hit exactly one
  window old does not count any more.
- ``sliding-window``: the numbers of the present and the former window, the former weighted by its part still
  inside; windows lie on the clock. About the quota for even traffic; when hits come in bunches, up to twice the
  quota in one window.
- ``fixed-window``: counts from the first hit on; up to twice the quota across an edge.
- ``gcra``: one theoretical arrival time; the quota as a burst, then evenly spaced: up to twice the quota in one
  window.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from mks_hardening.security._limits import Limit, Strategy

__all__ = ["STRATEGIES", "Counter", "Look", "counter_for", "strategy_for"]

_EXACT_UP_TO: Final = 100


class Look(NamedTuple):
    """Where a limit stands: hits left, microseconds to the full quota, and until a refused hit fits."""

    remaining: int
    reset_after: int
    retry_after: int = 0


class Counter(Protocol):
    """The state of one limit for one key."""

    def look(self, now: int, cost: int) -> Look:
        """Where the limit stands before the hit."""
        ...

    def take(self, now: int, cost: int) -> int:
        """Count hits that fit; ``reset_after`` then."""
        ...

    def give_back(self, at: int, cost: int) -> None:
        """Uncount hits taken at that moment, if they still count."""
        ...


class ExactWindow:
    """Moments of the last hits, oldest first."""

    __slots__ = ("_hits", "_quota", "_window")

    def __init__(self, quota: int, window: int) -> None:
        self._quota = quota
        self._window = window
        self._hits: list[int] = []

    def look(self, now: int, cost: int) -> Look:
        """See ``Counter``."""
        hits = self._hits
        gone = bisect_right(hits, now - self._window)
        used = len(hits) - gone
        excess = used + cost - self._quota
        return Look(
            self._quota - used,
            hits[-1] + self._window - now if used else 0,
            hits[gone + excess - 1] + self._window - now if excess > 0 else 0,
        )

    def take(self, now: int, cost: int) -> int:
        """See ``Counter``."""
        self._hits += [now] * cost
        del self._hits[: -self._quota]
        return self._window

    def give_back(self, at: int, cost: int) -> None:
        """See ``Counter``."""
        for _ in range(min(cost, self._hits.count(at))):
            self._hits.remove(at)


class SlidingWindow:
    """Numbers of the present and the former window."""

    __slots__ = ("_former", "_index", "_present", "_quota", "_window")

    def __init__(self, quota: int, window: int) -> None:
        self._quota = quota
        self._window = window
        self._index = -2
        self._present = 0
        self._former = 0

    def look(self, now: int, cost: int) -> Look:
        """See ``Counter``."""
        present, former = self._numbers(now // self._window)
        left = self._window - now % self._window
        free = (self._quota - present) * self._window - former * left
        reset_after = left + self._window if present else left if former else 0
        fits = cost * self._window <= free
        return Look(
            max(0, free // self._window), reset_after, 0 if fits else self._wait(present, former, left, cost)
        )

    def _wait(self, present: int, former: int, left: int, cost: int) -> int:
        room = self._quota - cost
        if present <= room:  # the former window has to fade
            return left - (room - present) * self._window // former
        return left + self._window - room * self._window // present

    def take(self, now: int, cost: int) -> int:
        """See ``Counter``."""
        index = now // self._window
        self._present, self._former = self._numbers(index)
        self._index = index
        self._present += cost
        return 2 * self._window - now % self._window

    def give_back(self, at: int, cost: int) -> None:
        """See ``Counter``."""
        index = at // self._window
        if index == self._index:
            self._present = max(0, self._present - cost)
        elif index == self._index - 1:
            self._former = max(0, self._former - cost)

    def _numbers(self, index: int) -> tuple[int, int]:
        if index == self._index:
            return self._present, self._former
        return 0, self._present if index == self._index + 1 else 0


class FixedWindow:
    """The number of hits since the first one of this window."""

    __slots__ = ("_quota", "_start", "_used", "_window")

    def __init__(self, quota: int, window: int) -> None:
        self._quota = quota
        self._window = window
        self._start = 0
        self._used = 0

    def look(self, now: int, cost: int) -> Look:
        """See ``Counter``."""
        left = self._start + self._window - now
        if not self._used or left <= 0:
            return Look(self._quota, 0)
        return Look(self._quota - self._used, left, left if self._used + cost > self._quota else 0)

    def take(self, now: int, cost: int) -> int:
        """See ``Counter``."""
        if not self._used or now >= self._start + self._window:
            self._start, self._used = now, 0
        self._used += cost
        return self._start + self._window - now

    def give_back(self, at: int, cost: int) -> None:
        """See ``Counter``."""
        if at >= self._start:
            self._used = max(0, self._used - cost)


class Gcra:
    """The theoretical arrival time (generic cell rate algorithm, ITU-T I.371), with the quota as burst.

    The spacing is rounded up to a microsecond: never faster than the limit says.
    """

    __slots__ = ("_arrival", "_burst", "_quota", "_spacing")

    def __init__(self, quota: int, window: int) -> None:
        self._quota = quota
        self._spacing = -(-window // quota)
        self._burst = self._spacing * quota
        self._arrival = 0

    def look(self, now: int, cost: int) -> Look:
        """See ``Counter``."""
        ahead = max(0, self._arrival - now)
        late = ahead + cost * self._spacing - self._burst
        return Look((self._burst - ahead) // self._spacing, ahead, max(0, late))

    def take(self, now: int, cost: int) -> int:
        """See ``Counter``."""
        self._arrival = max(self._arrival, now) + cost * self._spacing
        return self._arrival - now

    def give_back(self, at: int, cost: int) -> None:  # noqa: ARG002 - what has drained meanwhile stays drained
        """See ``Counter``."""
        self._arrival -= cost * self._spacing


_COUNTERS: Final[dict[str, Callable[[int, int], Counter]]] = {
    "exact-window": ExactWindow,
    "sliding-window": SlidingWindow,
    "fixed-window": FixedWindow,
    "gcra": Gcra,
}
STRATEGIES: Final = ("auto", *_COUNTERS)


def strategy_for(limit: Limit, strategy: Strategy) -> str:
    """The strategy of one limit; ``auto`` is exact for small quotas, where exactness matters and is cheap."""
    if strategy != "auto":
        return strategy
    return "exact-window" if limit.quota <= _EXACT_UP_TO else "sliding-window"


def counter_for(limit: Limit, strategy: Strategy) -> Counter:
    """A fresh counter."""
    return _COUNTERS[strategy_for(limit, strategy)](limit.quota, round(limit.window * 1e6))
