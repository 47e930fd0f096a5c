"""The way over an outage: what the shared storage answers is noted, what it missed is told to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.operations import Op
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security.rate_limits._outage_counters import OutageCounters
from mks_hardening.security.rate_limits._presence import Presence

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security.rate_limits._groups import Group
    from mks_hardening.security.rate_limits._redis_counters import RedisCounters
    from mks_hardening.security.rate_limits.model import Strategy

__all__ = ["Bridge"]


class Bridge:
    """Hits in the shared storage by a process that can go on without it.

    Attributes:
        counters: for hits while the storage is away.
        presence: this process among those that use it.
    """

    __slots__ = ("_shared", "counters", "presence")

    def __init__(self, shared: RedisCounters, *, strategy: Strategy, clock: Clock) -> None:
        self._shared = shared
        self.presence = Presence(shared, clock)
        self.counters = OutageCounters(strategy=strategy, clock=clock, presence=self.presence)

    def is_away(self) -> bool:
        """Whether to go on without the storage at once: a call would only find out what a probe is finding out."""
        if not self._shared.in_doubt():
            return False
        self.presence.ask_again()
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
            yield from self.presence.keep()
        if self.counters.owes(rules.name, key):
            yield from self._settle(rules, key)

    def lost_contact(self) -> None:
        """The storage did not answer a hit; let a probe find out more."""
        self.presence.ask_again()
        self._shared.in_doubt()

    def _settle(self, rules: Group, key: str) -> Op[None]:
        # Taken over before the storage is told, so that two threads do not tell it the same hits.
        debt = self.counters.claim(rules.name, key, rules.limits)
        try:
            yield from self._shared.restore(rules.name, key, rules.limits, debt.unknown)
        except BackendUnavailableError:
            self.counters.unsettled(debt)
            raise
        self.counters.settled(debt)
