"""Carries out what the outbox says: send, settle, put aside, fetch back.

The worker and ``close()`` may meet here. Each alert is settled once, by whoever comes first: every step but the
sending itself happens under one lock, which is also held while the spool is written. Whether a failure is tried
again is decided in ``_retries``.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from mks_hardening._core.backend.network_errors import LASTING
from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify.engine._outbox import Outbox
from mks_hardening.notify.engine._outgoing_message import OutgoingMessage
from mks_hardening.notify.engine._reporter import SelfReporter, sending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mks_hardening.notify.engine._alert import Alert
    from mks_hardening.notify.engine._alert_counts import AlertCounts, State
    from mks_hardening.notify.engine._outgoing_message import Render
    from mks_hardening.notify.engine._spool import Spool
    from mks_hardening.notify.policy import AlertPolicy
    from mks_hardening.protocols import Clock, Transport

__all__ = ["Delivery", "new_id"]

# As many as a summary holds, so that a long outage comes back as a few messages and not as hundreds.
_FLUSH_PATIENCE: Final = 0.5  # seconds at the end of a process; gunicorn leaves one for all after the sending
_REPLAY_AT_ONCE: Final = 40


def new_id() -> str:
    """An id that nobody else makes."""
    return uuid4().hex


class Delivery:
    """The way of alerts to one destination.

    Args:
        policy: when and how often.
        render: turns a parcel into a message.
        transport: delivers a message.
        spool: keeps what cannot be delivered, or ``None``.
        ledger: keeps the sums.
        reporter: reports troubles.
        clock: monotonic time.
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
        # Reentrant: a signal handler may end the process while we hold it.
        self.lock: threading.RLock = threading.RLock()
        self._replaying = False
        # Whether something was put aside because of the destination, so that it may be taken by now.
        self._owing = False

    @property
    def gave_up(self) -> bool:
        """Whether nothing waits here because the destination does not take anything."""
        return self.outbox.failing and self.outbox.idle

    def look_into_spool(self) -> None:
        """Replay what an earlier process left behind, and report what it left for somebody else."""
        if self._spool is None:
            return
        if strangers := self._spool.strangers():
            self._reporter.strangers(strangers)
        if not self._spool.empty():
            self.start_replaying()

    def start_replaying(self) -> None:
        """Look at the spool when nothing else waits, until it is empty or the destination refuses."""
        self._replaying = True

    def enqueue(self, alerts: Sequence[Alert]) -> None:
        """Put alerts in line; after the end somebody must put them aside."""
        with self.lock:
            self.outbox.add(alerts)

    def send_due(self, *, replay: bool = True) -> float | None:
        """Send until the destination wants a pause; its length, or ``None`` when nothing is left to send.

        Args:
            replay: whether to look into the spool, too.
        """
        while True:
            now = self._clock.monotonic()
            with self.lock:
                parcel = self.outbox.take(now=now)
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
        """Put aside everything that waits or is under way; a result that comes later is ignored."""
        with self.lock:
            self.outbox.give_up()
            # The process is about to be killed: each alert gets out of it first, and is flushed to the disk then.
            self._put_aside_given_up("closed", flush=False)
            if self._spool is not None:
                self._spool.flush(_FLUSH_PATIENCE)

    def count_fault(self, error: Exception) -> None:
        """Count and report an error that must not leave the notifier."""
        with self._ledger.lock:
            self._ledger.faults += 1
        self._reporter.fault(error)

    def _send(self, parcel: OutgoingMessage) -> None:
        with sending():
            try:
                self._transport.send(self._render(parcel))
            except DeliveryError as error:
                self._settle(parcel, error)
            # What sockets raise, whatever transport is used: it may be better in a moment.
            except OSError as error:
                self._settle(parcel, DeliveryError(type(error).__name__, temporary=True))
            except Exception as error:  # noqa: BLE001 - ours, or a foreign transport's; the alert is kept
                self.count_fault(error)
                self._settle(parcel, DeliveryError("fault", temporary=False))
            else:
                self._settle(parcel, None)

    def _settle(self, parcel: OutgoingMessage, error: DeliveryError | None) -> None:
        with self.lock:
            # close() has put it aside while it was being sent; a second settling would count it twice.
            if not self.outbox.is_under_way(parcel):
                return
            was_down = self.outbox.down
            # Those who have it would get it again with each replay, for as long as one of the others is deferred.
            partial = (
                error is not None
                and error.partial
                and (not error.temporary or self.outbox.is_last_try(parcel))
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
            self._ledger.replayed += len(parcel.claims)
            self._ledger.end("delivered", number=parcel.weight)
        if self._spool is not None:
            for claim in parcel.claims:
                self._spool.done(claim)
            # Not after every delivery: looking into a folder costs more than a message.
            if was_failing or self._owing:
                self._owing = False
                self.start_replaying()

    def _not_delivered(self, error: DeliveryError) -> None:
        if error.temporary:
            self.outbox.failed(now=self._clock.monotonic(), retry_after=error.retry_after)
        else:
            self.outbox.refused()
        # What may pass is tried again when the pause is over; what is wrong with the destination, after the next
        # delivery; what was refused itself waits for the next start.
        self._replaying = error.temporary and bool(self.outbox.given_up)
        self._owing = self._owing or error.reason in LASTING
        self._put_aside_given_up(error.reason)

    def _put_aside_given_up(self, reason: str, *, flush: bool = True) -> None:
        given_up = self.outbox.given_up
        while given_up:
            # On disk first and out of the line then: a signal in between doubles an alert, but loses none.
            self._put_aside(given_up[0], reason, flush=flush)
            given_up.popleft()

    def _put_aside(self, parcel: OutgoingMessage, reason: str, *, flush: bool) -> None:
        """Spool what was given up; without a spool, or with a full one, it is lost and counted."""
        if parcel.claims and self._spool is not None:
            for claim in parcel.claims:
                self._spool.release(claim)
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
            claimed = self._spool.claim(_REPLAY_AT_ONCE) if self._spool and not self.sealed else []
            if claimed:
                self.outbox.add_replay([alert for _, alert in claimed], [claim for claim, _ in claimed])
            else:
                self._replaying = False
