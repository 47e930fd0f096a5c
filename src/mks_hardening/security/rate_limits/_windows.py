"""The four counting strategies, in whole microseconds.

A counter holds all limits of one key that use the same strategy. It tests whether a hit fits (``peek``), counts
hits that fit (``add``), does both (``hit``), and subtracts hits (``give_back``). Times are whole microseconds, so
that the arithmetic is exact and the same as in Redis.

- ``exact-window``: the times of the last hits; never more than the quota in any window. A hit that is exactly one
  window old does not count any more.
- ``sliding-window``: the counts of the current and the previous window, the previous one weighted by its part that
  still overlaps; windows are aligned to the clock. Approximately the quota for even traffic; with bursts up to
  twice the quota in one window.
- ``fixed-window``: a window that starts with its first hit; up to twice the quota across a boundary.
- ``gcra``: one theoretical arrival time; the quota as a burst, then evenly spaced: up to twice the quota in one
  window.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mks_hardening.security.rate_limits.limit import Limit, Strategy

__all__ = [
    "NO_HITS",
    "STRATEGIES",
    "KnownHits",
    "MixedWindows",
    "Row",
    "WindowCount",
    "WindowCounter",
    "counter_for",
    "rows_of",
    "strategy_for",
]

# Up to this quota a list of times is small and fast to search; larger quotas seldom need exactness.
_EXACT_UP_TO: Final = 100

Row = tuple[int, int]
"""Quota and window of one limit."""

KnownHits = tuple[int, int]
"""The newest hits that a process has seen in a shared storage, and the latest time that its clock can show now."""

NO_HITS: Final[KnownHits] = (0, 0)


class WindowCount(NamedTuple):
    """The result of counting or testing a hit: one entry for each limit, in order.

    Columns rather than one object per limit, which would take as long as the counting.

    Attributes:
        remaining: hits left.
        reset_after: microseconds until the full quota is available again.
        retry_after: microseconds until a refused hit fits; 0 where it fits.
        taken_at: time of the hits; ``None`` when none were taken.
        newest: time of the newest hits in a shared storage; 0 without one.
        at: time of the reply, on the clock of the shared storage; 0 without one.
        source: where the hit was counted or decided (see ``RateLimitDecided``); empty for a test.
    """

    remaining: Sequence[int]
    reset_after: Sequence[int]
    retry_after: Sequence[int]
    taken_at: int | None = None
    newest: int = 0
    at: int = 0
    source: str = "backend"


class WindowCounter(Protocol):
    """The counts of some limits for one key."""

    def peek(self, now: int, cost: int) -> WindowCount:
        """Return the state of the limits before the hit."""
        ...

    def add(self, now: int, cost: int) -> Sequence[int]:
        """Count hits that fit; return ``reset_after`` afterwards."""
        ...

    def hit(self, now: int, cost: int) -> WindowCount:
        """Count hits against all limits or none."""
        ...

    def give_back(self, at: int, cost: int) -> None:
        """Subtract hits that were counted at the given time, if they still count."""
        ...


class _Counter:
    __slots__ = ()

    def hit(self: WindowCounter, now: int, cost: int) -> WindowCount:
        """Count hits against all limits or none."""
        seen = self.peek(now, cost)
        remaining, retry_after = seen.remaining, seen.retry_after
        if any(retry_after):
            return seen
        reset_after = self.add(now, cost)
        return WindowCount([left - cost for left in remaining], reset_after, retry_after, now)


class ExactWindow(_Counter):
    """Times of the last hits, oldest first, in one list for all limits."""

    __slots__ = ("_hits", "_most", "_no_wait", "_rows", "_windows")

    def __init__(self, *rows: Row) -> None:
        self._rows = rows
        self._most = max(quota for quota, _ in rows)
        self._windows = [window for _, window in rows]
        self._hits: list[int] = []
        self._no_wait = [0] * len(rows)

    def hit(self, now: int, cost: int) -> WindowCount:
        """See ``WindowCounter``. After a hit that fits, ``reset_after`` is the window, so less is computed."""
        hits = self._hits
        length = len(hits) + cost
        remaining: list[int] = []
        for quota, window in self._rows:
            left = quota - length + bisect_right(hits, now - window)
            if left < 0:
                return self.peek(now, cost)
            remaining.append(left)
        return WindowCount(remaining, self.add(now, cost), self._no_wait, now)

    def peek(self, now: int, cost: int) -> WindowCount:
        """See ``WindowCounter``."""
        hits = self._hits
        length = len(hits)
        remaining: list[int] = []
        reset_after: list[int] = []
        retry_after: list[int] = []
        for quota, window in self._rows:
            # bisect_right: a hit that is exactly one window old does not count any more.
            gone = bisect_right(hits, now - window)
            left = quota - length + gone
            remaining.append(left)
            reset_after.append(hits[-1] + window - now if gone < length else 0)
            retry_after.append(hits[gone + cost - left - 1] + window - now if cost > left else 0)
        return WindowCount(remaining, reset_after, retry_after)

    def add(self, now: int, cost: int) -> Sequence[int]:
        """See ``WindowCounter``."""
        hits = self._hits
        hits += [now] * cost
        # Older hits cannot matter to any limit; without the cut the list would grow for ever.
        if len(hits) > self._most:
            del hits[: -self._most]
        return self._windows

    def give_back(self, at: int, cost: int) -> None:
        """See ``WindowCounter``."""
        for _ in range(min(cost, self._hits.count(at))):
            self._hits.remove(at)


class SlidingWindow(_Counter):
    """The counts of the current and the previous window."""

    __slots__ = ("_formers", "_indexes", "_no_wait", "_presents", "_rows")

    def __init__(self, *rows: Row) -> None:
        self._rows = rows
        # Neither the current window nor the previous one, whatever the clock says: even a clock that starts at 0.
        self._indexes = [-2] * len(rows)
        self._presents = [0] * len(rows)
        self._formers = [0] * len(rows)
        self._no_wait = [0] * len(rows)

    def hit(self, now: int, cost: int) -> WindowCount:
        """See ``WindowCounter``. While the windows are those of the last allowed hit, there is less to compute.

        A refused hit moves no window, so a clock that steps back finds the windows unchanged.
        """
        presents, formers = self._presents, self._formers
        remaining: list[int] = []
        reset_after: list[int] = []
        for number, (quota, window) in enumerate(self._rows):
            index, passed = divmod(now, window)
            if self._indexes[number] != index:
                return super().hit(now, cost)
            room = quota - presents[number] - cost
            if formers[number]:
                # Floor of the negative: the previous window's part is rounded up, so that rounding never lets the
                # sum exceed the quota.
                room += -formers[number] * (window - passed) // window
            if room < 0:
                return self.peek(now, cost)
            remaining.append(room)
            reset_after.append(2 * window - passed)
        for number in range(len(presents)):  # a comprehension is a call
            presents[number] += cost
        return WindowCount(remaining, reset_after, self._no_wait, now)

    def _begin(self, number: int, index: int) -> None:
        last = self._indexes[number]
        self._formers[number] = self._presents[number] if last == index - 1 else 0
        self._presents[number] = 0
        self._indexes[number] = index

    def peek(self, now: int, cost: int) -> WindowCount:
        """See ``WindowCounter``."""
        remaining: list[int] = []
        reset_after: list[int] = []
        retry_after: list[int] = []
        for (quota, window), at, present, former in zip(
            self._rows, self._indexes, self._presents, self._formers, strict=True
        ):
            index, passed = divmod(now, window)
            if at != index:
                former = present if at == index - 1 else 0  # noqa: PLW2901 - the previous window at this time
                present = 0  # noqa: PLW2901
            left = window - passed
            room = quota - present
            if former:  # its part that still overlaps, rounded up
                room += -former * left // window
                reset_after.append(left + window if present else left)
            else:
                reset_after.append(left + window if present else 0)
            remaining.append(max(0, room))
            retry_after.append(0 if cost <= room else self._wait(quota - cost, window, present, former, left))
        return WindowCount(remaining, reset_after, retry_after)

    @staticmethod
    def _wait(room: int, window: int, present: int, former: int, left: int) -> int:
        if present <= room:  # enough of the previous window has to leave
            return left - (room - present) * window // former
        return left + window - room * window // present

    def add(self, now: int, cost: int) -> Sequence[int]:
        """See ``WindowCounter``."""
        reset_after: list[int] = []
        for number, (_, window) in enumerate(self._rows):
            index, passed = divmod(now, window)
            if self._indexes[number] != index:
                self._begin(number, index)
            self._presents[number] += cost
            reset_after.append(2 * window - passed)
        return reset_after

    def give_back(self, at: int, cost: int) -> None:
        """See ``WindowCounter``."""
        for number, (_, window) in enumerate(self._rows):
            index = at // window
            if index == self._indexes[number]:
                self._presents[number] = max(0, self._presents[number] - cost)
            elif index == self._indexes[number] - 1:
                self._formers[number] = max(0, self._formers[number] - cost)


class FixedWindow(_Counter):
    """The number of hits since the first one of the current window."""

    __slots__ = ("_no_wait", "_rows", "_starts", "_used")

    def __init__(self, *rows: Row) -> None:
        self._rows = rows
        self._starts = [0] * len(rows)
        self._used = [0] * len(rows)
        self._no_wait = [0] * len(rows)

    def hit(self, now: int, cost: int) -> WindowCount:
        """See ``WindowCounter``; one pass for a hit that fits."""
        starts, all_used = self._starts, self._used
        remaining: list[int] = []
        reset_after: list[int] = []
        for (quota, window), start, used in zip(self._rows, starts, all_used, strict=True):
            left = start + window - now
            room = quota - cost
            if used and left > 0:
                room -= used
            else:
                left = window  # one that starts with this hit
            if room < 0:
                return self.peek(now, cost)
            remaining.append(room)
            reset_after.append(left)
        for number, (quota, window) in enumerate(self._rows):
            starts[number] = now + reset_after[number] - window
            all_used[number] = quota - remaining[number]
        return WindowCount(remaining, reset_after, self._no_wait, now)

    def peek(self, now: int, cost: int) -> WindowCount:
        """See ``WindowCounter``."""
        remaining: list[int] = []
        reset_after: list[int] = []
        retry_after: list[int] = []
        for (quota, window), start, used in zip(self._rows, self._starts, self._used, strict=True):
            left = start + window - now
            if not used or left <= 0:
                used = left = 0  # noqa: PLW2901 - the window has ended
            remaining.append(quota - used)
            reset_after.append(left)
            retry_after.append(left if used + cost > quota else 0)
        return WindowCount(remaining, reset_after, retry_after)

    def add(self, now: int, cost: int) -> Sequence[int]:
        """See ``WindowCounter``."""
        starts, used = self._starts, self._used
        for number, (_, window) in enumerate(self._rows):
            if not used[number] or now >= starts[number] + window:
                starts[number], used[number] = now, 0
            used[number] += cost
        return [start + window - now for (_, window), start in zip(self._rows, starts, strict=True)]

    def give_back(self, at: int, cost: int) -> None:
        """See ``WindowCounter``."""
        for number, start in enumerate(self._starts):
            if at >= start:
                self._used[number] = max(0, self._used[number] - cost)


class Gcra(_Counter):
    """The theoretical arrival time (generic cell rate algorithm, ITU-T I.371), with the quota as burst.

    The spacing is rounded up to a whole microsecond: never faster than the limit.
    """

    __slots__ = ("_arrivals", "_no_wait", "_rows")

    def __init__(self, *rows: Row) -> None:
        spacings = [-(-window // quota) for quota, window in rows]
        self._rows = [(spacing, spacing * quota) for spacing, (quota, _) in zip(spacings, rows, strict=True)]
        self._arrivals = [0] * len(rows)
        self._no_wait = [0] * len(rows)

    def hit(self, now: int, cost: int) -> WindowCount:
        """See ``WindowCounter``; one pass for a hit that fits."""
        remaining: list[int] = []
        reset_after: list[int] = []
        arrivals: list[int] = []
        for (spacing, burst), arrival in zip(self._rows, self._arrivals, strict=True):
            later = (arrival if arrival > now else now) + cost * spacing  # noqa: FURB136 - max() is a call
            room = burst + now - later
            if room < 0:
                return self.peek(now, cost)
            remaining.append(room // spacing)
            reset_after.append(later - now)
            arrivals.append(later)
        self._arrivals = arrivals
        return WindowCount(remaining, reset_after, self._no_wait, now)

    def peek(self, now: int, cost: int) -> WindowCount:
        """See ``WindowCounter``."""
        remaining: list[int] = []
        reset_after: list[int] = []
        retry_after: list[int] = []
        for (spacing, burst), arrival in zip(self._rows, self._arrivals, strict=True):
            ahead = arrival - now if arrival > now else 0
            late = ahead + cost * spacing - burst
            remaining.append((burst - ahead) // spacing)
            reset_after.append(ahead)
            retry_after.append(max(0, late))
        return WindowCount(remaining, reset_after, retry_after)

    def add(self, now: int, cost: int) -> Sequence[int]:
        """See ``WindowCounter``."""
        # An arrival in the past counts as now: unused time is not saved beyond the burst.
        arrivals = self._arrivals = [
            (max(now, arrival)) + cost * spacing
            for (spacing, _), arrival in zip(self._rows, self._arrivals, strict=True)
        ]
        return [arrival - now for arrival in arrivals]

    def give_back(self, at: int, cost: int) -> None:  # noqa: ARG002 - time that has passed since stays passed
        """See ``WindowCounter``."""
        self._arrivals = [
            arrival - cost * spacing for (spacing, _), arrival in zip(self._rows, self._arrivals, strict=True)
        ]


class MixedWindows(_Counter):
    """Several counters combined into one, each for some of the limits.

    Args:
        parts: each counter with the indexes of its limits in the group.
    """

    __slots__ = ("_order", "_parts")

    def __init__(self, *parts: tuple[WindowCounter, Sequence[int]]) -> None:
        self._parts = [counter for counter, _ in parts]
        together = [place for _, places in parts for place in places]
        self._order = sorted(range(len(together)), key=together.__getitem__)

    def peek(self, now: int, cost: int) -> WindowCount:
        """See ``WindowCounter``."""
        seen = [part.peek(now, cost) for part in self._parts]
        return WindowCount(
            self._in_order([count.remaining for count in seen]),
            self._in_order([count.reset_after for count in seen]),
            self._in_order([count.retry_after for count in seen]),
        )

    def add(self, now: int, cost: int) -> Sequence[int]:
        """See ``WindowCounter``."""
        return self._in_order([part.add(now, cost) for part in self._parts])

    def give_back(self, at: int, cost: int) -> None:
        """See ``WindowCounter``."""
        for part in self._parts:
            part.give_back(at, cost)

    def _in_order(self, columns: Sequence[Sequence[int]]) -> list[int]:
        together = [entry for column in columns for entry in column]
        return [together[place] for place in self._order]


_COUNTERS: Final[dict[str, Callable[..., WindowCounter]]] = {
    "exact-window": ExactWindow,
    "sliding-window": SlidingWindow,
    "fixed-window": FixedWindow,
    "gcra": Gcra,
}
STRATEGIES: Final = ("auto", *_COUNTERS)


def strategy_for(limit: Limit, strategy: Strategy) -> str:
    """Return the strategy of a limit; ``auto`` is exact for small quotas, where exactness matters and is cheap."""
    if strategy != "auto":
        return strategy
    return "exact-window" if limit.quota <= _EXACT_UP_TO else "sliding-window"


def rows_of(limits: Sequence[Limit]) -> list[Row]:
    """Return quota and window, in whole microseconds, of each limit."""
    return [(limit.quota, round(limit.window * 1e6)) for limit in limits]


def counter_for(limits: Sequence[Limit], strategy: Strategy) -> WindowCounter:
    """Return a new counter for the limits of one key."""
    places: dict[str, list[int]] = {}
    for place, limit in enumerate(limits):
        places.setdefault(strategy_for(limit, strategy), []).append(place)
    rows = rows_of(limits)
    parts = [(_COUNTERS[kind](*(rows[place] for place in some)), some) for kind, some in places.items()]
    return parts[0][0] if len(parts) == 1 else MixedWindows(*parts)
