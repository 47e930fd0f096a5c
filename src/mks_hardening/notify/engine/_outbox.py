"""Outbox: owner of all undelivered alerts, from the log call until they are delivered or spooled.

A state machine over a clock that sends nothing itself. Its owner calls ``next_message``, sends, and reports
``succeeded``, ``refused`` or ``failed``; only one message is being sent at a time. Messages wait for the rate (a
token bucket) and, after a failure, for a pause that grows exponentially.

Nothing is removed before it is safe in the next place: a snapshot stays until its alert is queued, and a message
that is given up stays until it is on disk. A signal that ends the process in the middle of a step therefore loses
nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from mks_hardening.notify.engine._alert import Alert, AlertSnapshot, OutgoingMessage

if TYPE_CHECKING:
    from mks_hardening.notify.alert_policy import AlertPolicy
    from mks_hardening.notify.engine._spool import LockedEntry

__all__ = ["Outbox", "pause_before_retry"]

# Up to this many queued alerts are sent one by one; more are combined to summaries of at most _SUMMARY.
_SINGLE: Final = 5
_SUMMARY: Final = 40
# Slack tolerates short bursts before it enforces one message per second.
_BURST: Final = 3.0


class Outbox:
    """Queue of alerts for one destination.

    Args:
        policy: retries, pauses, rate.
        spooling: whether there is a spool, so that nothing needs to wait for a destination that is down.
        random: returns numbers in [0, 1) for the jitter.
        new_id: creates the ids of summaries.

    Attributes:
        snapshots: snapshots of log calls, not yet converted to alerts; any thread may append.
        given_up: messages to be spooled.
    """

    def __init__(
        self, policy: AlertPolicy, *, spooling: bool, random: Callable[[], float], new_id: Callable[[], str]
    ) -> None:
        self._policy = policy
        self._spooling = spooling
        self._random = random
        self._new_id = new_id
        self.snapshots: deque[AlertSnapshot] = deque()
        self.given_up: deque[OutgoingMessage] = deque()
        self._queue: deque[OutgoingMessage] = deque()
        self._sending: OutgoingMessage | None = None
        self._failures = 0
        self._not_before = float("-inf")
        # Minus infinity: the bucket is full at the first call.
        self._tokens, self._refilled = _BURST, float("-inf")

    @property
    def idle(self) -> bool:
        """Whether nothing is queued and nothing is being sent."""
        return not self._queue and self._sending is None

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    @property
    def down(self) -> bool:
        """Whether the destination has failed more times in a row than one message is attempted."""
        return self._failures > self._policy.retries

    def add(self, alerts: Iterable[Alert]) -> None:
        """Append alerts to the queue, each as its own message."""
        self._queue.extend(OutgoingMessage(alert.id, (alert,)) for alert in alerts)

    def add_spooled(self, spooled: Sequence[tuple[LockedEntry, Alert]]) -> None:
        """Append alerts from the spool to the queue, combined in one message."""
        entries, alerts = tuple(entry for entry, _ in spooled), tuple(alert for _, alert in spooled)
        message_id = alerts[0].id if len(alerts) == 1 else self._new_id()
        self._queue.append(OutgoingMessage(message_id, alerts, entries=entries))

    def wait(self, *, now: float) -> float:
        """Return the seconds until the next attempt is allowed, by the pause after failures and the rate."""
        self._tokens = min(_BURST, self._tokens + (now - self._refilled) * self._policy.rate)
        self._refilled = now
        return max(0.0, self._not_before - now, (1 - self._tokens) / self._policy.rate)

    def next_message(self, *, now: float) -> OutgoingMessage | None:
        """Return the message to send now, or ``None`` if there is none or no attempt is allowed yet."""
        # One at a time: two attempts at a dead destination take twice as long without more information.
        if self._sending is not None or not self._queue or self.wait(now=now) > 0:
            return None
        self._tokens -= 1
        self._sending = self._combined()
        return self._sending

    def is_sending(self, message: OutgoingMessage) -> bool:
        """Whether this message is still being sent, so that its result counts."""
        return self._sending is message

    def is_last_attempt(self, message: OutgoingMessage) -> bool:
        """Whether the message is given up if this attempt fails."""
        # A message from the spool returns there at once, because its alerts are still on disk.
        return bool(message.entries) or message.tries >= self._policy.retries

    def succeeded(self) -> None:
        """Record that the message being sent was accepted."""
        self._sending = None
        self._failures = 0

    def refused(self) -> None:
        """Record that the message being sent was permanently refused, which says nothing about the next one.

        A message with several alerts from the spool is then sent one alert at a time: only one of them may be
        refused.
        """
        self._failures = 0
        message = self._sending
        if message is None or len(message.entries) < 2:
            self._give_up_sending()
            return
        pairs = zip(message.alerts, message.entries, strict=True)
        single = [OutgoingMessage(alert.id, (alert,), entries=(entry,)) for alert, entry in pairs]
        self._queue.extendleft(reversed(single))
        self._sending = None

    def failed(self, *, now: float, retry_after: float | None = None) -> None:
        """Record a temporary failure of the message being sent; retry it or give it up, maybe with all others.

        The next attempt follows after a pause, which the destination may extend.
        """
        message = self._sending
        if message is None:
            return
        self._failures += 1
        pause = pause_before_retry(self._policy, self._failures, random=self._random)
        # Ignores "Retry-After: 0": there is always a pause.
        self._not_before = now + max(pause, retry_after or 0.0)
        last = self.is_last_attempt(message)
        self._sending = message = message._replace(tries=message.tries + 1)
        # On disk they survive the end of the process and need not wait in memory: all are given up, not only this
        # one.
        if self.down and self._spooling:
            self.give_up()
        elif last:
            self._give_up_sending()
        else:
            self._queue.appendleft(message)
            self._sending = None

    def give_up(self) -> None:
        """Give up all queued messages and the one being sent, whose later result is ignored."""
        self._give_up_sending()
        while self._queue:
            self.given_up.append(self._queue[0])
            self._queue.popleft()

    def _give_up_sending(self) -> None:
        if self._sending is not None:
            self.given_up.append(self._sending)
            self._sending = None

    def _combined(self) -> OutgoingMessage:
        first = self._queue.popleft()
        # A message that was attempted is never combined with others: receivers detect duplicates by its id.
        if first.tries or first.entries or len(self._queue) < _SINGLE:
            return first
        alerts = [first.alerts[0]]
        while self._queue and len(alerts) < _SUMMARY and not self._queue[0].entries:
            alerts.append(self._queue.popleft().alerts[0])
        return OutgoingMessage(self._new_id(), tuple(alerts))


def pause_before_retry(policy: AlertPolicy, failures: int, *, random: Callable[[], float]) -> float:
    """Return the pause in seconds after ``failures`` consecutive failures: exponential, with jitter in one half."""
    longest = min(policy.backoff_max, policy.backoff * 2.0 ** min(failures - 1, 60))
    # The other half is fixed, so that a destination that is down is never retried immediately by chance.
    return longest * (0.5 + random() / 2)
