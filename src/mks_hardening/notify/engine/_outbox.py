"""The one owner of what is not delivered yet, from the log call until it was delivered or put aside.

A state machine over a clock that sends nothing itself. Its owner asks ``take``, sends, and reports ``succeeded``,
``refused`` or ``failed``; one parcel is under way at a time. Pauses and giving up are decided in ``_retries``, the
pace in ``_token_bucket``.

Nothing leaves before it is safe at the next place: what arrived stays until its alert is in line, and what is given
up stays until it is on disk. So a signal that ends the process in the middle of a step loses nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from mks_hardening.notify.engine._alert import Alert, AlertSnapshot
from mks_hardening.notify.engine._outgoing_message import OutgoingMessage
from mks_hardening.notify.engine._retries import RetryPolicy
from mks_hardening.notify.engine._token_bucket import TokenBucket

if TYPE_CHECKING:
    from mks_hardening.notify.engine._spool import SpoolClaim
    from mks_hardening.notify.policy import AlertPolicy

__all__ = ["Outbox"]

# Up to this many alerts that wait go out one by one; more become summaries of at most this size.
_SINGLE: Final = 5
_SUMMARY: Final = 40


class Outbox:
    """Alerts waiting for one destination.

    Args:
        policy: retries, pauses, rate.
        spooling: whether there is a spool, so that nothing needs to wait for a destination that is down.
        random: numbers in [0, 1) for the jitter.
        new_id: makes the ids of summaries.

    Attributes:
        arrived: taken from log calls, not yet put into words; added to by any thread.
        given_up: to be put aside.
    """

    def __init__(
        self, policy: AlertPolicy, *, spooling: bool, random: Callable[[], float], new_id: Callable[[], str]
    ) -> None:
        self._spooling = spooling
        self._new_id = new_id
        self.arrived: deque[AlertSnapshot] = deque()
        self.given_up: deque[OutgoingMessage] = deque()
        self._waiting: deque[OutgoingMessage] = deque()
        self._under_way: OutgoingMessage | None = None
        self._retries = RetryPolicy(policy, random=random)
        self._rate = TokenBucket(policy.rate)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._waiting and self._under_way is None

    @property
    def failing(self) -> bool:
        """Whether the last try failed."""
        return self._retries.failing

    @property
    def down(self) -> bool:
        """Whether the destination failed more often in a row than one alert is tried."""
        return self._retries.down

    def add(self, alerts: Iterable[Alert]) -> None:
        """Put alerts at the end of the line, each a parcel of its own."""
        self._waiting.extend(OutgoingMessage(alert.id, (alert,)) for alert in alerts)

    def add_replay(self, alerts: Iterable[Alert], claims: Iterable[SpoolClaim]) -> None:
        """Put alerts from the spool at the end of the line, together in one parcel."""
        several = tuple(alerts)
        self._waiting.append(
            OutgoingMessage(
                several[0].id if len(several) == 1 else self._new_id(), several, claims=tuple(claims)
            )
        )

    def wait(self, *, now: float) -> float:
        """Seconds until the destination may be tried: pauses after failures, and the rate."""
        return max(self._retries.wait(now=now), self._rate.wait(now=now))

    def take(self, *, now: float) -> OutgoingMessage | None:
        """The parcel to send now, or ``None`` when nothing waits or the destination may not be tried yet."""
        # One at a time: two tries at a dead destination take twice as long and say nothing more.
        if self._under_way is not None or not self._waiting or self.wait(now=now) > 0:
            return None
        self._rate.take()
        self._under_way = self._next_parcel()
        return self._under_way

    def is_last_try(self, parcel: OutgoingMessage) -> bool:
        """Whether it is given up if this try fails."""
        return bool(parcel.claims) or self._retries.exhausted(parcel.tries + 1)

    def succeeded(self) -> None:
        """The parcel under way was accepted."""
        self._under_way = None
        self._retries.answered()

    def refused(self) -> None:
        """The parcel under way was refused for good; that says nothing about the next one.

        Several alerts from the spool go out one by one then: it may be one of them that is not taken.
        """
        self._retries.answered()
        parcel = self._under_way
        if parcel is None or len(parcel.claims) < 2:
            self._give_up_under_way()
            return
        ones = zip(parcel.alerts, parcel.claims, strict=True)
        self._waiting.extendleft(
            reversed([OutgoingMessage(alert.id, (alert,), claims=(claim,)) for alert, claim in ones])
        )
        self._under_way = None

    def failed(self, *, now: float, retry_after: float | None = None) -> None:
        """The parcel under way failed for now; it is tried again, or given up, perhaps with all that wait."""
        parcel = self._under_way
        if parcel is None:
            return
        self._retries.failed(now=now, retry_after=retry_after)
        self._under_way = parcel = parcel._replace(tries=parcel.tries + 1)
        # On disk they are safe from the end of the process, and wait for nothing: so all of them go, not only
        # this one.
        if self.down and self._spooling:
            self.give_up()
        # One from the spool goes back at once; it is there already.
        elif parcel.claims or self._retries.exhausted(parcel.tries):
            self._give_up_under_way()
        else:
            self._waiting.appendleft(parcel)
            self._under_way = None

    def give_up(self) -> None:
        """Give up everything that is in line or under way; a result that comes later is ignored."""
        self._give_up_under_way()
        while self._waiting:
            self.given_up.append(self._waiting[0])
            self._waiting.popleft()

    def _give_up_under_way(self) -> None:
        if self._under_way is not None:
            self.given_up.append(self._under_way)
            self._under_way = None

    def is_under_way(self, parcel: OutgoingMessage) -> bool:
        """Whether a result of this parcel is still wanted."""
        return self._under_way is parcel

    def _next_parcel(self) -> OutgoingMessage:
        head = self._waiting.popleft()
        # Never put together with others once it was tried: receivers know a repetition by its id.
        if head.tries or head.claims or len(self._waiting) < _SINGLE:
            return head
        together = [head]
        while self._waiting and len(together) < _SUMMARY and not self._waiting[0].claims:
            together.append(self._waiting.popleft())
        return OutgoingMessage(self._new_id(), tuple(parcel.alerts[0] for parcel in together))
