"""Outbox: owner of all undelivered alerts, from the log call until they are delivered or spooled.

A state machine over a clock that sends nothing itself. Its owner calls ``take``, sends, and reports ``succeeded``,
``refused`` or ``failed``; only one message is being sent at a time. ``_retries`` decides about pauses and giving
up, ``_token_bucket`` about the rate.

Nothing is removed before it is safe in the next place: a snapshot stays until its alert is queued, and a message
that is given up stays until it is on disk. A signal that ends the process in the middle of a step therefore loses
nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from mks_hardening.notify.engine._alert import Alert, AlertSnapshot, OutgoingMessage
from mks_hardening.notify.engine._retries import RetryPolicy
from mks_hardening.notify.engine._token_bucket import TokenBucket

if TYPE_CHECKING:
    from mks_hardening.notify.engine._spool import LockedEntry
    from mks_hardening.notify.policy import AlertPolicy

__all__ = ["Outbox"]

# Up to this many queued alerts are sent one by one; more are combined to summaries of at most _SUMMARY.
_SINGLE: Final = 5
_SUMMARY: Final = 40


class Outbox:
    """Queue of alerts for one destination.

    Args:
        policy: retries, pauses, rate.
        spooling: whether there is a spool, so that nothing needs to wait for a destination that is down.
        random: returns numbers in [0, 1) for the jitter.
        new_id: creates the ids of summaries.

    Attributes:
        arrived: snapshots of log calls, not yet converted to alerts; any thread may append.
        given_up: messages to be spooled.
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
        """Whether nothing is queued and nothing is being sent."""
        return not self._waiting and self._under_way is None

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._retries.failing

    @property
    def down(self) -> bool:
        """Whether the destination has failed more times in a row than one message is attempted."""
        return self._retries.down

    def add(self, alerts: Iterable[Alert]) -> None:
        """Append alerts to the queue, each as its own message."""
        self._waiting.extend(OutgoingMessage(alert.id, (alert,)) for alert in alerts)

    def add_replay(self, alerts: Iterable[Alert], entries: Iterable[LockedEntry]) -> None:
        """Append alerts from the spool to the queue, combined in one message."""
        several = tuple(alerts)
        self._waiting.append(
            OutgoingMessage(
                several[0].id if len(several) == 1 else self._new_id(), several, entries=tuple(entries)
            )
        )

    def wait(self, *, now: float) -> float:
        """Return the seconds until the next attempt is allowed, by the pause after failures and the rate."""
        return max(self._retries.wait(now=now), self._rate.wait(now=now))

    def take(self, *, now: float) -> OutgoingMessage | None:
        """Return the message to send now, or ``None`` if there is none or no attempt is allowed yet."""
        # One at a time: two attempts at a dead destination take twice as long without more information.
        if self._under_way is not None or not self._waiting or self.wait(now=now) > 0:
            return None
        self._rate.take()
        self._under_way = self._next_parcel()
        return self._under_way

    def is_last_try(self, parcel: OutgoingMessage) -> bool:
        """Whether the message is given up if this attempt fails."""
        return bool(parcel.entries) or self._retries.exhausted(parcel.tries + 1)

    def succeeded(self) -> None:
        """Record that the message being sent was accepted."""
        self._under_way = None
        self._retries.answered()

    def refused(self) -> None:
        """Record that the message being sent was permanently refused, which says nothing about the next one.

        A message with several alerts from the spool is then sent one alert at a time: only one of them may be
        refused.
        """
        self._retries.answered()
        parcel = self._under_way
        if parcel is None or len(parcel.entries) < 2:
            self._give_up_under_way()
            return
        ones = zip(parcel.alerts, parcel.entries, strict=True)
        self._waiting.extendleft(
            reversed([OutgoingMessage(alert.id, (alert,), entries=(entry,)) for alert, entry in ones])
        )
        self._under_way = None

    def failed(self, *, now: float, retry_after: float | None = None) -> None:
        """Record a temporary failure of the message being sent; retry it or give it up, maybe with all others."""
        parcel = self._under_way
        if parcel is None:
            return
        self._retries.failed(now=now, retry_after=retry_after)
        self._under_way = parcel = parcel._replace(tries=parcel.tries + 1)
        # On disk they survive the end of the process and need not wait in memory: all are given up, not only this
        # one.
        if self.down and self._spooling:
            self.give_up()
        # A message from the spool returns there at once, because its alerts are still on disk.
        elif parcel.entries or self._retries.exhausted(parcel.tries):
            self._give_up_under_way()
        else:
            self._waiting.appendleft(parcel)
            self._under_way = None

    def give_up(self) -> None:
        """Give up all queued messages and the one being sent, whose later result is ignored."""
        self._give_up_under_way()
        while self._waiting:
            self.given_up.append(self._waiting[0])
            self._waiting.popleft()

    def _give_up_under_way(self) -> None:
        if self._under_way is not None:
            self.given_up.append(self._under_way)
            self._under_way = None

    def is_under_way(self, parcel: OutgoingMessage) -> bool:
        """Whether this message is still being sent, so that its result counts."""
        return self._under_way is parcel

    def _next_parcel(self) -> OutgoingMessage:
        head = self._waiting.popleft()
        # A message that was attempted is never combined with others: receivers detect duplicates by its id.
        if head.tries or head.entries or len(self._waiting) < _SINGLE:
            return head
        together = [head]
        while self._waiting and len(together) < _SUMMARY and not self._waiting[0].entries:
            together.append(self._waiting.popleft())
        return OutgoingMessage(self._new_id(), tuple(parcel.alerts[0] for parcel in together))
