"""Hits in Redis; during an outage in this process, with a synchronisation afterwards.

A hit first sends the unsent hits of its own key. A background thread sends those of all other keys as soon as Redis
is back, because from then on their clients may reach other processes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.memo import drop_oldest
from mks_hardening._core.operations import Op, run
from mks_hardening._core.process.interval_thread import IntervalThread, until_collected
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security._membership import Membership
from mks_hardening.security.rate_limits._decisions import outage_count
from mks_hardening.security.rate_limits._outage_counters import OutageCounters
from mks_hardening.security.rate_limits._schedule import PaceSchedule
from mks_hardening.security.rate_limits._windows import WindowCount

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security.rate_limits._groups import LimitGroup
    from mks_hardening.security.rate_limits._redis_counters import RedisCounters
    from mks_hardening.security.rate_limits.limit import Strategy

__all__ = ["RedisStorage"]

_MOST_LOSSES: Final = 8
"""Attempts of one hit while the storage keeps losing its data."""
_EVERY: Final = 0.25
"""Seconds between two checks of the background thread whether the storage is back."""
_MOST_REFUSALS: Final = 10_000
_REFUSAL_LASTS: Final = 1.0
"""Maximum seconds to trust a refusal: another process may reset the key or give hits back."""


class _KnownRefusal(NamedTuple):
    refused: WindowCount
    cost: int
    at: float
    until: float


class RedisStorage:
    """The counts of one limiter in Redis, and its share of them in this process while Redis is unavailable.

    Args:
        server: the counters in Redis.
        groups: limits by group name.
        processes: minimum number of processes that use the server.
        strategy: how hits are counted.
        clock: monotonic clock.

    Attributes:
        counters: counters for hits during an outage.
        members: the processes that use the server.
        schedule: the schedules of outgoing calls.
    """

    def __init__(
        self,
        server: RedisCounters,
        groups: Mapping[str, LimitGroup],
        processes: int = 1,
        *,
        strategy: Strategy,
        clock: Clock,
    ) -> None:
        self.server = server
        self._groups = groups
        self._monotonic = clock.monotonic
        self._refusals: OrderedDict[tuple[str, str], _KnownRefusal] = OrderedDict()
        self.members = Membership(server.announce, clock, expected=processes, waits=server.is_probed)
        self.counters = OutageCounters(strategy=strategy, clock=clock, members=self.members)
        self.schedule = PaceSchedule(server, self.members, clock)
        self._flush = IntervalThread(until_collected(self.flush), every=_EVERY, name="mks-limits")

    # --- hits ------------------------------------------------------------------------------------

    def hit_locally(self, rules: LimitGroup, key: str, cost: int) -> WindowCount | None:
        """Return the result of a hit that needs no round trip: refused just now, or counted in this process."""
        refusal = self._refusals.get((rules.name, key))
        # Only a refusal of the same cost: a hit of another cost would fit at another time.
        if refusal is not None and cost == refusal.cost:
            now = self._monotonic()
            if now < refusal.until:
                return _later(refusal.refused, int((now - refusal.at) * 1e6))
            self.forget_refusal(rules, key)
        if rules.policy == "local" and self.counts_locally():
            return self._local_hit(rules, key, cost)
        return None

    def hit(self, rules: LimitGroup, key: str, cost: int) -> Op[WindowCount]:
        """Count hits in Redis."""
        if not 0 < cost <= rules.smallest_quota:
            return (yield from self.test(rules, key, cost))
        try:
            count = yield from self._shared_hit(rules, key, cost)
        except BackendUnavailableError as error:
            if rules.policy != "local":
                return outage_count(rules, error)
            self._record_outage()
            return self._local_hit(rules, key, cost)
        if count.taken_at is None and count.source == "backend":
            self._remember_refusal(rules, key, cost, count)
        return count

    def test(self, rules: LimitGroup, key: str, cost: int) -> Op[WindowCount]:
        """Return what ``hit`` would return, without counting."""
        if not (rules.policy == "local" and self.counts_locally()):
            try:
                count: WindowCount = yield self.server.test(
                    rules.name, key, rules.limits, cost=rules.fitting(cost)
                )
                return count._replace(source="")
            except BackendUnavailableError as error:
                if rules.policy != "local":
                    return outage_count(rules, error)._replace(source="")
        return self._local_test(rules, key, cost)

    def give_back(self, rules: LimitGroup, key: str, cost: int, count: WindowCount) -> Op[None]:
        """Subtract the hits that resulted in ``count``."""
        at = count.taken_at or 0
        if count.source != "backend":
            self.counters.give_back(rules.name, key, at=at, cost=cost)
            return
        self.forget_refusal(rules, key)
        place, now = (rules.name, key), int(self._monotonic() * 1e6)
        try:
            left: WindowCount = yield self.server.give_back(*place, rules.limits, at=at, cost=cost)
        except BackendUnavailableError:
            return  # they stay counted, which is the safe side
        self.counters.record_count(place, left, now)

    def reset(self, rules: LimitGroup, key: str) -> Op[None]:
        """Drop all hits of a key.

        Raises:
            BackendUnavailableError: the storage did not respond, so the hits still count.
        """
        self.counters.reset(rules.name, key)
        self.forget_refusal(rules, key)
        yield from self.server.reset(rules.name, key, rules.limits)

    def forget_refusal(self, rules: LimitGroup, key: str) -> None:
        """Send the next hit of a key to Redis, even if the key has just been refused."""
        self._refusals.pop((rules.name, key), None)

    def close(self) -> None:
        """Stop sending and release connections."""
        self._flush.close()
        self.server.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        self._flush.close()
        await self.server.aclose()

    def _shared_hit(self, rules: LimitGroup, key: str, cost: int) -> Op[WindowCount]:
        """Count hits in Redis, after sending it what it does not know of this key.

        Raises:
            BackendUnavailableError: the storage did not respond.
        """
        place, counters, moment = (rules.name, key), self.counters, self._monotonic()
        if rules.policy == "local" and moment >= self.members.due:
            yield from self._announce()
            if self.counts_locally():
                return self._local_hit(rules, key, cost)
        now = int(moment * 1e6)
        for _ in range(_MOST_LOSSES):
            if place in counters.unsent:
                yield from self._send_unsent(rules, key)
            known = counters.known_hits(place, now)
            count: WindowCount = yield self.server.hit(rules.name, key, rules.limits, cost=cost, known=known)
            if count.remaining:
                break
            self._record_loss(place)
        else:
            # It loses its data between any two calls: count once, whatever it holds.
            count = yield self.server.hit(*place, rules.limits, cost=cost)
        counters.record_count(place, count, now)
        return count

    def _record_loss(self, place: tuple[str, str]) -> None:
        # Redis has lost the data of this key, and counted nothing. The announcement tells whether it has lost all.
        self.counters.record_loss(place)
        self.members.due = 0.0
        self._start_flush()

    def _announce(self) -> Op[None]:
        if (yield from self.members.announce()):
            # Copied in a single step, because hits write to it without the lock.
            self.counters.record_loss(*list(self.counters.known))
            self._start_flush()

    def _remember_refusal(self, rules: LimitGroup, key: str, cost: int, count: WindowCount) -> None:
        now = self._monotonic()
        until = now + min(max(count.retry_after) / 1e6, _REFUSAL_LASTS)
        self._refusals[rules.name, key] = _KnownRefusal(count, cost, now, until)
        drop_oldest(self._refusals, _MOST_REFUSALS)

    # --- outages ---------------------------------------------------------------------------------

    def counts_locally(self) -> bool:
        """Return whether to count in this process without trying Redis.

        Either a probe is already testing an unavailable server, or the server is back but other processes, which
        notice that later, have not sent the hits they allowed during the outage yet.
        """
        if self.server.in_doubt():
            self.members.mark_unavailable()
        elif self._monotonic() >= self.members.apart_until:
            return False
        self._start_flush()
        return True

    def _local_hit(self, rules: LimitGroup, key: str, cost: int) -> WindowCount:
        if not 0 < cost <= rules.smallest_quota:
            return self._local_test(rules, key, cost)
        return self.counters.hit(rules.name, key, rules.limits, cost=cost)._replace(source="local")

    def _local_test(self, rules: LimitGroup, key: str, cost: int) -> WindowCount:
        count = self.counters.test(rules.name, key, rules.limits, cost=rules.fitting(cost))
        return count._replace(source="")

    def _record_outage(self) -> None:
        self.members.mark_unavailable()
        self.server.in_doubt()  # lets a probe test it
        self._start_flush()

    def _start_flush(self) -> None:
        if self.server.is_probed:
            self._flush.start()

    def flush(self) -> bool:
        """Send all unsent hits if Redis is back; return whether the thread has to continue.

        Raises:
            BackendUnavailableError: the storage did not respond.
        """
        if self.server.in_doubt():
            return True
        run(self._flush_unsent())
        return self.members.is_rejoining()

    def _flush_unsent(self) -> Op[None]:
        # Before announcing this process: one that others can see again must have sent its hits.
        yield from self._send_all_unsent()
        if self.members.is_due() or self.members.is_rejoining():
            yield from self._announce()
            yield from self._send_all_unsent()
        if self.members.is_rejoining():
            return
        for group, key in list(self.counters.synchronised):
            # No hit of this key follows that would record a starting point for the next outage.
            place, limits, now = (group, key), self._groups[group].limits, int(self._monotonic() * 1e6)
            known = self.counters.known_hits(place, now)
            count: WindowCount = yield self.server.test(*place, limits, cost=0, known=known)
            if count.remaining:
                self.counters.record_count(place, count, now)
            else:
                self._record_loss(place)

    def _send_all_unsent(self) -> Op[None]:
        for group, key in list(self.counters.unsent):
            rules = self._groups.get(group)
            if rules is not None:
                yield from self._send_unsent(rules, key)

    def _send_unsent(self, rules: LimitGroup, key: str) -> Op[None]:
        # Acquired before they are sent, so that no two threads send the same hits.
        hits = self.counters.acquire_unsent(rules.name, key, rules.limits)
        try:
            count = yield self.server.restore(rules.name, key, rules.limits, hits.unknown, known=hits.known)
        except BaseException:  # also when cancelled: the caller is gone, and the storage may know nothing
            self.counters.restore_unsent(hits)
            raise
        self.counters.record_sent(hits, count, apart=self._monotonic() < self.members.apart_until)


def _later(count: WindowCount, past: int) -> WindowCount:
    """Return a refusal with its waiting times as they are ``past`` microseconds later."""
    # Conditional expressions, which take half as long as max().
    return WindowCount(
        count.remaining,
        [reset - past if reset > past else 0 for reset in count.reset_after],
        # At least 1: a limit that refused the hit is reported until the hit fits all of them.
        [wait and (wait - past if wait > past else 1) for wait in count.retry_after],
        source="remembered",
    )
