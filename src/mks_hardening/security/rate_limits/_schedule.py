"""Schedule outgoing calls: one schedule for all processes, and one in each process without a storage.

A schedule is the time until which it is reserved (the theoretical arrival time of GCRA). Each call gets the first
free time, in the order of the requests, and reserves its cost. This process remembers the last reservation it
knows: it continues from there during an outage, and sends it to a storage that has lost its data.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core import hooks
from mks_hardening._core.memo import drop_oldest
from mks_hardening._core.operations import Op, Pause
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.events import RateLimitDecided
from mks_hardening.exceptions import BackendUnavailableError, PaceTimeoutError

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security._membership import Membership
    from mks_hardening.security.rate_limits._groups import LimitGroup
    from mks_hardening.security.rate_limits._redis_counters import RedisCounters

__all__ = ["PaceSchedule", "TurnPlace", "WantedTurn"]

_MOST_KEYS: Final = 100_000
_JITTER: Final = 100_000
"""Microseconds by which reply times may differ; a known reservation is shortened by that much."""


class WantedTurn(NamedTuple):
    """A request for a turn, in whole microseconds.

    Attributes:
        spacing: time between two calls of cost 1.
        cost: cost of this call (a number, not microseconds).
        burst: number of calls of cost 1 that may go out at once after a pause.
        longest: maximum time until the call must go out.
    """

    spacing: int
    cost: int
    burst: int
    longest: int


class TurnPlace(NamedTuple):
    """A place in the schedule; times are microseconds on the clock of its storage or process.

    Attributes:
        reserved: whether the place was reserved; one beyond ``longest`` is not.
        start: time of the call.
        now: time of the request.
        till: end of the reserved part of the schedule.
        occupied: length of this call's part.
        source: where the schedule is kept: ``backend``, or the outage policy.
    """

    reserved: bool
    start: int
    now: int
    till: int
    occupied: int
    source: str = "backend"


class PaceSchedule:
    """Schedules by group and key.

    Args:
        shared: the storage with the shared schedules, if any.
        members: the processes that use the storage.
        clock: monotonic clock.
    """

    __slots__ = ("__weakref__", "_lock", "_members", "_monotonic", "_shared", "_till")

    def __init__(self, shared: RedisCounters | None, members: Membership | None, clock: Clock) -> None:
        self._shared = shared
        self._members = members
        self._monotonic = clock.monotonic
        self._till: OrderedDict[tuple[str, str], int] = OrderedDict()
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child; the parent's reservations remain."""
        self._lock = threading.RLock()

    def turn(self, rules: LimitGroup, key: str, wanted: WantedTurn) -> Op[float]:
        """Reserve a place and wait for it; return the seconds waited.

        Raises:
            PaceTimeoutError: the turn would come too late.
            BackendUnavailableError: see ``reserve``.
        """
        place = yield from self.reserve(rules, key, wanted)
        if hooks.observers:
            hooks.emit(RateLimitDecided(rules.name, place.reserved, place.source))
        wait = (place.start - place.now) / 1e6
        if not place.reserved:
            # Raised now rather than after the timeout: it is known already that the turn comes too late.
            raise PaceTimeoutError(rules.name, wait, timeout=wanted.longest / 1e6)
        if wait:
            try:
                yield Pause(wait)
            except BaseException:  # cancelled, or interrupted
                # Otherwise all later calls would wait for a call that never goes out.
                yield from self.give_up(rules, key, place)
                raise
        return wait

    def reserve(self, rules: LimitGroup, key: str, wanted: WantedTurn) -> Op[TurnPlace]:
        """Reserve the next free time.

        Raises:
            BackendUnavailableError: the storage did not respond, and the policy is ``closed``.
        """
        if self._shared is None or self._members is None:
            return self._reserve_locally(rules.name, key, wanted)
        if rules.policy == "local" and self._shared.in_doubt():
            self._members.mark_unavailable()
            return self._reserve_share(rules, key, wanted, self._members.workers)
        requested = self._now()
        # As a duration from now, since the clocks of this host and of the server are unrelated.
        known = max(0, self._till.get((rules.name, key), 0) - requested - _JITTER)
        try:
            if self._members.is_due():
                yield from self._members.announce()
            place = yield from self._shared.reserve(rules, key, wanted, known=known)
        except BackendUnavailableError:
            self._members.mark_unavailable()
            if rules.policy == "closed":
                raise
            if rules.policy == "open":
                return TurnPlace(reserved=True, start=0, now=0, till=0, occupied=0, source="open")
            return self._reserve_share(rules, key, wanted, self._members.workers)
        if place.reserved:
            with self._lock:
                self._remember((rules.name, key), requested + place.till - place.now)
        return place

    def give_up(self, rules: LimitGroup, key: str, place: TurnPlace) -> Op[None]:
        """Release a place that will not be used, unless a later one is reserved: a schedule has no gaps."""
        name = rules.name, key
        if self._shared is None or place.source == "local":
            with self._lock:
                if self._till.get(name) == place.till:
                    self._till[name] = place.till - place.occupied
        elif place.source == "backend":
            with self._lock:
                self._till.pop(name, None)
            try:
                yield from self._shared.give_up(rules, key, place)
            except BackendUnavailableError:
                return  # it stays reserved, which only delays later calls

    def _reserve_share(self, rules: LimitGroup, key: str, wanted: WantedTurn, workers: int) -> TurnPlace:
        # Each of n processes at an nth of the pace makes the full pace in total, without coordination.
        share = wanted._replace(spacing=wanted.spacing * workers, burst=max(1, wanted.burst // workers))
        return self._reserve_locally(rules.name, key, share)._replace(source="local")

    def _reserve_locally(self, group: str, key: str, wanted: WantedTurn) -> TurnPlace:
        occupied = wanted.cost * wanted.spacing
        with self._lock:
            now = self._now()
            till = self._till.get((group, key), 0)
            # GCRA tolerance: a burst may run ahead of the schedule by all but one of its spacings.
            start = max(till - (wanted.burst - 1) * wanted.spacing, now)
            reserved = start - now <= wanted.longest
            if reserved:
                till = max(till, start) + occupied
                self._remember((group, key), till)
        return TurnPlace(reserved=reserved, start=start, now=now, till=till, occupied=occupied)

    def _remember(self, place: tuple[str, str], till: int) -> None:
        known = max(till, self._till.pop(place, 0))
        self._till[place] = known  # moved to the end
        drop_oldest(self._till, _MOST_KEYS)

    def _now(self) -> int:
        return int(self._monotonic() * 1e6)
