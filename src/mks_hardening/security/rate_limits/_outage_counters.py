"""Counters of one process during an outage of the shared storage.

Each process starts from the last counts that it received and enforces its share of every limit, so that all
processes together allow approximately what the limit allows. When the storage is back, the hits that it has not
counted are sent to it.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.memo import drop_oldest
from mks_hardening.security.rate_limits._memory_counters import MemoryCounters
from mks_hardening.security.rate_limits._windows import (
    NO_HITS,
    KnownHits,
    MixedWindows,
    WindowCount,
    WindowCounter,
    counter_for,
    rows_of,
)

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security._membership import Membership
    from mks_hardening.security.rate_limits.limit import Limit, Strategy

__all__ = ["MOST_KEYS", "OutageCounters", "UnsentHits"]

MOST_KEYS: Final = 10_000
"""Keys whose last known count, or whose unsent hits, are kept."""
_MOST_MOMENTS: Final = 1_000
_CLOCK_RATE: Final = 64
"""Two clocks differ by less than this part of the time that passes, and by ``_CLOCK_STEP``; NTP corrects 0.05 %."""
_CLOCK_STEP: Final = 5_000_000
"""Microseconds; more than any call takes."""

Place = tuple[str, str]
Moments = list[tuple[int, int]]


_Known = tuple[int, ...]
"""What the storage last returned for a key: hits left and microseconds to the full quota for each limit, then the
newest hits (0: unknown) and the time on the storage's clock, and the time here. A flat tuple of numbers, which the
garbage collector does not track: there are thousands of these.
"""


class UnsentHits(NamedTuple):
    """Hits of one key that the storage does not know: for each limit, those that it may have lost and others."""

    place: Place
    at: int
    known: KnownHits
    unknown: tuple[tuple[int, int], ...]
    moments: Moments


class OutageCounters(MemoryCounters):
    """``MemoryCounters`` for this process's share of each limit, starting from the storage's last known state.

    Args:
        strategy: how hits are counted.
        clock: monotonic clock.
        members: the processes that share the storage.

    Attributes:
        known: what the storage last returned for each key; written by every hit.
        unsent: the hits that the storage does not know; none for a key whose data it may have lost.
        synchronised: the keys that were sent to the storage, and whose count has not been read since.
    """

    def __init__(self, *, strategy: Strategy, clock: Clock, members: Membership) -> None:
        self._members = members
        self.known: OrderedDict[Place, _Known] = OrderedDict()
        self.synchronised: dict[Place, None] = {}
        super().__init__(strategy=strategy, clock=clock)

    def reset_after_fork(self) -> None:
        """Drop the unsent hits in a forked child: the parent sends them."""
        super().reset_after_fork()
        self.unsent: OrderedDict[Place, Moments] = OrderedDict()

    def hit(self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int) -> WindowCount:
        """Count hits against this process's shares of all limits, or of none."""
        count = self._too_large(group, key, limits, cost) or super().hit(group, key, limits, cost=cost)
        if count.taken_at is not None:
            with self._lock:
                self._add_unsent((group, key), [(count.taken_at, cost)])
                drop_oldest(self.unsent, MOST_KEYS)
        return count

    def test(self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int) -> WindowCount:
        """Return what ``hit`` would return, without counting."""
        return self._too_large(group, key, limits, cost) or super().test(group, key, limits, cost=cost)

    def give_back(self, group: str, key: str, *, at: int, cost: int) -> None:
        """Subtract hits that were counted at the given time."""
        super().give_back(group, key, at=at, cost=cost)
        with self._lock:
            moments = self.unsent.get((group, key))
            if moments is not None and (at, cost) in moments:
                moments.remove((at, cost))

    def reset(self, group: str, key: str) -> None:
        """Drop all hits of a key."""
        super().reset(group, key)
        with self._lock:
            self.known.pop((group, key), None)
            self.unsent.pop((group, key), None)

    def record_count(self, place: Place, count: WindowCount, now: int) -> None:
        """Record what the storage returned for a key after ``now``: the next outage starts from there."""
        known = self.known
        known[place] = (*count.remaining, *count.reset_after, count.newest, count.at, now)
        if self.synchronised:
            self._end_synchronisation(place)
        if len(known) > MOST_KEYS:
            drop_oldest(known, MOST_KEYS)

    def known_hits(self, place: Place, now: int) -> KnownHits:
        """Return the hits of a key that the storage must have, unless it has lost data."""
        last = self.known.get(place)
        if last is None:
            return NO_HITS
        newest, at, here = last[-3:]
        past = now - here
        return newest, at + past + past // _CLOCK_RATE + _CLOCK_STEP

    def record_loss(self, *places: Place) -> None:
        """Record that the storage may have lost the data of these keys: what is known of them is sent."""
        with self._lock:
            for place in places:
                self._add_unsent(place, [])

    def acquire_unsent(self, group: str, key: str, limits: tuple[Limit, ...]) -> UnsentHits:
        """Remove and return the unsent hits of a key; the caller sends them to the storage."""
        place = group, key
        with self._lock:
            moments = self.unsent.pop(place, [])
        now = self._now()
        known = self.known_hits(place, now)
        # The storage counts these only if it has lost them.
        before = self._still_used(self.known.get(place) if known[0] else None, limits, now)
        since = [
            sum(cost for moment, cost in moments if moment > now - limit.window * 1e6) for limit in limits
        ]
        return UnsentHits(place, now, known, tuple(zip(before, since, strict=True)), moments)

    def record_sent(self, hits: UnsentHits, count: WindowCount, *, apart: bool) -> None:
        """Record that the storage has received the hits, and what it returned.

        Args:
            hits: the hits that were sent.
            count: the reply of the storage.
            apart: whether this process keeps counting its share until the other processes have sent theirs.
        """
        self.synchronised[hits.place] = None
        if not apart:
            self.record_count(hits.place, count, hits.at)
        elif (last := self.known.get(hits.place)) is not None:
            # What was left stays what it was, and its windows end when they did.
            left, past = len(count.remaining), hits.at - last[-1]
            resets = [max(0, reset - past) for reset in last[left:-3]]
            self.known[hits.place] = (*last[:left], *resets, count.newest, count.at, hits.at)

    def restore_unsent(self, hits: UnsentHits) -> None:
        """Put back hits that could not be sent."""
        with self._lock:
            self._add_unsent(hits.place, hits.moments)

    def _end_synchronisation(self, place: Place) -> None:
        # The share of a key that was sent: the storage has returned a count that contains it.
        if self.synchronised.pop(place, self) is None:
            with self._lock:
                self._counters.pop(place, None)

    def _add_unsent(self, place: Place, hits: Moments) -> None:
        moments = self.unsent.setdefault(place, [])
        moments += hits
        while len(moments) > _MOST_MOMENTS:
            # Merge pairs, at the later time of the two: no hit is lost, and none expires too early.
            pairs = zip_longest(moments[::2], moments[1::2], fillvalue=(0, 0))
            moments[:] = [(max(one, other), cost + more) for (one, cost), (other, more) in pairs]

    def _fresh(self, group: str, key: str, limits: tuple[Limit, ...]) -> WindowCounter:
        now = self._now()
        used = self._still_used(self.known.get((group, key)), limits, now)
        parts: list[tuple[WindowCounter, tuple[int]]] = []
        for position, (limit, taken) in enumerate(zip(limits, used, strict=True)):
            share = self._share(limit)
            # The share of the remaining quota, not of the whole one: an outage must not give a client a new quota.
            left = min(share, self._members.share_of(limit.quota - taken))
            counter = counter_for([limit._replace(quota=share)], self._strategy)  # one for each limit
            if left < share:
                counter.add(now, share - left)
            parts.append((counter, (position,)))
        return MixedWindows(*parts)

    def _too_large(self, group: str, key: str, limits: tuple[Limit, ...], cost: int) -> WindowCount | None:
        """Return the refusal of a hit that costs more than the share: it cannot fit before the storage is back."""
        if all(cost <= self._share(limit) for limit in limits):
            return None
        count = super().test(group, key, limits, cost=0)
        never = [
            wait if cost <= self._share(limit) else window
            for limit, wait, (_, window) in zip(limits, count.retry_after, rows_of(limits), strict=True)
        ]
        return count._replace(retry_after=never)

    def _share(self, limit: Limit) -> int:
        """Return this process's share: at least 1, so that a limit below the number of processes is not zero."""
        return max(1, self._members.share_of(limit.quota))

    @staticmethod
    def _still_used(known: _Known | None, limits: tuple[Limit, ...], now: int) -> list[int]:
        """Return the counted hits that have not expired yet, as far as this process knows."""
        if known is None:
            return [0] * len(limits)
        past, many = now - known[-1], len(limits)
        return [
            # All or nothing: only the server knew the time of each hit, so none may be dropped too early.
            limit.quota - left if past < reset else 0
            for limit, left, reset in zip(limits, known[:many], known[many:-3], strict=True)
        ]
