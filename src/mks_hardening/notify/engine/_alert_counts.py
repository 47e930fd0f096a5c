"""The sums of one handler: every record that was logged is in exactly one place."""

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
    """Counts records from the log call to their end.

    Attributes:
        lock: held by callers; reentrant, because a signal handler may log while it is held.
        pending: records on their way.
        deliveries: messages accepted by the destination.
        replayed: alerts delivered from the spool.
        faults: errors of the notifier itself.
    """

    __slots__ = ("_announced", "_ended", "_logged", "deliveries", "faults", "lock", "pending", "replayed")

    def __init__(self) -> None:
        # Re-entrant, as a signal handler that logs may interrupt whoever holds it.
        self.lock: threading.RLock = threading.RLock()
        self._logged = 0
        self._ended: defaultdict[tuple[State, str], int] = defaultdict(int)
        self._announced: defaultdict[tuple[State, str], int] = defaultdict(int)
        self.pending: int = 0
        self.deliveries: int = 0
        self.replayed: int = 0
        self.faults: int = 0

    # The steps on the thread that logs are single additions: a signal handler that logs cannot come between.

    def begin(self) -> None:
        """A record is on its way."""
        self._logged += 1
        self.pending += 1

    def end(self, state: State, reason: str = "", *, number: int = 1) -> None:
        """Records have come to their end."""
        self.pending -= number
        self._ended[state, reason] += number

    def stats(self) -> AlertStats:
        """The sums at this moment."""
        sums = {"delivered": 0, "suppressed": 0, "spooled": 0, "dropped": 0}
        for (state, _), number in self._ended.items():
            sums[state] += number
        return AlertStats(
            logged=self._logged,
            **sums,
            pending=self.pending,
            deliveries=self.deliveries,
            replayed=self.replayed,
            faults=self.faults,
        )

    def news(self, channel: str) -> list[AlertsCounted]:
        """What came to its end since the last call, for observers; nothing while there are none."""
        if not hooks.observers:
            return []
        events: list[AlertsCounted] = []
        for (state, reason), number in list(self._ended.items()):
            if fresh := number - self._announced[state, reason]:
                self._announced[state, reason] = number
                events.append(AlertsCounted(channel, state, fresh, reason))
        return events
