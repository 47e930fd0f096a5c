"""What stands between a log call and a destination: windows, a worker with its outbox, a spool, and exact sums.

``take`` runs on the thread that logs: it counts, decides whether the record is the first of its kind, and queues
what must be read at once. The worker turns that into an alert without secrets and carries out what the outbox says.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias
from uuid import uuid4
from weakref import WeakSet

from mks_hardening._core import hooks
from mks_hardening._core.exit_hooks import on_exit
from mks_hardening._core.worker import BackgroundWorker
from mks_hardening.events import BreakerChanged
from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify.alert import (
    Alert,
    Origin,
    Snapshot,
    alert_from,
    message_of,
    moment_of,
    snapshot_of,
)
from mks_hardening.notify.fingerprint import fingerprint_of
from mks_hardening.notify.ledger import Ledger, State
from mks_hardening.notify.outbox import Outbox, Parcel
from mks_hardening.notify.policy import AlertPolicy, AlertStats
from mks_hardening.notify.windows import Repeats, Windows

if TYPE_CHECKING:
    from logging import LogRecord

    from mks_hardening._core.redact import SecretRedactor
    from mks_hardening.notify.message import Render
    from mks_hardening.notify.shared_store import Moment, SharedStore
    from mks_hardening.notify.spool import Spool
    from mks_hardening.protocols import Clock, Transport

__all__ = ["OWN_LOGGER", "Dispatcher", "is_sending"]

OWN_LOGGER: Final = "mks_hardening.notify"
_REPLAY_AT_ONCE: Final = 40
_NEWS_EVERY: Final = 10.0
# What a shared store says of an alert that another process has told.
_TOLD: Final = -1
_sending = threading.local()


def is_sending() -> bool:
    """Whether this thread is delivering an alert, so that what it logs must not become another one."""
    return getattr(_sending, "active", False)


class Dispatcher:
    """Takes records and delivers alerts.

    Args:
        channel: kind of destination, for events, threads and file names.
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
        self._closed = False
        self._reset()
        self._worker: BackgroundWorker[_Item] = BackgroundWorker(
            self._handle,
            name=f"mks-alerts-{channel}",
            max_queue=policy.max_queue + 100,  # alerts are bounded in take(); some room for requests of ours
            tick=self._tick,
            clock=clock,
        )
        on_exit(self.close)
        _remember(self)
        if spool is not None and not spool.empty():
            self._replay = True
            self._worker.put(_Wake())

    def _reset(self) -> None:
        # Both reentrant: a signal handler may log, or end the process, while we hold them. The first one guards
        # what the log call touches and is held for moments; the second keeps the worker and close() from settling
        # the same alert, and is held while the spool is written.
        self._lock = threading.RLock()
        self._settling = threading.RLock()
        self._sealed = False
        self._queued: dict[int, Snapshot] = {}
        self._windows = Windows(
            self._policy.dedup_window, digest=self._policy.digest, shared=self._shared is not None
        )
        self._outbox = Outbox(
            self._policy, spooling=self._spool is not None, random=random.random, new_id=_new_id
        )
        self._ledger = Ledger()
        self._replay = False
        self._flushes: list[_Flush] = []
        self._abandoned = threading.Event()
        self._reported: set[str] = set()

    # --- the thread that logs ----------------------------------------------------------------

    def take(self, record: LogRecord) -> None:
        """Count a record and queue it if it is the first of its kind. Never blocks."""
        message = message_of(record)
        kind = fingerprint_of(record, message)
        now = self._clock.monotonic()
        with self._lock:
            self._ledger.begin()
            if self._closed:
                self._ledger.end("dropped", "closed")
                return
            if not self._windows.admit(kind, now=now, at=record.created):
                self._ledger.end("suppressed")
                return
            if self._ledger.pending > self._policy.max_queue:
                self._windows.forget(kind)
                self._ledger.end("dropped", "queue_full")
                return
            repeats = self._windows.take_repeats(kind)
        taken = snapshot_of(record, kind=kind, message=message, repeats=repeats, redactor=self._redactor)
        self._queued[id(taken)] = taken
        if not self._worker.put(taken):
            del self._queued[id(taken)]
            self._end("dropped", "closed")

    def fault(self) -> None:
        """Count a record that could not be looked at."""
        with self._lock:
            self._ledger.faults += 1
            self._ledger.begin()
            self._ledger.end("dropped", "fault")

    def stats(self) -> AlertStats:
        """The sums at this moment."""
        with self._lock:
            return self._ledger.stats()

    def flush(self, timeout: float) -> bool:
        """Send what waits, and tell all repetitions; whether that was done within ``timeout`` seconds."""
        flush = _Flush(self._clock.monotonic() + timeout)
        if self._closed or self._worker.is_current_thread or not self._worker.put(flush):
            return self.stats().pending == 0
        return flush.done.wait(timeout) and flush.complete

    def close(self, timeout: float = 5.0) -> None:
        """Deliver what can be delivered in ``timeout`` seconds, spool the rest. Harmless when called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # A little earlier than the worker is given up, so that it can come back by itself.
        drain = _Drain(self._clock.monotonic() + 0.9 * timeout)
        self._worker.put(drain)
        left = self._worker.close(timeout)
        self._abandoned.set()
        for item in left:
            if isinstance(item, Snapshot):
                self._accept(item)
        self._add_digests("close")
        if self._clock.monotonic() < drain.until:
            self._send_due()  # too late for threads, and nobody has sent anything yet
        with self._settling:
            self._sealed = True
            with self._lock:
                rest = self._outbox.seize()
            for parcel in rest:
                self._put_aside(parcel, "closed")
        self._answer_flushes(complete=False)
        self._tell_observers()
        self._transport.close()
        if self._shared is not None:
            self._shared.close()

    # --- the worker --------------------------------------------------------------------------

    def _handle(self, item: _Item) -> None:
        if isinstance(item, Snapshot):
            self._accept(item)
        elif isinstance(item, _Flush):
            self._add_digests("flush")
            self._flushes.append(item)
        elif isinstance(item, _Drain):
            self._drain(item.until)

    def _tick(self) -> float | None:
        """Do what is due; seconds until there is more to do."""
        self._add_digests("window")
        delay = self._send_due()
        self._tell_observers()
        if delay is None or (self._outbox.failing and self._outbox.idle):
            self._answer_flushes(complete=True)
        else:
            self._answer_flushes(complete=False, not_before=self._clock.monotonic() + delay)
        return self._until_next(delay)

    def _drain(self, until: float) -> None:
        self._replay = False
        self._add_digests("close")
        while (delay := self._send_due()) is not None:
            if self._clock.monotonic() + delay > until or self._abandoned.wait(delay):
                return

    def _accept(self, taken: Snapshot) -> None:
        with self._settling:
            # close() gets back what the worker has in hand; whoever comes first settles it.
            if self._queued.pop(id(taken), None) is not None:
                self._admit(taken)

    def _admit(self, taken: Snapshot) -> None:
        alert = self._alert(taken)
        untold = self._shared.admit(alert.fingerprint) if self._shared is not None else None
        with self._lock:
            self._windows.remember(taken.kind, alert)
            if untold == _TOLD:
                self._windows.count(taken.kind, at=alert.created)
                self._ledger.end("suppressed", "shared")
                return
        self._enqueue([alert._replace(repeats=alert.repeats + (untold or 0))])

    def _enqueue(self, alerts: list[Alert]) -> None:
        with self._settling:
            if not self._sealed:
                with self._lock:
                    self._outbox.add(alerts)
                return
            for alert in alerts:
                self._put_aside(Parcel(alert.id, (alert,)), "closed")

    def _alert(self, taken: Snapshot) -> Alert:
        try:
            return alert_from(taken, id=_new_id(), origin=self._origin, redactor=self._redactor)
        except Exception as error:  # noqa: BLE001 - foreign objects are turned into text here
            self._count_fault(error)
            return Alert(
                id=_new_id(),
                fingerprint=taken.kind.digest(),
                created=0.0,
                level="ERROR",
                logger="?",
                message=f"(this alert could not be put into words: {type(error).__name__})",
                host=self._origin.host,
                environment=self._origin.environment,
            )

    def _add_digests(self, moment: Moment) -> None:
        with self._lock:
            due = self._windows.due(now=self._clock.monotonic(), everything=moment != "window")
        self._enqueue(
            [_digest(repeats, number) for repeats in due if (number := self._untold(repeats, moment))]
        )

    def _untold(self, repeats: Repeats, moment: Moment) -> int:
        """The repetitions that are ours to tell now, perhaps those of other processes among them."""
        number = None
        if self._shared is not None:
            number = self._shared.collect(repeats.alert.fingerprint, repeats.number, moment=moment)
        return repeats.number if number is None else number

    def _send_due(self) -> float | None:
        """Send until the destination wants a pause; its length, or ``None`` when nothing is left to send."""
        while True:
            now = self._clock.monotonic()
            with self._lock:
                parcel = self._outbox.take(now=now)
                delay, idle = self._outbox.wait(now=now), self._outbox.idle
            if parcel is not None:
                self._send(parcel)
            elif idle and not self._replay:
                return None
            elif not idle or delay > 0:
                return delay
            else:
                self._fetch_from_spool()

    def _fetch_from_spool(self) -> None:
        with self._settling:
            claimed = (
                self._spool.claim(_REPLAY_AT_ONCE) if self._spool is not None and not self._sealed else []
            )
            if not claimed:
                self._replay = False
                return
            with self._lock:
                self._outbox.add_replay([alert for _, alert in claimed], [claim for claim, _ in claimed])

    def _send(self, parcel: Parcel) -> None:
        _sending.active = True
        try:
            self._transport.send(self._render(parcel))
        except DeliveryError as error:
            self._settle(parcel, error)
        except OSError as error:
            self._settle(parcel, DeliveryError(type(error).__name__, temporary=True))
        except Exception as error:  # noqa: BLE001 - a fault of ours or of a foreign transport; the alert is kept
            self._count_fault(error)
            self._settle(parcel, DeliveryError("fault", temporary=False))
        else:
            self._settle(parcel, None)
        finally:
            _sending.active = False

    def _settle(self, parcel: Parcel, error: DeliveryError | None) -> None:
        with self._settling:
            if not self._outbox.is_under_way(parcel):
                return  # close() has waited long enough and put it aside
            was_down = self._outbox.down
            if error is None:
                self._delivered(parcel)
            else:
                self._not_delivered(error)
            is_down = self._outbox.down
        if error is None:
            self._reported.clear()
        elif not error.temporary:
            self._report(f"an alert was refused ({error.reason})")
        if is_down != was_down:
            self._report_state(is_down=is_down, reason=error.reason if error else "")

    def _delivered(self, parcel: Parcel) -> None:
        with self._lock:
            was_failing = self._outbox.failing
            self._outbox.succeeded()
            self._ledger.deliveries += 1
            self._ledger.replayed += len(parcel.claims)
            self._ledger.end("delivered", number=parcel.weight)
        if self._spool is not None:
            for claim in parcel.claims:
                self._spool.done(claim)
            self._replay = (self._replay or was_failing) and not self._closed

    def _not_delivered(self, error: DeliveryError) -> None:
        with self._lock:
            if error.temporary:
                given_up = self._outbox.failed(now=self._clock.monotonic(), retry_after=error.retry_after)
            else:
                given_up = self._outbox.refused()
        # What was refused for good waits for the next start; what may pass is tried again when the pause is over.
        self._replay = error.temporary and bool(given_up) and not self._closed
        for given in given_up:
            self._put_aside(given, error.reason)

    def _put_aside(self, parcel: Parcel, reason: str) -> None:
        """Spool what was given up; without a spool, or with a full one, it is lost and counted."""
        if parcel.claims and self._spool is not None:
            for claim in parcel.claims:
                self._spool.release(claim)
            return
        for alert in parcel.alerts:
            state, why = self._keep(alert, reason)
            self._end(state, why, number=alert.weight)

    def _keep(self, alert: Alert, reason: str) -> tuple[State, str]:
        if self._spool is None:
            return "dropped", reason
        try:
            self._spool.put(alert)
        except OSError as error:
            self._report(f"the spool takes no more alerts ({type(error).__name__})")
            return "dropped", "spool_full"
        return "spooled", reason

    def _end(self, state: State, reason: str, *, number: int = 1) -> None:
        with self._lock:
            self._ledger.end(state, reason, number=number)

    def _answer_flushes(self, *, complete: bool, not_before: float | None = None) -> None:
        """Let go of callers whose wish is fulfilled, or cannot be before they stop waiting."""
        for flush in list(self._flushes):
            if not_before is None or not_before > flush.until:
                self._flushes.remove(flush)
                flush.complete = complete
                flush.done.set()

    def _until_next(self, delay: float | None) -> float | None:
        with self._lock:
            end = self._windows.next_end(now=self._clock.monotonic())
        if end is not None and hooks.observers:
            end = min(end, _NEWS_EVERY)
        known = [wait for wait in (delay, end) if wait is not None]
        return min(known) if known else None

    # --- telling -----------------------------------------------------------------------------

    def _tell_observers(self) -> None:
        with self._lock:
            news = self._ledger.news(self._channel)
        for event in news:
            hooks.emit(event)

    def _count_fault(self, error: Exception) -> None:
        with self._lock:
            self._ledger.faults += 1
        self._report(f"a fault in the notifier itself ({type(error).__name__})")

    def _report_state(self, *, is_down: bool, reason: str) -> None:
        before, after = ("closed", "open") if is_down else ("open", "closed")
        if hooks.observers:
            hooks.emit(BreakerChanged(self._channel, before, after, reason))
        self._report(f"alerts cannot be delivered ({reason})" if is_down else "alerts are delivered again")

    def _report(self, what: str) -> None:
        """Tell the other handlers once, until the next delivery; ours do not listen to this logger."""
        if what in self._reported:
            return
        self._reported.add(what)
        with suppress(Exception):  # a handler of the application that raises must not stop the worker
            logging.getLogger(OWN_LOGGER).error("%s: %s", self._channel, what)


class _Flush:
    """Asks the worker to tell all repetitions, and learns when nothing waits any more."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.done = threading.Event()
        self.complete = False


class _Drain:
    """Asks the worker to send what can be sent before ``until``, and then to stop."""

    def __init__(self, until: float) -> None:
        self.until = until


class _Wake:
    """Asks the worker to look around."""


_Item: TypeAlias = "Snapshot | _Flush | _Drain | _Wake"

_dispatchers: WeakSet[Dispatcher] = WeakSet()
_fork_armed = False


def _digest(repeats: Repeats, number: int) -> Alert:
    return repeats.alert._replace(
        id=_new_id(),
        digest=True,
        repeats=number,
        since=moment_of(repeats.first),
        created=moment_of(repeats.last),
    )


def _new_id() -> str:
    return uuid4().hex


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
