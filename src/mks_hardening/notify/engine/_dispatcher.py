"""Dispatcher between log call and delivery: deduplication on the caller's thread, and a worker behind a queue.

``dispatch`` runs on the logging thread: it counts the record, decides whether it is the first of its kind, and adds
a snapshot to the outbox, which owns it from then on. The worker converts it to an alert without secrets and sends
it.

Shutdown: from ``_begin_close`` on no record is accepted, and the worker sends what it can within the timeout. Then
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
from mks_hardening.notify.alert_stats import AlertStats
from mks_hardening.notify.engine._alert import Alert, AlertReader, AlertSnapshot, fingerprint_of
from mks_hardening.notify.engine._deduplication import DedupWindows
from mks_hardening.notify.engine._delivery import Delivery, Destination, new_id
from mks_hardening.notify.engine._reporting import AlertCounts

if TYPE_CHECKING:
    from logging import LogRecord

    from mks_hardening.notify.engine._shared_store import Moment, SharedStore

__all__ = ["Dispatcher"]

# Seconds to deliver queued alerts when the handler is closed or the process ends.
_CLOSE_TIMEOUT: Final = 5.0
# Limits the delay of counts for exporters: a quiet handler would report them only at the end of a window.
_EVENTS_EVERY: Final = 10.0
# Maximum seconds for which the worker, sending before shutdown, does not notice that it was given up.
_POLL: Final = 0.05
# Seconds after the end of a window for other processes, whose windows end at the same time, to report as well.
_HAND_OVER_TIME: Final = 2.0
# Result of a shared store for an alert that another process has sent.
_SENT_ELSEWHERE: Final = -1


class Dispatcher:
    """Accept records and deliver them as alerts.

    Args:
        destination: where and how to send.
        reader: reads records and converts them to alerts.

    Attributes:
        destination: where and how alerts are sent.
    """

    def __init__(self, destination: Destination, reader: AlertReader) -> None:
        self.destination: Destination = destination
        self._clock = destination.clock
        self._reader = reader
        self._deadline: _Deadline | None = None
        self.reset_after_fork()
        self._worker: BackgroundWorker[Callable[[], object]] = BackgroundWorker(
            self._run_job,
            name=f"mks-alerts-{destination.channel}",
            # Alerts are limited in dispatch(); room for internal requests.
            max_queue=destination.policy.max_queue + 100,
            tick=self._tick,
            at_exit=False,
            clock=destination.clock,
        )
        _dispatchers.add(self)
        register_after_fork(self)
        on_exit(self._at_exit)
        spool = destination.spool
        if spool is not None and not (spool.empty() and spool.count_foreign() == 0):
            self._worker.put(self._delivery.check_spool)

    def reset_after_fork(self) -> None:
        """Reset the state, also in a forked child: the parent delivers and counts its own alerts."""
        destination, policy = self.destination, self.destination.policy
        if destination.spool is not None:
            destination.spool.reset_after_fork()
        self._counts = AlertCounts()
        self._windows = DedupWindows(
            policy.dedup_window, digest=policy.digest, shared=destination.shared is not None
        )
        self._delivery = Delivery(destination, self._counts)
        self._flushes: list[_Flush] = []
        self._handed_over: list[tuple[float, Alert]] = []

    def drain(self) -> None:
        """Spool all undelivered alerts, before ``reset_after_fork`` in a process that continues."""
        self._worker.drain()
        self._delivery.spool_rest()

    # --- logging thread ----------------------------------------------------------------------

    def dispatch(self, record: LogRecord) -> None:
        """Count a record and queue it if it is the first of its kind. Never blocks."""
        message = self._reader.message(record)
        kind = fingerprint_of(record, message)
        now = self._clock.monotonic()
        counts, windows = self._counts, self._windows
        with counts.lock:
            counts.begin()
            if self._deadline is not None:
                return counts.end("dropped", "closed")
            repeats = windows.admit(kind, now=now, at=record.created)
            if repeats is None:
                return counts.end("suppressed")
            if counts.pending > self.destination.policy.max_queue:
                # The next of its kind may find space; it must not count as a repetition of an alert that was
                # dropped.
                windows.discard(kind)
                return counts.end("dropped", "queue_full")
        try:
            snapshot = self._reader.snapshot(record, message, kind=kind, repeats=repeats)
        except Exception:  # noqa: BLE001 - a malformed record; a log call must not fail because of its alert
            with counts.lock:
                windows.discard(kind)
                counts.errors += 1
                return counts.end("dropped", "fault")
        self._delivery.outbox.snapshots.append(snapshot)
        # The job contains no data: snapshots stay in the outbox, so a full queue or a lost thread loses no alert.
        self._worker.put(self._accept_next)
        if self._delivery.sealed:  # the handler was closed in between
            self._spool_rest()
        return None

    def count_error(self) -> None:
        """Count a record that could not be processed."""
        with self._counts.lock:
            self._counts.errors += 1
            self._counts.begin()
            self._counts.end("dropped", "fault")

    def stats(self) -> AlertStats:
        """Return the current counts."""
        with self._counts.lock:
            return self._counts.stats()

    def flush(self, timeout: float) -> bool:
        """Send queued alerts and report all repetitions; return whether none is left within ``timeout`` seconds."""
        flush = _Flush(self._clock.monotonic() + timeout)
        self._flushes.append(flush)
        # The worker thread cannot wait for itself.
        if self._worker.is_current_thread or not self._worker.put(partial(self._begin_flush, flush)):
            self._flushes.remove(flush)
            return self.stats().pending == 0
        return flush.done.wait(timeout) and flush.complete

    # --- shutdown ----------------------------------------------------------------------------

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Deliver what is possible within ``timeout`` seconds and spool the rest. Idempotent."""
        self._begin_close(timeout)
        self._finish_close()

    def abandon(self) -> None:
        """Close without waiting, when no thread logs here any more."""
        self._begin_close(_CLOSE_TIMEOUT)
        self._worker.put(self._finish_close)

    def _at_exit(self) -> None:
        """Close together with all other dispatchers: two dead destinations must not take twice as long."""
        for dispatcher in list(_dispatchers):
            dispatcher._begin_close(_CLOSE_TIMEOUT)  # noqa: SLF001 - same class
        self._finish_close()

    def _begin_close(self, timeout: float) -> None:
        deadline = _Deadline(self._clock.monotonic() + timeout, margin=0.1 * timeout)
        with self._counts.lock:
            begun = self._deadline is not None
            # The earliest deadline counts: a signal during a close() with a long timeout must not wait for it.
            self._deadline = min(deadline, self._deadline or deadline)
        if not begun:
            self._worker.put(self._send_before_deadline)

    def _send_before_deadline(self) -> None:
        """Send until shortly before the deadline, so that the worker returns before it is given up."""
        self._add_digests("close")
        while (delay := self._delivery.send_due(replay=False)) is not None and self._deadline is not None:
            if self._clock.monotonic() + delay > self._deadline.until - self._deadline.margin:
                return
            sleep(min(delay, _POLL))  # if it is given up in the meantime, nothing is left to send

    def _finish_close(self) -> None:
        if self._deadline is None:
            return
        until = self._deadline.until
        self._worker.close(max(0.0, until - self._clock.monotonic()))
        if self._clock.monotonic() < until:  # perhaps too late for threads, with nothing sent yet
            self._accept_all()
            self._delivery.send_due(replay=False)
        self._spool_rest()
        self._counts.emit_events(self.destination.channel)
        for resource in (self.destination.transport, self.destination.spool, self.destination.shared):
            if resource is not None:
                resource.close()

    def _spool_rest(self) -> None:
        with self._delivery.lock:
            complete = self._delivery.outbox.idle and not self._delivery.outbox.snapshots
            self._delivery.sealed = (
                True  # first, so that a thread that dispatches a record later comes here too
            )
            self._accept_all()
            self._delivery.spool_rest()
        self._finish_flushes(complete=complete)

    def _accept_all(self) -> None:
        while self._delivery.outbox.snapshots:
            self._accept_next()
        self._add_digests("close")

    # --- worker thread -----------------------------------------------------------------------

    def _run_job(self, job: Callable[[], object]) -> None:
        job()
        if self._delivery.sealed:  # it was given up while it ran this job
            self._delivery.spool_rest()

    def _tick(self) -> float | None:
        """Do what is due; return the seconds until the next step."""
        if self._deadline is not None:
            return None
        self._add_digests("window")
        delay = self._delivery.send_due()
        self._counts.emit_events(self.destination.channel)
        outbox = self._delivery.outbox
        # Nothing is queued any more, perhaps because the destination is down and everything is in the spool.
        if delay is None or (outbox.failing and outbox.idle):
            self._finish_flushes(complete=True)
        else:
            self._finish_flushes(complete=False, not_before=self._clock.monotonic() + delay)
        return self._until_next(delay)

    def _accept_next(self) -> None:
        """Convert the oldest snapshot to an alert and queue it."""
        snapshots = self._delivery.outbox.snapshots
        with self._delivery.lock:
            if snapshots:
                self._accept(snapshots[0])
                snapshots.popleft()

    def _accept(self, snapshot: AlertSnapshot) -> None:
        alert, shared = self._alert(snapshot), self.destination.shared
        unreported = shared.admit(alert.fingerprint) if shared is not None else None
        with self._counts.lock:
            self._windows.set_alert(snapshot.kind, alert)
            if unreported == _SENT_ELSEWHERE:
                self._windows.count_sent_elsewhere(snapshot.kind, alert, now=self._clock.monotonic())
                self._counts.end("suppressed", "shared")
                return
        self._delivery.enqueue([alert._replace(repeats=alert.repeats + (unreported or 0))])

    def _alert(self, snapshot: AlertSnapshot) -> Alert:
        try:
            return self._reader.alert(snapshot, alert_id=new_id())
        except Exception as error:  # noqa: BLE001 - foreign objects are converted to text here
            self._delivery.report_error(error)
            text = f"(this alert could not be rendered: {type(error).__name__})"
            return Alert(new_id(), snapshot.kind.digest(), 0.0, "ERROR", "?", text)

    def _add_digests(self, moment: Moment) -> None:
        shared = self.destination.shared
        with self._counts.lock:
            digests = self._windows.pop_digests(now=self._clock.monotonic(), everything=moment != "window")
            if moment == "close":
                self._windows.clear()
        if shared is not None:
            digests = self._share_digests(shared, digests, moment)
        self._delivery.enqueue(digest._replace(id=new_id()) for digest in digests if digest.repeats)

    def _share_digests(self, shared: SharedStore, digests: list[Alert], moment: Moment) -> list[Alert]:
        """Return the digests that this process must send now, with the repetitions of other processes."""
        now = self._clock.monotonic()
        # Other processes, whose windows end at the same time, hand theirs over before any process reports them.
        wait = moment == "window"
        due = [(digest, wait) for digest in digests]
        due += [(digest, False) for at, digest in self._handed_over if at <= now or not wait]
        self._handed_over = [one for one in self._handed_over if one[0] > now and wait]
        result: list[Alert] = []
        for digest, first in due:
            reason: Moment = "hand over" if first else moment
            number = shared.collect(digest.fingerprint, digest.repeats, moment=reason)
            if number is not None and first:
                later = now + min(_HAND_OVER_TIME, self.destination.policy.dedup_window / 10)
                self._handed_over.append((later, digest._replace(repeats=0)))
            # Without the store this process reports its own.
            result.append(digest if number is None else digest._replace(repeats=number))
        return result

    def _begin_flush(self, flush: _Flush) -> None:
        self._add_digests("flush")
        flush.begun = True

    def _finish_flushes(self, *, complete: bool, not_before: float | None = None) -> None:
        """Release the callers of ``flush`` that are done, or whose timeout ends before the next attempt."""
        for flush in list(self._flushes):
            if self._delivery.sealed or (flush.begun and (not_before is None or not_before > flush.until)):
                self._flushes.remove(flush)
                flush.complete = complete
                flush.done.set()

    def _until_next(self, delay: float | None) -> float | None:
        with self._counts.lock:
            now = self._clock.monotonic()
            ends = [self._windows.next_end(now=now), *(max(0.0, at - now) for at, _ in self._handed_over)]
        end = min((one for one in ends if one is not None), default=None)
        if end is not None and hooks.observers:
            end = min(end, _EVENTS_EVERY)
        return min((wait for wait in (delay, end) if wait is not None), default=None)


class _Flush:
    """Request to the worker to report all repetitions, completed when nothing is queued any more."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.begun = False
        self.done = threading.Event()
        self.complete = False


class _Deadline(NamedTuple):
    """Deadline of a shutdown, and how much earlier the worker stops sending."""

    until: float
    margin: float


_dispatchers: WeakSet[Dispatcher] = WeakSet()
