"""Deduplication windows: which alert is the first of its kind, which is a repetition, and when they are reported.

A small state machine over a clock. It runs on the logging thread, so every step takes a few dictionary operations;
the caller protects it with a lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from mks_hardening.notify.engine._alert import Alert, Fingerprint

__all__ = ["DedupWindow", "DedupWindows", "RepeatedAlert"]

# Kinds depend on messages, which clients can influence: the limit bounds the memory.
_MAX_WINDOWS: Final = 2000


class RepeatedAlert(NamedTuple):
    """Repetitions to report: of which alert, how many, and their first and last wall time.

    Attributes:
        alert: the alert that was repeated.
        number: number of repetitions.
        first: wall time of the first repetition.
        last: wall time of the last repetition.
        handed_over: whether the shared store already has them.
    """

    alert: Alert
    number: int
    first: float
    last: float
    handed_over: bool = False


class DedupWindow:
    """Window of one kind of alert, and its repetitions since the last report."""

    __slots__ = ("alert", "first", "last", "opened", "repeats")

    def __init__(self, opened: float) -> None:
        self.opened: float = opened
        self.alert: Alert | None = None
        self.repeats: int = 0
        self.first: float = 0.0
        self.last: float = 0.0

    def count(self, number: int, *, at: float) -> None:
        """Add repetitions that were logged at wall time ``at``."""
        if not self.repeats:
            self.first = at
        self.last = at
        self.repeats += number

    def take(self) -> int:
        """Return the number of repetitions and reset it."""
        number, self.repeats = self.repeats, 0
        return number


class DedupWindows:
    """Deduplication windows of one handler, oldest first.

    Args:
        length: length of a window in seconds; 0 treats every alert as a first one.
        digest: whether repetitions are reported when their window ends.
        shared: whether other processes count too, so that windows without repetitions must be checked as well.
    """

    def __init__(self, length: float, *, digest: bool, shared: bool) -> None:
        self._length = length
        self._digest = digest
        self._shared = digest and shared
        self._open: dict[Fingerprint, DedupWindow] = {}
        self._pushed_out: list[RepeatedAlert] = []

    def admit(self, kind: Fingerprint, *, now: float, at: float) -> bool:
        """Return whether an alert is the first of its window; otherwise it is counted as a repetition.

        Args:
            kind: fingerprint of the record.
            now: monotonic time.
            at: wall time of the record.
        """
        if not self._length:
            return True
        window = self._open.get(kind)
        if window is None:
            self._make_room()
            self._open[kind] = DedupWindow(now)
            return True
        # A window with unreported repetitions stays open: otherwise the digest would include the new alert.
        if self._ended(window, now) and not (self._digest and window.repeats):
            self._reopen(kind, window, now)
            return True
        window.count(1, at=at)
        return False

    def remember(self, kind: Fingerprint, alert: Alert) -> None:
        """Store the alert whose repetitions will be reported."""
        window = self._open.get(kind)
        if window is not None:
            window.alert = alert

    def count(self, kind: Fingerprint, alert: Alert, *, now: float) -> None:
        """Count an alert as a repetition after the fact, because another process has sent it.

        Its window may have ended while a blocked destination delayed the query of the other processes. Then a new
        window is opened, whose end reports the repetition; otherwise no process would.
        """
        window = self._open.get(kind)
        if window is None:
            self._make_room()
            window = self._open[kind] = DedupWindow(now)
            window.alert = alert
        window.count(1, at=alert.created)

    def take_repeats(self, kind: Fingerprint) -> int:
        """Return the repetitions that no digest has reported, to be reported with the current alert."""
        window = self._open.get(kind)
        return window.take() if window is not None else 0

    def forget(self, kind: Fingerprint) -> None:
        """Treat the next alert of this kind as a first one, because this one was not accepted after all."""
        self._open.pop(kind, None)

    def due(self, *, now: float, everything: bool = False) -> list[RepeatedAlert]:
        """Return the repetitions to report now, and close windows without repetitions.

        Args:
            now: monotonic time.
            everything: do not wait for the end of the windows.
        """
        found, self._pushed_out = self._pushed_out, []
        for kind, window in list(self._open.items()) if everything else self._ended_ones(now):
            if window.repeats:
                if self._digest and window.alert is not None:
                    found.append(self._repeats(window, window.alert))
                    self._reopen(kind, window, now)
            elif everything or self._ended(window, now):
                if self._shared and window.alert is not None:
                    found.append(self._repeats(window, window.alert))
                if not everything:
                    del self._open[kind]
        return found

    def clear(self) -> None:
        """Remove all windows; their repetitions have been returned by ``due``."""
        self._open.clear()

    def next_end(self, *, now: float) -> float | None:
        """Return the seconds until the next window ends, or ``None`` if no window is open."""
        # The first window ends first, as all have the same length and a reopened one moves to the end.
        for window in self._open.values():
            return max(0.0, window.opened + self._length - now)
        return None

    def _ended(self, window: DedupWindow, now: float) -> bool:
        return now - window.opened >= self._length

    def _ended_ones(self, now: float) -> list[tuple[Fingerprint, DedupWindow]]:
        ended: list[tuple[Fingerprint, DedupWindow]] = []
        for kind, window in self._open.items():
            if not self._ended(window, now):
                break
            ended.append((kind, window))
        return ended

    def _reopen(self, kind: Fingerprint, window: DedupWindow, now: float) -> None:
        # Removed and added again: assigning to an existing key of a dictionary keeps its position.
        del self._open[kind]
        window.opened = now
        self._open[kind] = window

    def _make_room(self) -> None:
        if len(self._open) >= _MAX_WINDOWS:
            oldest = next(iter(self._open))
            window = self._open.pop(oldest)
            if self._digest and window.repeats and window.alert is not None:
                self._pushed_out.append(self._repeats(window, window.alert))

    @staticmethod
    def _repeats(window: DedupWindow, alert: Alert) -> RepeatedAlert:
        first, last = (window.first, window.last) if window.repeats else (alert.created, alert.created)
        return RepeatedAlert(alert, window.take(), first, last)
