"""What the notifier reports about itself: counts of log records, and problems of the delivery, never as alerts."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from mks_hardening._core import hooks
from mks_hardening.events import AlertsCounted, BreakerChanged
from mks_hardening.notify.alert_stats import AlertStats

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["OWN_LOGGER", "AlertCounts", "SelfReporter", "State", "is_sending", "sending"]

State: TypeAlias = Literal["delivered", "suppressed", "spooled", "dropped"]

OWN_LOGGER: Final = "mks_hardening.notify"
# By thread instead of logger: urllib3 and ssl also log about the delivery, with their own loggers.
_thread = threading.local()


def is_sending() -> bool:
    """Return whether this thread is delivering an alert, so that its log records must not cause another alert."""
    return getattr(_thread, "sending", False)


@contextmanager
def sending() -> Generator[None]:
    """Mark this thread as delivering within the block."""
    _thread.sending = True
    try:
        yield
    finally:
        _thread.sending = False


class AlertCounts:
    """Count log records from the log call to their final state; every record is counted in exactly one.

    Attributes:
        lock: held by callers; reentrant, because a signal handler may log while it is held.
        pending: number of records without a final state.
        deliveries: number of messages accepted by the destination.
        replayed: number of alerts delivered from the spool.
        errors: number of errors of the notifier itself.
    """

    __slots__ = ("_ended", "_logged", "_reported", "deliveries", "errors", "lock", "pending", "replayed")

    def __init__(self) -> None:
        self.lock: threading.RLock = threading.RLock()
        self._logged = 0
        self._ended: defaultdict[tuple[State, str], int] = defaultdict(int)
        self._reported: defaultdict[tuple[State, str], int] = defaultdict(int)
        self.pending: int = 0
        self.deliveries: int = 0
        self.replayed: int = 0
        self.errors: int = 0

    # The steps on the logging thread are single additions, which a signal handler that logs cannot interrupt.

    def begin(self) -> None:
        """Count a new record."""
        self._logged += 1
        self.pending += 1

    def end(self, state: State, reason: str = "", *, number: int = 1) -> None:
        """Count records that reached a final state."""
        self.pending -= number
        self._ended[state, reason] += number

    def stats(self) -> AlertStats:
        """Return the current counts."""
        sums = {"delivered": 0, "suppressed": 0, "spooled": 0, "dropped": 0}
        for (state, _), number in list(self._ended.items()):
            sums[state] += number
        others = {name: getattr(self, name) for name in ("pending", "deliveries", "replayed", "errors")}
        return AlertStats(logged=self._logged, **sums, **others)

    def emit_events(self, channel: str) -> None:
        """Emit the changes since the last call as events, if there are observers."""
        if not hooks.observers:
            return
        events: list[AlertsCounted] = []
        with self.lock:
            for (state, reason), number in list(self._ended.items()):
                if new := number - self._reported[state, reason]:
                    self._reported[state, reason] = number
                    events.append(AlertsCounted(channel, state, new, reason))
        for event in events:
            hooks.emit(event)


class SelfReporter:
    """Report delivery problems to the application's other handlers and its observers.

    Args:
        channel: kind of destination.
    """

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._reported: set[str] = set()

    def report(self, problem: str) -> None:
        """Log a problem once until ``reset`` is called."""
        if problem in self._reported:
            return
        self._reported.add(problem)
        with suppress(Exception):  # a handler of the application that raises must not stop the worker
            logging.getLogger(OWN_LOGGER).error("%s: %s", self._channel, problem)

    def reset(self) -> None:
        """Report every problem again, because an alert was delivered."""
        self._reported.clear()

    def down(self, reason: str) -> None:
        """Report that the destination does not accept alerts at the moment."""
        self._emit_change("closed", "open", reason)
        self.report(f"alerts cannot be delivered ({reason})")

    def up(self) -> None:
        """Report that the destination accepts alerts again."""
        self._emit_change("open", "closed", "")
        self.report("alerts are delivered again")

    def _emit_change(self, before: str, after: str, reason: str) -> None:
        if hooks.observers:
            hooks.emit(BreakerChanged(self._channel, before, after, reason))
