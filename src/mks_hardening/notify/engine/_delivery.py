"""Delivery of the messages of an outbox: send, record results, spool and replay.

The worker and ``close()`` may run concurrently here. The result of each alert is recorded once, by the first of
them: every step except sending runs under one lock, which is also held while the spool is written. The outbox
decides whether a failed message is retried.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from mks_hardening._core.backend.network_errors import PERMANENT_REASONS
from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify.engine._alert import OutgoingMessage
from mks_hardening.notify.engine._outbox import Outbox
from mks_hardening.notify.engine._reporter import SelfReporter, sending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mks_hardening.notify.engine._alert import Alert, Render
    from mks_hardening.notify.engine._alert_counts import AlertCounts, State
    from mks_hardening.notify.engine._spool import Spool
    from mks_hardening.notify.policy import AlertPolicy
    from mks_hardening.protocols import Clock, Transport

__all__ = ["Delivery", "new_id"]

_FLUSH_PATIENCE: Final = 0.5  # seconds at the end of a process; gunicorn leaves one for all after sending
# As many as a summary holds, so that a few messages follow a long outage instead of hundreds.
_REPLAY_AT_ONCE: Final = 40


def new_id() -> str:
    """Return a unique id."""
    return uuid4().hex


class Delivery:
    """Delivery of alerts to one destination.

    Args:
        policy: limits, retries and rate.
        render: converts an outgoing message to an alert message.
        transport: delivers a message.
        spool: stores undeliverable alerts, or ``None``.
        ledger: counts of the handler.
        reporter: reports problems of the delivery.
        clock: monotonic clock.
    """

    def __init__(
        self,
        *,
        policy: AlertPolicy,
        render: Render,
        transport: Transport,
        spool: Spool | None,
        ledger: AlertCounts,
        reporter: SelfReporter,
        clock: Clock,
    ) -> None:
        self._render = render
        self._transport = transport
        self._spool = spool
        self._ledger = ledger
        self._reporter = reporter
        self._clock = clock
        self.outbox: Outbox = Outbox(policy, spooling=spool is not None, random=random.random, new_id=new_id)
        self.sealed: bool = False
        # Reentrant: a signal handler may end the process while this thread holds the lock.
        self.lock: threading.RLock = threading.RLock()
        self._replaying = False
        # Whether alerts were spooled because of the destination, so that it may accept them by now.
        self._owing = False

    @property
    def gave_up(self) -> bool:
        """Whether nothing is queued because the destination does not accept messages."""
        return self.outbox.failing and self.outbox.idle

    def look_into_spool(self) -> None:
        """Replay alerts of an earlier process, and report those for other destinations."""
        if self._spool is None:
            return
        if strangers := self._spool.count_foreign():
            self._reporter.strangers(strangers)
        if not self._spool.empty():
            self.start_replaying()

    def start_replaying(self) -> None:
        """Replay spooled alerts when nothing else is queued, until none is left or the destination refuses."""
        self._replaying = True

    def enqueue(self, alerts: Sequence[Alert]) -> None:
        """Queue alerts; after the end of the handler the caller must spool them."""
        with self.lock:
            self.outbox.add(alerts)

    def send_due(self, *, replay: bool = True) -> float | None:
        """Send until the destination needs a pause; return its length, or ``None`` if nothing is left to send.

        Args:
            replay: whether to replay spooled alerts too.
        """
        while True:
            now = self._clock.monotonic()
            with self.lock:
                parcel = self.outbox.next_message(now=now)
                delay, idle = self.outbox.wait(now=now), self.outbox.idle
            if parcel is not None:
                self._send(parcel)
            elif idle and not (replay and self._replaying):
                return None
            elif not idle or delay > 0:
                return delay
            else:
                self._fetch_from_spool()

    def put_rest_aside(self) -> None:
        """Spool all queued messages and the one being sent, whose later result is ignored."""
        with self.lock:
            self.outbox.give_up()
            # The process may be killed soon: first write all alerts, then flush them to the disk.
            self._put_aside_given_up("closed", flush=False)
            if self._spool is not None:
                self._spool.flush(_FLUSH_PATIENCE)

    def count_fault(self, error: Exception) -> None:
        """Count and report an error that must not propagate from the notifier."""
        with self._ledger.lock:
            self._ledger.errors += 1
        self._reporter.fault(error)

    def _send(self, parcel: OutgoingMessage) -> None:
        with sending():
            try:
                self._transport.send(self._render(parcel))
            except DeliveryError as error:
                self._settle(parcel, error)
            # Raised by sockets with any transport: a retry may succeed.
            except OSError as error:
                self._settle(parcel, DeliveryError(type(error).__name__, temporary=True))
            except Exception as error:  # noqa: BLE001 - our error, or one of a custom transport; the alert is kept
                self.count_fault(error)
                self._settle(parcel, DeliveryError("fault", temporary=False))
            else:
                self._settle(parcel, None)

    def _settle(self, parcel: OutgoingMessage, error: DeliveryError | None) -> None:
        with self.lock:
            # close() has spooled it while it was being sent; recording its result would count it twice.
            if not self.outbox.is_sending(parcel):
                return
            was_down = self.outbox.down
            # Otherwise the recipients that accepted it would receive it again with each replay, while another is
            # deferred.
            partial = (
                error is not None
                and error.partial
                and (not error.temporary or self.outbox.is_last_attempt(parcel))
            )
            if error is None or partial:
                self._delivered(parcel)
            else:
                self._not_delivered(error)
            is_down = self.outbox.down
        if error is None:
            self._reporter.delivered()
        elif partial:
            self._reporter.partly_delivered(error.reason)
        elif not error.temporary:
            self._reporter.refused(error.reason)
        if was_down and not is_down:
            self._reporter.up()
        elif is_down and not was_down and error is not None:
            self._reporter.down(error.reason)

    def _delivered(self, parcel: OutgoingMessage) -> None:
        was_failing = self.outbox.failing
        self.outbox.succeeded()
        with self._ledger.lock:
            self._ledger.deliveries += 1
            self._ledger.replayed += len(parcel.entries)
            self._ledger.end("delivered", number=parcel.weight)
        if self._spool is not None:
            for entry in parcel.entries:
                self._spool.remove(entry)
            # Not after every delivery: listing a folder costs more than a message.
            if was_failing or self._owing:
                self._owing = False
                self.start_replaying()

    def _not_delivered(self, error: DeliveryError) -> None:
        if error.temporary:
            self.outbox.failed(now=self._clock.monotonic(), retry_after=error.retry_after)
        else:
            self.outbox.refused()
        # After a temporary failure the replay continues after the pause; after a problem of the destination, after
        # the next delivery; a message that was itself refused waits for the next start.
        self._replaying = error.temporary and bool(self.outbox.given_up)
        self._owing = self._owing or error.reason in PERMANENT_REASONS
        self._put_aside_given_up(error.reason)

    def _put_aside_given_up(self, reason: str, *, flush: bool = True) -> None:
        given_up = self.outbox.given_up
        while given_up:
            # Write to disk first, then remove from the queue: a signal in between duplicates an alert, but loses
            # none.
            self._put_aside(given_up[0], reason, flush=flush)
            given_up.popleft()

    def _put_aside(self, parcel: OutgoingMessage, reason: str, *, flush: bool) -> None:
        """Spool a message that was given up; without a spool, or with a full one, it is counted as dropped."""
        if parcel.entries and self._spool is not None:
            for entry in parcel.entries:
                self._spool.unlock(entry)
            return
        for alert in parcel.alerts:
            state, why = self._keep(alert, reason, flush=flush)
            with self._ledger.lock:
                self._ledger.end(state, why, number=alert.weight)

    def _keep(self, alert: Alert, reason: str, *, flush: bool) -> tuple[State, str]:
        if self._spool is None:
            self._reporter.lost(reason)
            return "dropped", reason
        try:
            self._spool.put(alert, flush=flush)
        except OSError as error:
            self._reporter.spool_failed(error)
            return "dropped", "spool_full"
        return "spooled", reason

    def _fetch_from_spool(self) -> None:
        with self.lock:
            locked = self._spool.lock_entries(_REPLAY_AT_ONCE) if self._spool and not self.sealed else []
            if locked:
                self.outbox.add_spooled(locked)
            else:
                self._replaying = False
