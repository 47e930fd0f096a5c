"""Counts of one handler: every log record is counted in exactly one state."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Literal, TypeAlias

from mks_hardening._core import hooks
from mks_hardening.events import AlertsCounted
from mks_hardening.notify.stats import AlertStats

__all__ = ["AlertCounts", "State"]

State: TypeAlias = Literal["delivered", "suppressed", "spooled", "dropped"]


class AlertCounts:
    """Count log records from the log call to their final state.

    Attributes:
        lock: held by callers; reentrant, because a signal handler may log while it is held.
        pending: number of records without a final state.
        deliveries: number of messages accepted by the destination.
        replayed: number of alerts delivered from the spool.
        errors: number of errors of the notifier itself.
    """

    __slots__ = ("_announced", "_ended", "_logged", "deliveries", "errors", "lock", "pending", "replayed")

    def __init__(self) -> None:
        # Reentrant, as a signal handler that logs may interrupt its holder.
        self.lock: threading.RLock = threading.RLock()
        self._logged = 0
        self._ended: defaultdict[tuple[State, str], int] = defaultdict(int)
        self._announced: defaultdict[tuple[State, str], int] = defaultdict(int)
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
        for (state, _), number in self._ended.items():
            sums[state] += number
        return AlertStats(
            logged=self._logged,
            **sums,
            pending=self.pending,
            deliveries=self.deliveries,
            replayed=self.replayed,
            errors=self.errors,
        )

    def news(self, channel: str) -> list[AlertsCounted]:
        """Return the changes since the last call as events for observers; empty while there are no observers."""
        if not hooks.observers:
            return []
        events: list[AlertsCounted] = []
        for (state, reason), number in list(self._ended.items()):
            if fresh := number - self._announced[state, reason]:
                self._announced[state, reason] = number
                events.append(AlertsCounted(channel, state, fresh, reason))
        return events
