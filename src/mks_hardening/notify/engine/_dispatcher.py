"""Dispatcher between log call and delivery: deduplication on the caller's thread, and a worker behind a queue.

``take`` runs on the logging thread: it counts the record, decides whether it is the first of its kind, and adds a
snapshot to the outbox, which owns it from then on. The worker converts it to an alert without secrets and sends it.

Shutdown: from ``_begin_end`` on no record is accepted, and the worker sends what it can within the timeout. Then
the waiting caller (``close``, the exit of the process, or a signal during either) spools the rest. Every step may
be repeated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakSet

from mks_hardening._core import hooks
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.background_worker import BackgroundWorker
from mks_hardening._core.process.exit_hooks import on_exit
from mks_hardening.notify.engine._alert import (
    Alert,
    AlertOrigin,
    AlertSnapshot,
    alert_from,
    fingerprint_of,
    reader_for,
    snapshot_of,
    valid_time,
)
from mks_hardening.notify.engine._alert_counts import AlertCounts
from mks_hardening.notify.engine._dedup_windows import DedupWindows, RepeatedAlert
from mks_hardening.notify.engine._delivery import Delivery, new_id
from mks_hardening.notify.engine._reporter import SelfReporter
from mks_hardening.notify.policy import AlertPolicy
from mks_hardening.notify.stats import AlertStats

if TYPE_CHECKING:
    from logging import LogRecord

    from mks_hardening.notify.engine._alert import Render
    from mks_hardening.notify.engine._shared_store import Moment, SharedStore
    from mks_hardening.notify.engine._spool import Spool
    from mks_hardening.protocols import Clock, Redactor, Transport

__all__ = ["Dispatcher"]

# Seconds to deliver queued alerts when the handler is closed or the process ends.
_PATIENCE: Final = 5.0
# Limits the delay of counts for exporters: a quiet handler would report them only at the end of a window.
_NEWS_EVERY: Final = 10.0
# Maximum seconds for which the worker, sending before shutdown, does not notice that it was given up.
_GLANCE: Final = 0.05
# Seconds after the end of a window for other processes, whose windows end at the same time, to report as well.
_FOR_OTHERS: Final = 2.0
# Result of a shared store for an alert that another process has sent.
_SENT_ELSEWHERE: Final = -1


class Dispatcher:
    """Accept records and deliver them as alerts.

    Args:
        channel: kind of destination, for events and thread names.
        policy: limits, retries and rate.
        render: converts an outgoing message to an alert message.
        transport: delivers a message.
        spool: stores undeliverable alerts, or ``None``.
        shared: coordinates several processes, or ``None``.
        origin: host and environment.
        redactor: redacts secrets.
        clock: wall and monotonic clock.
    """

    def __init__(
        self,
        channel: str,
        *,
        policy: AlertPolicy,
        render: Render,
        transport: Transport,
        spool: Spool | None,
        shared: SharedStore | None,
        origin: AlertOrigin,
        redactor: Redactor,
        clock: Clock,
    ) -> None:
        self._channel = channel
        self._policy = policy
        self._render = render
        self._transport = transport
        self._spool = spool
        self._shared = shared
        self._origin = origin
        self._reader = reader_for(redactor)
        self._clock = clock
        self._ending: _Ending | None = None
        self.reset_after_fork()
        self._worker: BackgroundWorker[Callable[[], object]] = BackgroundWorker(
            self._do,
            name=f"mks-alerts-{channel}",
            max_queue=policy.max_queue + 100,  # alerts are limited in take(); room for internal requests
            tick=self._tick,
            at_exit=False,
            clock=clock,
        )
        _dispatchers.add(self)
        register_after_fork(self)
        on_exit(self._at_exit)
        if spool is not None and not (spool.empty() and spool.count_foreign() == 0):
            self._worker.put(self._delivery.look_into_spool)

    def reset_after_fork(self) -> None:
        """Reset the state, also in a forked child: the parent delivers and counts its own alerts."""
        policy = self._policy
        if self._spool is not None:
            self._spool.reset_after_fork()
        self._ledger = AlertCounts()
        self._windows = DedupWindows(
            policy.dedup_window, digest=policy.digest, shared=self._shared is not None
        )
        self._delivery = Delivery(
            policy=policy,
            render=self._render,
            transport=self._transport,
            spool=self._spool,
            ledger=self._ledger,
            reporter=SelfReporter(self._channel),
            clock=self._clock,
        )
        self._flushes: list[_Flush] = []
        self._handed_over: list[tuple[float, RepeatedAlert]] = []

    def drain(self) -> None:
        """Spool all undelivered alerts, before ``reset_after_fork`` in a process that continues."""
        self._worker.drain()
        self._delivery.put_rest_aside()

    # --- logging thread ----------------------------------------------------------------------

    def take(self, record: LogRecord) -> None:
        """Count a record and queue it if it is the first of its kind. Never blocks."""
        message = self._reader.message(record)
        kind = fingerprint_of(record, message)
        now = self._clock.monotonic()
        ledger, windows = self._ledger, self._windows
        with ledger.lock:
            ledger.begin()
            if self._ending is not None:
                return ledger.end("dropped", "closed")
            if not windows.admit(kind, now=now, at=record.created):
                return ledger.end("suppressed")
            if ledger.pending > self._policy.max_queue:
                # The next of its kind may find space; it must not count as a repetition of an alert that was
                # dropped.
                windows.forget(kind)
                return ledger.end("dropped", "queue_full")
            repeats = windows.take_repeats(kind)
        try:
            taken = snapshot_of(record, self._reader.snapshot(record, message), kind=kind, repeats=repeats)
        except Exception:  # noqa: BLE001 - a malformed record; a log call must not fail because of its alert
            with ledger.lock:
                windows.forget(kind)
                ledger.errors += 1
                return ledger.end("dropped", "fault")
        self._delivery.outbox.snapshots.append(taken)
        # The job contains no data: snapshots stay in the outbox, so a full queue or a lost thread loses no alert.
        self._worker.put(self._accept_next)
        if self._delivery.sealed:  # the handler was closed in between
            self._put_rest_aside()
        return None

    def fault(self) -> None:
        """Count a record that could not be processed."""
        with self._ledger.lock:
            self._ledger.errors += 1
            self._ledger.begin()
            self._ledger.end("dropped", "fault")

    def stats(self) -> AlertStats:
        """Return the current counts."""
        with self._ledger.lock:
            return self._ledger.stats()

    def flush(self, timeout: float) -> bool:
        """Send queued alerts and report all repetitions; return whether none is left within ``timeout`` seconds."""
        # The worker thread cannot wait for itself.
        if self._worker.is_current_thread:
            return self.stats().pending == 0
        flush = _Flush(self._clock.monotonic() + timeout)
        self._flushes.append(flush)
        if not self._worker.put(partial(self._begin_flush, flush)):
            self._flushes.remove(flush)
            return self.stats().pending == 0
        return flush.done.wait(timeout) and flush.complete

    # --- shutdown ----------------------------------------------------------------------------

    def close(self, timeout: float = _PATIENCE) -> None:
        """Deliver what is possible within ``timeout`` seconds and spool the rest. Idempotent."""
        self._begin_end(timeout)
        self._finish_end()

    def abandon(self) -> None:
        """Close without waiting, when no thread logs here any more."""
        self._begin_end(_PATIENCE)
        self._worker.put(self._finish_end)

    def _at_exit(self) -> None:
        """Close together with all other dispatchers: two dead destinations must not take twice as long."""
        for dispatcher in list(_dispatchers):
            dispatcher._begin_end(_PATIENCE)  # noqa: SLF001 - same class
        self._finish_end()

    def _begin_end(self, timeout: float) -> None:
        ending = _Ending(self._clock.monotonic() + timeout, margin=0.1 * timeout)
        with self._ledger.lock:
            begun = self._ending is not None
            # The earliest deadline counts: a signal during a close() with a long timeout must not wait for it.
            self._ending = min(ending, self._ending or ending)
        if not begun:
            self._worker.put(self._drain)

    def _drain(self) -> None:
        """Send until shortly before the deadline, so that the worker returns before it is given up."""
        self._add_digests("close")
        while (delay := self._delivery.send_due(replay=False)) is not None and self._ending is not None:
            if self._clock.monotonic() + delay > self._ending.until - self._ending.margin:
                return
            sleep(min(delay, _GLANCE))  # if it is given up in the meantime, nothing is left to send

    def _finish_end(self) -> None:
        if self._ending is None:
            return
        until = self._ending.until
        self._worker.close(max(0.0, until - self._clock.monotonic()))
        if self._clock.monotonic() < until:  # perhaps too late for threads, with nothing sent yet
            self._accept_all()
            self._delivery.send_due(replay=False)
        self._put_rest_aside()
        self._inform_observers()
        self._transport.close()
        if self._spool is not None:
            self._spool.close()
        if self._shared is not None:
            self._shared.close()

    def _put_rest_aside(self) -> None:
        with self._delivery.lock:
            complete = self._delivery.outbox.idle and not self._delivery.outbox.snapshots
            self._delivery.sealed = True  # first, so that a thread that takes a record later comes here too
            self._accept_all()
            self._delivery.put_rest_aside()
        self._answer_flushes(complete=complete)

    def _accept_all(self) -> None:
        while self._delivery.outbox.snapshots:
            self._accept_next()
        self._add_digests("close")

    # --- worker thread -----------------------------------------------------------------------

    def _do(self, job: Callable[[], object]) -> None:
        job()
        if self._delivery.sealed:  # it was given up while it ran this job
            self._delivery.put_rest_aside()

    def _tick(self) -> float | None:
        """Do what is due; return the seconds until the next step."""
        if self._ending is not None:
            return None
        self._add_digests("window")
        delay = self._delivery.send_due()
        self._inform_observers()
        if delay is None or self._delivery.gave_up:
            self._answer_flushes(complete=True)
        else:
            self._answer_flushes(complete=False, not_before=self._clock.monotonic() + delay)
        return self._until_next(delay)

    def _accept_next(self) -> None:
        """Convert the oldest snapshot to an alert and queue it."""
        arrived = self._delivery.outbox.snapshots
        with self._delivery.lock:
            if arrived:
                self._admit(arrived[0])
                arrived.popleft()

    def _admit(self, taken: AlertSnapshot) -> None:
        alert = self._alert(taken)
        unreported = self._shared.admit(alert.fingerprint) if self._shared is not None else None
        with self._ledger.lock:
            self._windows.remember(taken.kind, alert)
            if unreported == _SENT_ELSEWHERE:
                self._windows.count(taken.kind, alert, now=self._clock.monotonic())
                self._ledger.end("suppressed", "shared")
                return
        self._delivery.enqueue([alert._replace(repeats=alert.repeats + (unreported or 0))])

    def _alert(self, taken: AlertSnapshot) -> Alert:
        try:
            return alert_from(taken, id=new_id(), origin=self._origin, reader=self._reader)
        except Exception as error:  # noqa: BLE001 - foreign objects are converted to text here
            self._delivery.count_fault(error)
            what = f"(this alert could not be put into words: {type(error).__name__})"
            return Alert(new_id(), taken.kind.digest(), 0.0, "ERROR", "?", what)

    def _add_digests(self, moment: Moment) -> None:
        with self._ledger.lock:
            due = self._windows.due(now=self._clock.monotonic(), everything=moment != "window")
            if moment == "close":
                self._windows.clear()
        unreported = [
            *((repeats, self._unreported(repeats, moment)) for repeats in due),
            *((repeats, self._unreported(repeats, moment)) for repeats in self._told_by_others(moment)),
        ]
        self._delivery.enqueue([_digest(repeats, number) for repeats, number in unreported if number])

    def _unreported(self, repeats: RepeatedAlert, moment: Moment) -> int:
        """Return the repetitions that this process must report now, possibly including those of other processes."""
        if self._shared is None:
            return repeats.number
        if moment == "window" and not repeats.handed_over:
            moment = "hand over"
        number = self._shared.collect(repeats.alert.fingerprint, repeats.number, moment=moment)
        if moment == "hand over" and number is not None:
            later = self._clock.monotonic() + min(_FOR_OTHERS, self._policy.dedup_window / 10)
            self._handed_over.append((later, repeats._replace(number=0, handed_over=True)))
        return repeats.number if number is None else number

    def _told_by_others(self, moment: Moment) -> list[RepeatedAlert]:
        """Return repetitions that were handed over long enough ago for the other processes to have done so too."""
        now = self._clock.monotonic()
        ready = [repeats for at, repeats in self._handed_over if at <= now or moment != "window"]
        if ready:
            self._handed_over = [one for one in self._handed_over if one[1] not in ready]
        return ready

    def _begin_flush(self, flush: _Flush) -> None:
        self._add_digests("flush")
        flush.begun = True

    def _answer_flushes(self, *, complete: bool, not_before: float | None = None) -> None:
        """Release the callers of ``flush`` that are done, or whose timeout ends before the next attempt."""
        for flush in list(self._flushes):
            if self._delivery.sealed or (flush.begun and (not_before is None or not_before > flush.until)):
                self._flushes.remove(flush)
                flush.complete = complete
                flush.done.set()

    def _until_next(self, delay: float | None) -> float | None:
        with self._ledger.lock:
            now = self._clock.monotonic()
            ends = [self._windows.next_end(now=now), *(max(0.0, at - now) for at, _ in self._handed_over)]
            end = min((one for one in ends if one is not None), default=None)
        if end is not None and hooks.observers:
            end = min(end, _NEWS_EVERY)
        return min((wait for wait in (delay, end) if wait is not None), default=None)

    def _inform_observers(self) -> None:
        with self._ledger.lock:
            news = self._ledger.news(self._channel)
        for event in news:
            hooks.emit(event)


class _Flush:
    """Request to the worker to report all repetitions, completed when nothing is queued any more."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.begun = False
        self.done = threading.Event()
        self.complete = False


class _Ending(NamedTuple):
    """Deadline of a shutdown, and how much earlier the worker stops sending."""

    until: float
    margin: float


_dispatchers: WeakSet[Dispatcher] = WeakSet()


def _digest(repeats: RepeatedAlert, number: int) -> Alert:
    return repeats.alert._replace(
        id=new_id(),
        digest=True,
        repeats=number,
        since=valid_time(repeats.first),
        created=valid_time(repeats.last),
    )
