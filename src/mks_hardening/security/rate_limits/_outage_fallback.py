"""Fallback to counters in this process during a storage outage, and the synchronisation afterwards.

A hit first sends the unsent hits of its own key. A background thread sends those of all other keys as soon as the
storage is back, because from then on their clients may reach other processes.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mks_hardening._core.operations import Op, run
from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security.rate_limits._generations import Generations
from mks_hardening.security.rate_limits._outage_counters import OutageCounters
from mks_hardening.security.rate_limits._presence import Presence

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security.rate_limits._groups import LimitGroup
    from mks_hardening.security.rate_limits._redis_counters import RedisCounters
    from mks_hardening.security.rate_limits._windows import WindowCount
    from mks_hardening.security.rate_limits.limit import Strategy

__all__ = ["OutageFallback"]

_MOST_LOSSES: Final = 8
"""Attempts of one hit while the storage keeps losing its data."""
_EVERY: Final = 0.25
"""Seconds between two checks of the background thread whether the storage is back."""


class OutageFallback:
    """Hits in the shared storage, for a process that counts by itself during an outage.

    Attributes:
        counters: counters for hits during an outage.
        presence: this process among those that use the storage.
        generations: the known generations of the data in the storage.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_groups",
        "_sender_thread",
        "_shared",
        "counters",
        "generations",
        "presence",
    )

    def __init__(
        self,
        shared: RedisCounters,
        groups: Mapping[str, LimitGroup],
        processes: int = 1,
        *,
        strategy: Strategy,
        clock: Clock,
    ) -> None:
        self._shared = shared
        self._groups = groups
        self._closed = False
        self.presence = Presence(shared, clock, expected=processes, waits=shared.is_probed)
        self.generations = Generations(shared, self.presence)
        self.counters = OutageCounters(
            strategy=strategy, clock=clock, presence=self.presence, generation=self.generations.of
        )
        # A weak reference: the thread must not keep alive a limiter that is dropped during an outage.
        me = weakref.ref(self)
        self._sender_thread = IntervalThread(lambda: _send_all(me()), every=_EVERY, name="mks-limits")

    def must_count_locally(self) -> bool:
        """Return whether to count in this process without trying the storage.

        Either a probe is already testing an unavailable storage, or the storage is back but other processes, which
        notice that later, have not sent the hits they allowed during the outage yet.
        """
        if self._shared.in_doubt():
            self.presence.mark_unavailable()
        elif not self.presence.is_returning():
            return False
        self._start_sender()
        return True

    def needs_synchronisation(self, group: str, key: str) -> bool:
        """Return whether this process has to synchronise with the storage before the next hit."""
        return self.presence.is_due() or self.counters.has_unsent_hits(group, key)

    def hit(self, rules: LimitGroup, key: str, cost: int) -> Op[WindowCount | None]:
        """Take hits in the storage after sending it unsent ones; ``None`` if this process has to count the hit.

        Raises:
            BackendUnavailableError: the storage did not respond.
        """
        for _ in range(_MOST_LOSSES):
            if self.must_count_locally():
                return None
            if self.presence.is_due():
                losses = self.presence.losses
                yield from self.presence.keep()
                if self.presence.losses != losses:
                    self._start_sender()
                continue
            if self.counters.has_unsent_hits(rules.name, key):
                yield from self._settle(rules, key)
            count: WindowCount = yield self._shared.hit(
                rules.name, key, rules.limits, cost=cost, generation=self.generations.of(rules.name, key)
            )
            if count.remaining:
                return count
            self.record_generation(rules.name, key, count.generation)
        # The storage loses its data between any two calls: count once, whatever it holds.
        count = yield self._shared.hit(rules.name, key, rules.limits, cost=cost)
        return count

    def record_generation(self, group: str, key: str, generation: int) -> None:
        """Record the generation of a reply; after a data loss the background thread restores the lost hits too."""
        if self.generations.record_generation(group, key, generation):
            self._start_sender()

    def record_outage(self) -> None:
        """Record that the storage did not respond to a hit, and let a probe test it."""
        self.presence.mark_unavailable()
        self._shared.in_doubt()
        self._start_sender()

    def send_unsent_hits(self) -> bool:
        """Send all unsent hits if the storage is back; return whether the thread has to continue."""
        if self._closed:
            return False
        if self._shared.in_doubt():
            return True
        try:
            run(self._told())
        except BackendUnavailableError:
            return not self._closed
        return self.presence.is_settling()

    def close(self) -> None:
        """Stop sending and release connections."""
        self._closed = True
        self._shared.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        self._closed = True
        await self._shared.aclose()

    def _start_sender(self) -> None:
        if self._shared.is_probed:
            self._sender_thread.start()

    def _told(self) -> Op[None]:
        yield from self.generations.read_all()
        # Before announcing this process: one that others can see again must have sent its hits.
        yield from self._settle_all()
        if self.presence.is_due() or self.presence.is_settling():
            losses = self.presence.losses
            yield from self.presence.keep()
            if self.presence.losses != losses:
                yield from self._settle_all()
        if self.presence.is_settling():
            return
        for group, key in self.counters.synchronised_keys():
            # No hit of this key follows that would record a starting point for the next outage.
            count: WindowCount = yield self._shared.test(group, key, self._groups[group].limits, cost=0)
            self.counters.note(group, key, count)

    def _settle_all(self) -> Op[None]:
        for group, key in self.counters.keys_with_unsent_hits():
            rules = self._groups.get(group)
            if rules is not None:
                yield from self._settle(rules, key)

    def _settle(self, rules: LimitGroup, key: str) -> Op[None]:
        # On a cluster, a replica promoted during the outage may lack earlier hits.
        yield from self.generations.read(rules.name, key)
        # Claimed before they are sent, so that no two threads send the same hits.
        debt = self.counters.claim(rules.name, key, rules.limits)
        try:
            yield from self._shared.restore(
                rules.name,
                key,
                rules.limits,
                debt.unknown,
                generation=self.generations.of(rules.name, key),
            )
        except BaseException:  # also when cancelled: the caller is gone, and the storage may know nothing
            self.counters.unsettled(debt)
            raise
        self.counters.settled(debt, goes_on=self.presence.is_returning())


def _send_all(bridge: OutageFallback | None) -> bool:
    return bridge is not None and bridge.send_unsent_hits()
