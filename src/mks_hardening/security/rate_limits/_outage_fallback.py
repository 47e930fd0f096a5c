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
"""Rounds of one hit with a storage that loses its data in the middle of them."""
_EVERY: Final = 0.25
"""Seconds between two looks of the thread whether the storage is back."""


class OutageFallback:
    """Hits in the shared storage by a process that can go on without it.

    Attributes:
        counters: for hits while the storage is away.
        presence: this process among those that use it.
        generations: of the data in the storage, as far as this process knows.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_groups",
        "_shared",
        "_teller",
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
        # Weakly: a limiter that is dropped in the middle of an outage must not be kept by its thread.
        me = weakref.ref(self)
        self._teller = IntervalThread(lambda: _tell_all(me()), every=_EVERY, name="mks-limits")

    def is_away(self) -> bool:
        """Whether to go on without the storage at once.

        A call would only find out what a probe is finding out; or other processes, which find out later that the
        storage is back, have not told it yet what they let pass.
        """
        if self._shared.in_doubt():
            self.presence.ask_again()
        elif not self.presence.is_returning():
            return False
        self._tell_the_rest()
        return True

    def is_behind(self, group: str, key: str) -> bool:
        """Whether the storage and this process have something to tell each other before the next hit."""
        return self.presence.is_due() or self.counters.owes(group, key)

    def hit(self, rules: LimitGroup, key: str, cost: int) -> Op[WindowCount | None]:
        """Take hits in the storage, after it was told what it does not know; ``None`` if this process has to count.

        Raises:
            BackendUnavailableError: the storage did not answer.
        """
        for _ in range(_MOST_LOSSES):
            if self.is_away():
                return None
            if self.presence.is_due():
                losses = self.presence.losses
                yield from self.presence.keep()
                if self.presence.losses != losses:
                    self._tell_the_rest()
                continue
            if self.counters.owes(rules.name, key):
                yield from self._settle(rules, key)
            count: WindowCount = yield self._shared.hit(
                rules.name, key, rules.limits, cost=cost, generation=self.generations.of(rules.name, key)
            )
            if count.remaining:
                return count
            self.heard(rules.name, key, count.generation)
        # It loses its data between any two calls; counted as it stands, once.
        count = yield self._shared.hit(rules.name, key, rules.limits, cost=cost)
        return count

    def heard(self, group: str, key: str, generation: int) -> None:
        """Note the generation of an answer; what the storage has lost it is told in the background too."""
        if self.generations.heard(group, key, generation):
            self._tell_the_rest()

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
        return self.presence.is_settling()

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
        yield from self.generations.read_all()
        # Before the sign of life: a process that others see again has told what it let pass.
        yield from self._settle_all()
        if self.presence.is_due() or self.presence.is_settling():
            losses = self.presence.losses
            yield from self.presence.keep()
            if self.presence.losses != losses:
                yield from self._settle_all()
        if self.presence.is_settling():
            return
        for group, key in self.counters.settled_places():
            # No hit follows here from which the next outage could go on.
            count: WindowCount = yield self._shared.test(group, key, self._groups[group].limits, cost=0)
            self.counters.note(group, key, count)

    def _settle_all(self) -> Op[None]:
        for group, key in self.counters.owing():
            rules = self._groups.get(group)
            if rules is not None:
                yield from self._settle(rules, key)

    def _settle(self, rules: LimitGroup, key: str) -> Op[None]:
        # Of a cluster: a replica that was promoted in the outage may lack what was before it.
        yield from self.generations.read(rules.name, key)
        # Taken over before the storage is told, so that two threads do not tell it the same hits.
        debt = self.counters.claim(rules.name, key, rules.limits)
        try:
            yield from self._shared.restore(
                rules.name,
                key,
                rules.limits,
                debt.unknown,
                generation=self.generations.of(rules.name, key),
            )
        except BaseException:  # cancelled too: who asked has gone, and the storage may know nothing
            self.counters.unsettled(debt)
            raise
        self.counters.settled(debt, goes_on=self.presence.is_returning())


def _tell_all(bridge: OutageFallback | None) -> bool:
    return bridge is not None and bridge.tell_all()
