"""Delivery of the messages of an outbox: send, record results, spool and replay.

The worker and ``close()`` may run concurrently here. The result of each alert is recorded once, by the first of
them: every step except sending runs under one lock, which is also held while the spool is written. The outbox
decides whether a failed message is retried.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from mks_hardening._core.backend.network_errors import PERMANENT_REASONS
from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify.engine._outbox import Outbox
from mks_hardening.notify.engine._reporting import AlertCounts, SelfReporter, sending

if TYPE_CHECKING:
    from mks_hardening.notify.alert_policy import AlertPolicy
    from mks_hardening.notify.engine._alert import Alert, OutgoingMessage, Render
    from mks_hardening.notify.engine._reporting import State
    from mks_hardening.notify.engine._shared_store import SharedStore
    from mks_hardening.notify.engine._spool import Spool
    from mks_hardening.protocols import Clock, Transport

__all__ = ["Delivery", "Destination", "new_id"]

_FLUSH_TIMEOUT: Final = 0.5  # seconds at the end of a process; gunicorn leaves one for all after sending
# As many as a summary holds, so that a few messages follow a long outage instead of hundreds.
_REPLAY_AT_ONCE: Final = 40


class Destination(NamedTuple):
    """Where and how a handler sends its alerts.

    Attributes:
        channel: kind of destination, for events and thread names.
        policy: limits, retries and rate.
        render: converts an outgoing message to an alert message.
        transport: delivers a message.
        spool: stores undeliverable alerts, or ``None``.
        shared: coordinates several processes, or ``None``.
        clock: wall and monotonic clock.
    """

    channel: str
    policy: AlertPolicy
    render: Render
    transport: Transport
    spool: Spool | None
    shared: SharedStore | None
    clock: Clock


def new_id() -> str:
    """Return a unique id."""
    return uuid4().hex


class Delivery:
    """Delivery of alerts to one destination.

    Args:
        destination: where and how to send.
        counts: counts of the handler.
    """

    def __init__(self, destination: Destination, counts: AlertCounts) -> None:
        self._destination = destination
        self._spool = destination.spool
        self._counts = counts
        self._reporter = SelfReporter(destination.channel)
        self.outbox: Outbox = Outbox(
            destination.policy, spooling=self._spool is not None, random=random.random, new_id=new_id
        )
        self.sealed: bool = False
        # Reentrant: a signal handler may end the process while this thread holds the lock.
        self.lock: threading.RLock = threading.RLock()
        self._replaying = False
        # Whether alerts were spooled because of the destination, so that it may accept them by now.
        self._replay_after_success = False
        self._last_failure = ""

    def check_spool(self) -> None:
        """Replay alerts of an earlier process, and report those for other destinations."""
        if self._spool is None:
            return
        if foreign := self._spool.count_foreign():
            self._reporter.report(
                f"alerts for another destination stay in the spool ({foreign}): create a handler with their address"
                " to send them, and set spool_name= so that the next change of address leaves none behind"
            )
        self._replaying = self._replaying or not self._spool.empty()

    def enqueue(self, alerts: Iterable[Alert]) -> None:
        """Queue alerts; once the handler has ended, the caller must spool them instead."""
        with self.lock:
            self.outbox.add(alerts)

    def send_due(self, *, replay: bool = True) -> float | None:
        """Send until the destination needs a pause; return its length, or ``None`` if nothing is left to send.

        Args:
            replay: whether to replay spooled alerts too, when nothing else is queued.
        """
        while True:
            now = self._destination.clock.monotonic()
            with self.lock:
                message = self.outbox.next_message(now=now)
                delay, idle = self.outbox.wait(now=now), self.outbox.idle
            if message is not None:
                self._send(message)
            elif idle and not (replay and self._replaying):
                return None
            elif not idle or delay > 0:
                return delay
            else:
                self._fetch_from_spool()

    def spool_rest(self) -> None:
        """Spool all queued messages and the one being sent, whose later result is ignored."""
        with self.lock:
            reason = self._last_failure if self.outbox.failing else "closed"
            self.outbox.give_up()
            # The process may be killed soon: first write all alerts, then flush them to the disk.
            self._spool_given_up(reason, flush=False)
            if self._spool is not None:
                self._spool.flush(_FLUSH_TIMEOUT)

    def report_error(self, error: Exception) -> None:
        """Count and report an error of the notifier or a transport, without its message: it may contain secrets."""
        with self._counts.lock:
            self._counts.errors += 1
        self._reporter.report(f"an error in the notifier itself ({type(error).__name__})")

    def _send(self, message: OutgoingMessage) -> None:
        failure: DeliveryError | None = None
        with sending():
            try:
                self._destination.transport.send(self._destination.render(message))
            except DeliveryError as error:
                failure = error
            # Raised by sockets with any transport: a retry may succeed.
            except OSError as error:
                failure = DeliveryError(type(error).__name__, temporary=True)
            except Exception as error:  # noqa: BLE001 - ours, or one of a custom transport; the alert is not lost
                self.report_error(error)
                failure = DeliveryError("fault", temporary=False)
            self._record_result(message, failure)

    def _record_result(self, message: OutgoingMessage, error: DeliveryError | None) -> None:
        outbox, reporter = self.outbox, self._reporter
        with self.lock:
            # close() has spooled it while it was being sent; recording its result would count it twice.
            if not outbox.is_sending(message):
                return
            was_down = outbox.down
            # Otherwise the recipients that accepted it would receive it again with each replay, while another is
            # deferred.
            partial = (
                error is not None
                and error.partial
                and (not error.temporary or outbox.is_last_attempt(message))
            )
            if error is None or partial:
                self._record_delivery(message)
            else:
                self._record_failure(error)
            is_down = outbox.down
        if error is None:
            reporter.reset()
        elif partial:
            reporter.report(f"an alert did not reach all recipients ({error.reason})")
        elif not error.temporary:
            reporter.report(f"an alert was refused ({error.reason})")
        if was_down and not is_down:
            reporter.up()
        elif is_down and not was_down and error is not None:
            reporter.down(error.reason)

    def _record_delivery(self, message: OutgoingMessage) -> None:
        was_failing = self.outbox.failing
        self.outbox.succeeded()
        with self._counts.lock:
            self._counts.deliveries += 1
            self._counts.replayed += len(message.entries)
            self._counts.end("delivered", number=message.weight)
        if self._spool is not None:
            for entry in message.entries:
                self._spool.remove(entry)
            # Not after every delivery: listing a folder costs more than a message.
            if was_failing or self._replay_after_success:
                self._replay_after_success = False
                self._replaying = True

    def _record_failure(self, error: DeliveryError) -> None:
        self._last_failure = error.reason
        if error.temporary:
            self.outbox.failed(now=self._destination.clock.monotonic(), retry_after=error.retry_after)
        else:
            self.outbox.refused()
        # After a temporary failure the replay continues after the pause; after a problem of the destination, after
        # the next delivery; a message that was itself refused waits for the next start.
        self._replaying = error.temporary and bool(self.outbox.given_up)
        self._replay_after_success = self._replay_after_success or error.reason in PERMANENT_REASONS
        self._spool_given_up(error.reason)

    def _spool_given_up(self, reason: str, *, flush: bool = True) -> None:
        """Spool the messages that were given up; without a spool, or with a full one, they count as dropped."""
        given_up = self.outbox.given_up
        while given_up:
            # Write to disk first, then remove from the queue: a signal in between duplicates an alert, but loses
            # none.
            message = given_up[0]
            if message.entries and self._spool is not None:
                for entry in message.entries:
                    self._spool.unlock(entry)
            else:
                for alert in message.alerts:
                    state, why = self._spool_alert(alert, reason, flush=flush)
                    with self._counts.lock:
                        self._counts.end(state, why, number=alert.weight)
            given_up.popleft()

    def _spool_alert(self, alert: Alert, reason: str, *, flush: bool) -> tuple[State, str]:
        if self._spool is None:
            self._reporter.report(
                f"alerts are lost ({reason}): set a spool folder with spool= or MKS_ALERT_SPOOL"
            )
            return "dropped", reason
        try:
            self._spool.put(alert, flush=flush)
        except OSError as error:
            self._reporter.report(f"the spool cannot store alerts ({type(error).__name__})")
            return "dropped", "spool_full"
        return "spooled", reason

    def _fetch_from_spool(self) -> None:
        with self.lock:
            spooled = self._spool.lock_entries(_REPLAY_AT_ONCE) if self._spool and not self.sealed else []
            if spooled:
                self.outbox.add_spooled(spooled)
            self._replaying = bool(spooled)
