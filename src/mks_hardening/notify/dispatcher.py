"""What stands between a log call and a delivery: windows on the caller's thread, a worker behind a queue.

``take`` runs on the thread that logs: it counts, decides whether the record is the first of its kind, and queues
what must be read at once. The worker turns that into an alert without secrets and hands it to the delivery.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakSet

from mks_hardening._core import hooks
from mks_hardening._core.exit_hooks import on_exit
from mks_hardening._core.worker import BackgroundWorker
from mks_hardening.notify.alert import (
    Alert,
    Origin,
    Snapshot,
    alert_from,
    message_of,
    moment_of,
    snapshot_of,
)
from mks_hardening.notify.delivery import Delivery, new_id
from mks_hardening.notify.fingerprint import fingerprint_of
from mks_hardening.notify.ledger import Ledger
from mks_hardening.notify.policy import AlertPolicy, AlertStats
from mks_hardening.notify.reporter import Reporter
from mks_hardening.notify.windows import Repeats, Windows

if TYPE_CHECKING:
    from logging import LogRecord

    from mks_hardening._core.redact import SecretRedactor
    from mks_hardening.notify.message import Render
    from mks_hardening.notify.shared_store import Moment, SharedStore
    from mks_hardening.notify.spool import Spool
    from mks_hardening.protocols import Clock, Transport

__all__ = ["Dispatcher"]

# Seconds for delivering what waits when the handler is closed or the process ends.
_PATIENCE: Final = 5.0
_NEWS_EVERY: Final = 10.0
# What a shared store says of an alert that another process has told.
_TOLD: Final = -1


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
        origin: Origin,
        redactor: SecretRedactor,
        clock: Clock,
    ) -> None:
        self._channel = channel
        self._policy = policy
        self._render = render
        self._transport = transport
        self._spool = spool
        self._shared = shared
        self._origin = origin
        self._redactor = redactor
        self._clock = clock
        self._end: _End | None = None
        self._reset()
        self._worker: BackgroundWorker[_Item] = BackgroundWorker(
            self._handle,
            name=f"mks-alerts-{channel}",
            max_queue=policy.max_queue + 100,  # alerts are bounded in take(); some room for requests of ours
            tick=self._tick,
            clock=clock,
        )
        on_exit(self._at_exit)
        _remember(self)
        if spool is not None and not spool.empty():
            self._delivery.start_replaying()
            self._worker.put(_Wake())

    def _reset(self) -> None:
        policy = self._policy
        self._ledger = Ledger()
        self._windows = Windows(policy.dedup_window, digest=policy.digest, shared=self._shared is not None)
        self._delivery = Delivery(
            policy=policy,
            render=self._render,
            transport=self._transport,
            spool=self._spool,
            ledger=self._ledger,
            reporter=Reporter(self._channel),
            clock=self._clock,
        )
        self._queued: dict[int, Snapshot] = {}
        self._flushes: list[_Flush] = []
        self._abandoned = threading.Event()

    # --- the thread that logs ----------------------------------------------------------------

    def take(self, record: LogRecord) -> None:
        """Count a record and queue it if it is the first of its kind. Never blocks."""
        message = message_of(record)
        kind = fingerprint_of(record, message)
        now = self._clock.monotonic()
        ledger, windows = self._ledger, self._windows
        with ledger.lock:
            ledger.begin()
            if self._end is not None:
                return ledger.end("dropped", "closed")
            if not windows.admit(kind, now=now, at=record.created):
                return ledger.end("suppressed")
            if ledger.pending > self._policy.max_queue:
                windows.forget(kind)
                return ledger.end("dropped", "queue_full")
            repeats = windows.take_repeats(kind)
        try:
            taken = snapshot_of(record, kind=kind, message=message, repeats=repeats, redactor=self._redactor)
        except Exception:  # noqa: BLE001 - an odd record; a log call must not fail because of its alert
            with ledger.lock:
                windows.forget(kind)
                ledger.faults += 1
                return ledger.end("dropped", "fault")
        self._queued[id(taken)] = taken
        if not self._worker.put(taken) and self._queued.pop(id(taken), None) is not None:
            with ledger.lock:
                ledger.end("dropped", "closed")
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
        """Send what waits, and tell all repetitions; whether that was done within ``timeout`` seconds."""
        flush = _Flush(self._clock.monotonic() + timeout)
        if self._end is not None or self._worker.is_current_thread or not self._worker.put(flush):
            return self.stats().pending == 0
        return flush.done.wait(timeout) and flush.complete

    def close(self, timeout: float = _PATIENCE) -> None:
        """Deliver what can be delivered in ``timeout`` seconds, spool the rest. Harmless when called again."""
        self._begin_end(timeout)
        self._finish_end()

    def _at_exit(self) -> None:
        """Close, in one and the same time with all others: two dead destinations must not take twice as long."""
        for dispatcher in list(_dispatchers):
            dispatcher._begin_end(_PATIENCE)  # noqa: SLF001 - same class
        self._finish_end()

    def _begin_end(self, timeout: float) -> None:
        with self._ledger.lock:
            if self._end is not None:
                return
            self._end = _End(self._clock.monotonic() + timeout, patience=timeout)
        self._worker.put(self._end)

    def _finish_end(self) -> None:
        end = self._end
        if end is None or end.finisher is not None:
            if end is not None and end.finisher == threading.get_ident():
                self._seal()  # SIGTERM interrupts close() on this thread, which may not go on
            return
        end.finisher = threading.get_ident()
        left = self._worker.close(max(0.0, end.until - self._clock.monotonic()))
        self._abandoned.set()
        self._flushes += [item for item in left if isinstance(item, _Flush)]
        if not end.begun:
            self._accept_queued()
            self._add_digests("close")
        if self._clock.monotonic() < end.until:
            self._delivery.send_due()  # too late for threads, and nobody has sent anything yet
        self._seal()
        self._answer_flushes(complete=False)
        self._tell_observers()
        self._transport.close()
        if self._shared is not None:
            self._shared.close()

    def _seal(self) -> None:
        self._accept_queued()
        self._delivery.seal()

    def _accept_queued(self) -> None:
        for taken in list(self._queued.values()):
            self._accept(taken)

    # --- the worker --------------------------------------------------------------------------

    def _handle(self, item: _Item) -> None:
        if isinstance(item, Snapshot):
            self._accept(item)
        elif isinstance(item, _Flush):
            self._add_digests("flush")
            self._flushes.append(item)
        elif isinstance(item, _End):
            self._drain(item)

    def _tick(self) -> float | None:
        """Do what is due; seconds until there is more to do."""
        self._add_digests("window")
        delay = self._delivery.send_due()
        self._tell_observers()
        if delay is None or self._delivery.gave_up:
            self._answer_flushes(complete=True)
        else:
            self._answer_flushes(complete=False, not_before=self._clock.monotonic() + delay)
        return self._until_next(delay)

    def _drain(self, end: _End) -> None:
        """Send what can be sent; a little earlier than the worker is given up, so that it can come back itself."""
        end.begun = True
        self._delivery.stop_replaying()
        self._add_digests("close")
        while (delay := self._delivery.send_due()) is not None:
            late = self._clock.monotonic() + delay > end.until - 0.1 * end.patience
            if late or self._abandoned.wait(delay):
                return

    def _accept(self, taken: Snapshot) -> None:
        with self._delivery.lock:
            # close() gets back what the worker has in hand; whoever comes first settles it.
            if self._queued.pop(id(taken), None) is not None:
                self._admit(taken)

    def _admit(self, taken: Snapshot) -> None:
        alert = self._alert(taken)
        untold = self._shared.admit(alert.fingerprint) if self._shared is not None else None
        with self._ledger.lock:
            self._windows.remember(taken.kind, alert)
            if untold == _TOLD:
                self._windows.count(taken.kind, at=alert.created)
                self._ledger.end("suppressed", "shared")
                return
        self._delivery.enqueue([alert._replace(repeats=alert.repeats + (untold or 0))])

    def _alert(self, taken: Snapshot) -> Alert:
        try:
            return alert_from(taken, id=new_id(), origin=self._origin, redactor=self._redactor)
        except Exception as error:  # noqa: BLE001 - foreign objects are turned into text here
            self._delivery.count_fault(error)
            what = f"(this alert could not be put into words: {type(error).__name__})"
            return Alert(new_id(), taken.kind.digest(), 0.0, "ERROR", "?", what)

    def _add_digests(self, moment: Moment) -> None:
        with self._ledger.lock:
            due = self._windows.due(now=self._clock.monotonic(), everything=moment != "window")
        untold = [(repeats, self._untold(repeats, moment)) for repeats in due]
        self._delivery.enqueue([_digest(repeats, number) for repeats, number in untold if number])

    def _untold(self, repeats: Repeats, moment: Moment) -> int:
        """The repetitions that are ours to tell now, perhaps those of other processes among them."""
        number = None
        if self._shared is not None:
            number = self._shared.collect(repeats.alert.fingerprint, repeats.number, moment=moment)
        return repeats.number if number is None else number

    def _answer_flushes(self, *, complete: bool, not_before: float | None = None) -> None:
        """Let go of callers whose wish is fulfilled, or cannot be before they stop waiting."""
        for flush in list(self._flushes):
            if not_before is None or not_before > flush.until:
                self._flushes.remove(flush)
                flush.complete = complete
                flush.done.set()

    def _until_next(self, delay: float | None) -> float | None:
        with self._ledger.lock:
            end = self._windows.next_end(now=self._clock.monotonic())
        if end is not None and hooks.observers:
            end = min(end, _NEWS_EVERY)
        return min((wait for wait in (delay, end) if wait is not None), default=None)

    def _tell_observers(self) -> None:
        with self._ledger.lock:
            news = self._ledger.news(self._channel)
        for event in news:
            hooks.emit(event)


class _Flush:
    """Asks the worker to tell all repetitions, and learns when nothing waits any more."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.done = threading.Event()
        self.complete = False


class _End:
    """Asks the worker to send what can be sent before ``until``, and then to stop."""

    def __init__(self, until: float, *, patience: float) -> None:
        self.until = until
        self.patience = patience
        self.begun = False
        self.finisher: int | None = None


class _Wake:
    """Asks the worker to look around."""


_Item: TypeAlias = "Snapshot | _Flush | _End | _Wake"

_dispatchers: WeakSet[Dispatcher] = WeakSet()
_fork_armed = False


def _digest(repeats: Repeats, number: int) -> Alert:
    return repeats.alert._replace(
        id=new_id(),
        digest=True,
        repeats=number,
        since=moment_of(repeats.first),
        created=moment_of(repeats.last),
    )


def _remember(dispatcher: Dispatcher) -> None:
    global _fork_armed  # noqa: PLW0603 - armed once a process
    _dispatchers.add(dispatcher)
    if not _fork_armed:
        _fork_armed = True
        os.register_at_fork(after_in_child=_forget_parent)


def _forget_parent() -> None:
    """What waits in the parent is the parent's to deliver and to count."""
    for dispatcher in list(_dispatchers):
        dispatcher._reset()  # noqa: SLF001 - same module
