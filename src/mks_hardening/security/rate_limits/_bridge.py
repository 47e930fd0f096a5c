"""The way over an outage: what the shared storage answers is noted, what it missed is told to it.

A hit tells of its own key before it is counted. A thread tells of all others as soon as the storage is back: their
clients may come to other processes from then on.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mks_hardening._core.operations import Op, run
from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security.rate_limits._outage_counters import OutageCounters
from mks_hardening.security.rate_limits._presence import Presence

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security.rate_limits._groups import Group
    from mks_hardening.security.rate_limits._redis_counters import RedisCounters
    from mks_hardening.security.rate_limits._windows import Count
    from mks_hardening.security.rate_limits.model import Strategy

__all__ = ["Bridge"]

_EVERY: Final = 0.25
"""Seconds between two looks of the thread whether the storage is back."""


class Bridge:
    """Hits in the shared storage by a process that can go on without it.

    Attributes:
        counters: for hits while the storage is away.
        presence: this process among those that use it.
    """

    __slots__ = ("__weakref__", "_closed", "_groups", "_shared", "_teller", "counters", "presence")

    def __init__(
        self,
        shared: RedisCounters,
        groups: Mapping[str, Group],
        processes: int = 1,
        *,
        strategy: Strategy,
        clock: Clock,
    ) -> None:
        self._shared = shared
        self._groups = groups
        self._closed = False
        self.presence = Presence(shared, clock, expected=processes)
        self.counters = OutageCounters(strategy=strategy, clock=clock, presence=self.presence)
        # Weakly: a limiter that is dropped in the middle of an outage must not be kept by its thread.
        me = weakref.ref(self)
        self._teller = IntervalThread(lambda: _tell_all(me()), every=_EVERY, name="mks-limits")

    def is_away(self) -> bool:
        """Whether to go on without the storage at once: a call would only find out what a probe is finding out."""
        if not self._shared.in_doubt():
            return False
        self.presence.ask_again()
        self._tell_the_rest()
        return True

    def is_behind(self, group: str, key: str) -> bool:
        """Whether the storage and this process have something to tell each other before the next hit."""
        return self.presence.is_due() or self.counters.owes(group, key)

    def catch_up(self, rules: Group, key: str) -> Op[None]:
        """Tell it.

        Raises:
            BackendUnavailableError: the storage did not answer.
        """
        if self.presence.is_due():
            losses = self.presence.losses
            yield from self.presence.keep()
            if self.presence.losses != losses:
                self._tell_the_rest()
        if self.counters.owes(rules.name, key):
            yield from self._settle(rules, key)

    def lost_contact(self) -> None:
        """The storage did not answer a hit; let a probe find out more."""
        self.presence.ask_again()
        self._shared.in_doubt()
        self._tell_the_rest()

    def tell_all(self) -> bool:
        """Tell the storage all it does not know, if it is back; whether something is left to be told."""
        if self._closed:
            return False
        if self._shared.in_doubt():
            return True
        try:
            run(self._told())
        except BackendUnavailableError:
            return not self._closed
        return False

    def close(self) -> None:
        """Tell no more, and release connections."""
        self._closed = True
        self._shared.close()

    async def aclose(self) -> None:
        """``close``, with the connections of the running event loop."""
        self._closed = True
        await self._shared.aclose()

    def _tell_the_rest(self) -> None:
        if self._shared.is_probed:
            self._teller.start()

    def _told(self) -> Op[None]:
        if self.presence.is_due():
            yield from self.presence.keep()
        for group, key in self.counters.owing():
            rules = self._groups.get(group)
            if rules is None:
                continue
            yield from self._settle(rules, key)
            # No hit follows here from which the next outage could go on.
            count: Count = yield self._shared.test(group, key, rules.limits, cost=0)
            self.counters.note(group, key, count)

    def _settle(self, rules: Group, key: str) -> Op[None]:
        # Taken over before the storage is told, so that two threads do not tell it the same hits.
        debt = self.counters.claim(rules.name, key, rules.limits)
        try:
            yield from self._shared.restore(rules.name, key, rules.limits, debt.unknown)
        except BaseException:  # cancelled too: who asked has gone, and the storage may know nothing
            self.counters.unsettled(debt)
            raise
        self.counters.settled(debt)


def _tell_all(bridge: Bridge | None) -> bool:
    return bridge is not None and bridge.tell_all()
