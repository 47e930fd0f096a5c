"""What stands between a log call and a delivery: windows on the caller's thread, a worker behind a queue.

``take`` runs on the thread that logs: it counts, decides whether the record is the first of its kind, and puts what
must be read at once into the outbox, which owns it from there on. The worker turns it into an alert without secrets
and sends.

The end: from ``_begin_end`` on nothing is taken, and the worker sends what it can in the time given. Then whoever
waits for that (``close``, the exit of the process, a signal in the middle of either) puts the rest aside. Every
step of it may be repeated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakSet

from mks_hardening._core import hooks
from mks_hardening._core.process.after_fork import renew_in_child
from mks_hardening._core.process.background_worker import BackgroundWorker
from mks_hardening._core.process.exit_hooks import on_exit
from mks_hardening.notify.engine._alert import (
    Alert,
    AlertOrigin,
    AlertSnapshot,
    alert_from,
    moment_of,
    reader_for,
    snapshot_of,
)
from mks_hardening.notify.engine._alert_counts import AlertCounts
from mks_hardening.notify.engine._dedup_windows import DedupWindows, RepeatedAlert
from mks_hardening.notify.engine._delivery import Delivery, new_id
from mks_hardening.notify.engine._fingerprint import fingerprint_of
from mks_hardening.notify.engine._reporter import SelfReporter
from mks_hardening.notify.policy import AlertPolicy
from mks_hardening.notify.stats import AlertStats

if TYPE_CHECKING:
    from logging import LogRecord

    from mks_hardening.notify.engine._outgoing_message import Render
    from mks_hardening.notify.engine._shared_store import Moment, SharedStore
    from mks_hardening.notify.engine._spool import Spool
    from mks_hardening.protocols import Clock, Redactor, Transport

__all__ = ["Dispatcher"]

# Seconds for delivering what waits when the handler is closed or the process ends.
_PATIENCE: Final = 5.0
# A quiet handler must not tell exporters of its counts a whole window late.
_NEWS_EVERY: Final = 10.0
# How long the worker, which sends what it can before the end, overlooks that it was given up.
_GLANCE: Final = 0.05
# After the end of a window, seconds for other processes, whose windows end at the same time, to hand over as well.
_FOR_OTHERS: Final = 2.0
# What a shared store says of an alert that another process has sent.
_SENT_ELSEWHERE: Final = -1


class Dispatcher:
    """Takes records and has alerts delivered.

    Args:
        channel: kind of destination, for events and threads.
        policy: when and how often.
        render: turns a parcel into a message.
        transport: delivers a message.
        spool: keeps what cannot be delivered, or ``None``.
        shared: agrees with other processes, or ``None``.
        origin: host and environment.
        redactor: takes secrets out.
        clock: wall and monotonic time.
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
        self.renew()
        self._worker: BackgroundWorker[Callable[[], object]] = BackgroundWorker(
            self._do,
            name=f"mks-alerts-{channel}",
            max_queue=policy.max_queue + 100,  # alerts are bounded in take(); some room for requests of ours
            tick=self._tick,
            at_exit=False,
            clock=clock,
        )
        _dispatchers.add(self)
        renew_in_child(self)
        on_exit(self._at_exit)
        if spool is not None and not (spool.empty() and spool.strangers() == 0):
            self._worker.put(self._delivery.look_into_spool)

    def renew(self) -> None:
        """Begin anew, in a forked child too: what waits in the parent is the parent's to deliver and to count."""
        policy = self._policy
        if self._spool is not None:
            self._spool.renew()
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
        """Before ``renew`` in a process that goes on: what was not sent yet is spooled."""
        self._worker.drain()
        self._delivery.put_rest_aside()

    # --- the thread that logs ----------------------------------------------------------------

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
                # The next of its kind may find room; it must not count as a repetition of one that nobody got.
                windows.forget(kind)
                return ledger.end("dropped", "queue_full")
            repeats = windows.take_repeats(kind)
        try:
            taken = snapshot_of(record, self._reader.snapshot(record, message), kind=kind, repeats=repeats)
        except Exception:  # noqa: BLE001 - an odd record; a log call must not fail because of its alert
            with ledger.lock:
                windows.forget(kind)
                ledger.faults += 1
                return ledger.end("dropped", "fault")
        self._delivery.outbox.arrived.append(taken)
        # The job carries nothing: what arrived stays in the outbox, so a full queue or a lost thread loses no
        # alert.
        self._worker.put(self._accept_next)
        if self._delivery.sealed:  # the end came in between
            self._put_rest_aside()
        return None

    def fault(self) -> None:
        """Count a record that could not be looked at."""
        with self._ledger.lock:
            self._ledger.faults += 1
            self._ledger.begin()
            self._ledger.end("dropped", "fault")

    def stats(self) -> AlertStats:
        """The sums at this moment."""
        with self._ledger.lock:
            return self._ledger.stats()

    def flush(self, timeout: float) -> bool:
        """Send what waits, and report all repetitions; whether that was done within ``timeout`` seconds."""
        # A handler's own worker that waits for itself would wait for ever.
        if self._worker.is_current_thread:
            return self.stats().pending == 0
        flush = _Flush(self._clock.monotonic() + timeout)
        self._flushes.append(flush)
        if not self._worker.put(partial(self._begin_flush, flush)):
            self._flushes.remove(flush)
            return self.stats().pending == 0
        return flush.done.wait(timeout) and flush.complete

    # --- the end -----------------------------------------------------------------------------

    def close(self, timeout: float = _PATIENCE) -> None:
        """Deliver what can be delivered in ``timeout`` seconds, spool the rest. Harmless when called again."""
        self._begin_end(timeout)
        self._finish_end()

    def abandon(self) -> None:
        """Close without waiting: nobody logs here any more."""
        self._begin_end(_PATIENCE)
        self._worker.put(self._finish_end)

    def _at_exit(self) -> None:
        """Close, in one and the same time with all others: two dead destinations must not take twice as long."""
        for dispatcher in list(_dispatchers):
            dispatcher._begin_end(_PATIENCE)  # noqa: SLF001 - same class
        self._finish_end()

    def _begin_end(self, timeout: float) -> None:
        ending = _Ending(self._clock.monotonic() + timeout, margin=0.1 * timeout)
        with self._ledger.lock:
            begun = self._ending is not None
            # The nearest end counts: a signal in the middle of a patient close() must not wait for it.
            self._ending = min(ending, self._ending or ending)
        if not begun:
            self._worker.put(self._drain)

    def _drain(self) -> None:
        """Send what can be sent; a little earlier than the worker is given up, so that it can come back itself."""
        self._add_digests("close")
        while (delay := self._delivery.send_due(replay=False)) is not None and self._ending is not None:
            if self._clock.monotonic() + delay > self._ending.until - self._ending.margin:
                return
            sleep(min(delay, _GLANCE))  # when it is given up meanwhile, nothing is left to send

    def _finish_end(self) -> None:
        if self._ending is None:
            return
        until = self._ending.until
        self._worker.close(max(0.0, until - self._clock.monotonic()))
        if self._clock.monotonic() < until:  # too late for threads, perhaps, and nobody has sent anything yet
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
            complete = self._delivery.outbox.idle and not self._delivery.outbox.arrived
            self._delivery.sealed = True  # first, so that whoever takes a record from now on comes here too
            self._accept_all()
            self._delivery.put_rest_aside()
        self._answer_flushes(complete=complete)

    def _accept_all(self) -> None:
        while self._delivery.outbox.arrived:
            self._accept_next()
        self._add_digests("close")

    # --- the worker --------------------------------------------------------------------------

    def _do(self, job: Callable[[], object]) -> None:
        job()
        if self._delivery.sealed:  # it was given up while it was busy with this
            self._delivery.put_rest_aside()

    def _tick(self) -> float | None:
        """Do what is due; seconds until there is more to do."""
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
        """Put the oldest that arrived into words and in line."""
        arrived = self._delivery.outbox.arrived
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
        except Exception as error:  # noqa: BLE001 - foreign objects are turned into text here
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
        """The repetitions that are ours to report now, perhaps those of other processes among them."""
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
        """What was handed over so long ago that the other processes have done so too."""
        now = self._clock.monotonic()
        ready = [repeats for at, repeats in self._handed_over if at <= now or moment != "window"]
        if ready:
            self._handed_over = [one for one in self._handed_over if one[1] not in ready]
        return ready

    def _begin_flush(self, flush: _Flush) -> None:
        self._add_digests("flush")
        flush.begun = True

    def _answer_flushes(self, *, complete: bool, not_before: float | None = None) -> None:
        """Let go of callers whose wish is fulfilled, or cannot be before they stop waiting."""
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
    """Asks the worker to report all repetitions, and learns when nothing waits any more."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.begun = False
        self.done = threading.Event()
        self.complete = False


class _Ending(NamedTuple):
    """When the end is over, and how much earlier the worker stops sending."""

    until: float
    margin: float


_dispatchers: WeakSet[Dispatcher] = WeakSet()


def _digest(repeats: RepeatedAlert, number: int) -> Alert:
    return repeats.alert._replace(
        id=new_id(),
        digest=True,
        repeats=number,
        since=moment_of(repeats.first),
        created=moment_of(repeats.last),
    )
