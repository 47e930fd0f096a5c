"""Carries out what the outbox says: send, settle, put aside, fetch back.

The worker and ``close()`` may meet here. Each alert is settled once, by whoever comes first: every step but the
sending itself happens under one lock, which is also held while the spool is written.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify.outbox import Outbox, Parcel
from mks_hardening.notify.reporter import Reporter, sending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mks_hardening.notify.alert import Alert
    from mks_hardening.notify.ledger import Ledger, State
    from mks_hardening.notify.message import Render
    from mks_hardening.notify.policy import AlertPolicy
    from mks_hardening.notify.spool import Spool
    from mks_hardening.protocols import Clock, Transport

__all__ = ["Delivery", "new_id"]

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
        reporter: is told of troubles.
        clock: monotonic time.
    """

    def __init__(
        self,
        *,
        policy: AlertPolicy,
        render: Render,
        transport: Transport,
        spool: Spool | None,
        ledger: Ledger,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._render = render
        self._transport = transport
        self._spool = spool
        self._ledger = ledger
        self._reporter = reporter
        self._clock = clock
        self._outbox = Outbox(policy, spooling=spool is not None, random=random.random, new_id=new_id)
        self._sealed = False
        # Reentrant: a signal handler may end the process while we hold it.
        self.lock: threading.RLock = threading.RLock()
        self._replaying = False  # whether the spool is to be looked at when nothing else waits
        self._ending = False

    @property
    def gave_up(self) -> bool:
        """Whether nothing waits here because the destination does not take anything."""
        return self._outbox.failing and self._outbox.idle

    def start_replaying(self) -> None:
        """Look at the spool when nothing else waits, until it is empty or the destination refuses."""
        self._replaying = not self._ending

    def stop_replaying(self) -> None:
        """Leave what is in the spool to the next process."""
        self._replaying, self._ending = False, True

    def enqueue(self, alerts: Sequence[Alert]) -> None:
        """Put alerts in line; after the end, straight into the spool."""
        with self.lock:
            if not self._sealed:
                self._outbox.add(alerts)
                return
            for alert in alerts:
                self._put_aside(Parcel(alert.id, (alert,)), "closed")

    def send_due(self) -> float | None:
        """Send until the destination wants a pause; its length, or ``None`` when nothing is left to send."""
        while True:
            now = self._clock.monotonic()
            with self.lock:
                parcel = self._outbox.take(now=now)
                delay, idle = self._outbox.wait(now=now), self._outbox.idle
            if parcel is not None:
                self._send(parcel)
            elif idle and not self._replaying:
                return None
            elif not idle or delay > 0:
                return delay
            else:
                self._fetch_from_spool()

    def seal(self) -> None:
        """Put aside everything that waits or is under way; a result that comes later is ignored."""
        with self.lock:
            self._sealed = True
            self.stop_replaying()
            for parcel in self._outbox.seize():
                self._put_aside(parcel, "closed")

    def count_fault(self, error: Exception) -> None:
        """Count and report an error that must not leave the notifier."""
        with self._ledger.lock:
            self._ledger.faults += 1
        self._reporter.fault(error)

    def _send(self, parcel: Parcel) -> None:
        with sending():
            try:
                self._transport.send(self._render(parcel))
            except DeliveryError as error:
                self._settle(parcel, error)
            except OSError as error:
                self._settle(parcel, DeliveryError(type(error).__name__, temporary=True))
            except Exception as error:  # noqa: BLE001 - ours, or a foreign transport's; the alert is kept
                self.count_fault(error)
                self._settle(parcel, DeliveryError("fault", temporary=False))
            else:
                self._settle(parcel, None)

    def _settle(self, parcel: Parcel, error: DeliveryError | None) -> None:
        with self.lock:
            if not self._outbox.is_under_way(parcel):
                return
            was_down = self._outbox.down
            if error is None:
                self._delivered(parcel)
            else:
                self._not_delivered(error)
            is_down = self._outbox.down
        if error is None:
            self._reporter.delivered()
        elif not error.temporary:
            self._reporter.refused(error.reason)
        if was_down and not is_down:
            self._reporter.up()
        elif is_down and not was_down and error is not None:
            self._reporter.down(error.reason)

    def _delivered(self, parcel: Parcel) -> None:
        was_failing = self._outbox.failing
        self._outbox.succeeded()
        with self._ledger.lock:
            self._ledger.deliveries += 1
            self._ledger.replayed += len(parcel.claims)
            self._ledger.end("delivered", number=parcel.weight)
        if self._spool is not None:
            for claim in parcel.claims:
                self._spool.done(claim)
            if was_failing:
                self.start_replaying()

    def _not_delivered(self, error: DeliveryError) -> None:
        if error.temporary:
            given_up = self._outbox.failed(now=self._clock.monotonic(), retry_after=error.retry_after)
        else:
            given_up = self._outbox.refused()
        # What was refused for good waits for the next start; what may pass is tried again when the pause is over.
        self._replaying = error.temporary and bool(given_up) and not self._ending
        for parcel in given_up:
            self._put_aside(parcel, error.reason)

    def _put_aside(self, parcel: Parcel, reason: str) -> None:
        """Spool what was given up; without a spool, or with a full one, it is lost and counted."""
        if parcel.claims and self._spool is not None:
            for claim in parcel.claims:
                self._spool.release(claim)
            return
        for alert in parcel.alerts:
            state, why = self._keep(alert, reason)
            with self._ledger.lock:
                self._ledger.end(state, why, number=alert.weight)

    def _keep(self, alert: Alert, reason: str) -> tuple[State, str]:
        if self._spool is None:
            return "dropped", reason
        try:
            self._spool.put(alert)
        except OSError as error:
            self._reporter.spool_failed(error)
            return "dropped", "spool_full"
        return "spooled", reason

    def _fetch_from_spool(self) -> None:
        with self.lock:
            claimed = self._spool.claim(_REPLAY_AT_ONCE) if self._spool and not self._sealed else []
            if claimed:
                self._outbox.add_replay([alert for _, alert in claimed], [claim for claim, _ in claimed])
            else:
                self._replaying = False
