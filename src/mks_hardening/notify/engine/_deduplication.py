"""Deduplication: which alert is the first of its kind, which is a repetition, and when repetitions are reported.

A small state machine over a clock. It runs on the logging thread, so every step takes a few dictionary operations;
the caller protects it with a lock.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final

from mks_hardening.notify.engine._alert import valid_time

if TYPE_CHECKING:
    from mks_hardening.notify.engine._alert import Alert, Fingerprint

__all__ = ["DedupWindow", "DedupWindows"]

# Kinds depend on messages, which clients can influence: the limit bounds the memory.
_MAX_WINDOWS: Final = 2000


class DedupWindow:
    """Window of one kind of alert, and its repetitions since the last report."""

    __slots__ = ("alert", "first", "last", "opened", "repeats")

    def __init__(self, opened: float, alert: Alert | None = None) -> None:
        self.opened: float = opened
        self.alert: Alert | None = alert
        self.repeats: int = 0
        self.first: float = 0.0
        self.last: float = 0.0

    def count(self, *, at: float) -> None:
        """Add a repetition that was logged at wall time ``at``."""
        if not self.repeats:
            self.first = at
        self.last = at
        self.repeats += 1

    def pop_repeats(self) -> int:
        """Return the number of repetitions and reset it."""
        number, self.repeats = self.repeats, 0
        return number

    def digest(self, alert: Alert) -> Alert:
        """Return an alert about the repetitions of ``alert``, and reset their number."""
        first, last = (self.first, self.last) if self.repeats else (alert.created, alert.created)
        return alert._replace(
            digest=True, repeats=self.pop_repeats(), since=valid_time(first), created=valid_time(last)
        )


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
        self._shared = shared
        self._open: dict[Fingerprint, DedupWindow] = {}
        self._evicted: list[Alert] = []

    def admit(self, kind: Fingerprint, *, now: float, at: float) -> int | None:
        """Decide whether an alert is the first of its window; otherwise count it as a repetition.

        Args:
            kind: fingerprint of the record.
            now: monotonic time.
            at: wall time of the record.

        Returns:
            ``None`` for a repetition; for a first alert, the number of unreported repetitions to report with it.
        """
        if not self._length:
            return 0
        window = self._open.get(kind)
        if window is None:
            self._open_window(kind, now)
            return 0
        # A window with unreported repetitions stays open: otherwise the digest would include the new alert.
        if self._ended(window, now) and not (self._digest and window.repeats):
            self._reopen(kind, window, now)
            return window.pop_repeats()
        window.count(at=at)
        return None

    def discard(self, kind: Fingerprint) -> None:
        """Treat the next alert of this kind as a first one, because this one was not accepted after all."""
        self._open.pop(kind, None)

    def set_alert(self, kind: Fingerprint, alert: Alert) -> None:
        """Store the alert whose repetitions will be reported."""
        window = self._open.get(kind)
        if window is not None:
            window.alert = alert

    def count_sent_elsewhere(self, kind: Fingerprint, alert: Alert, *, now: float) -> None:
        """Count an alert as a repetition after the fact, because another process has sent it.

        Its window may have ended while a blocked destination delayed the query of the other processes. Then a new
        window is opened, whose end reports the repetition; otherwise no process would.
        """
        window = self._open.get(kind) or self._open_window(kind, now, alert)
        window.count(at=alert.created)

    def pop_digests(self, *, now: float, everything: bool = False) -> list[Alert]:
        """Return digests of the repetitions to report now, and close windows without repetitions.

        A shared window without repetitions of this process is returned too, as a digest of none. The id is still
        that of the repeated alert.

        Args:
            now: monotonic time.
            everything: do not wait for the end of the windows.
        """
        digests, self._evicted = self._evicted, []
        windows = list(self._open.items())  # a copy, as a signal handler that logs may open a window
        for kind, window in (
            windows if everything else takewhile(lambda one: self._ended(one[1], now), windows)
        ):
            repeats = window.repeats
            if self._digest and window.alert is not None and (repeats or self._shared):
                digests.append(window.digest(window.alert))
            elif repeats:
                continue  # the next alert of this kind reports them
            if repeats:
                self._reopen(kind, window, now)
            elif not everything:
                del self._open[kind]
        return digests

    def clear(self) -> None:
        """Remove all windows; their repetitions have been returned by ``pop_digests``."""
        self._open.clear()

    def next_end(self, *, now: float) -> float | None:
        """Return the seconds until the next window ends, or ``None`` if there is nothing to wait for."""
        # The first window ends first, as all have the same length and a reopened one moves to the end. Without
        # digests, a window with repetitions stays open until the next alert of its kind.
        window = next(iter(self._open.values()), None) if self._digest else None
        return None if window is None else max(0.0, window.opened + self._length - now)

    def _ended(self, window: DedupWindow, now: float) -> bool:
        return now - window.opened >= self._length

    def _open_window(self, kind: Fingerprint, now: float, alert: Alert | None = None) -> DedupWindow:
        if len(self._open) >= _MAX_WINDOWS:
            oldest = self._open.pop(next(iter(self._open)))
            if self._digest and oldest.repeats and oldest.alert is not None:
                self._evicted.append(oldest.digest(oldest.alert))
        window = self._open[kind] = DedupWindow(now, alert)
        return window

    def _reopen(self, kind: Fingerprint, window: DedupWindow, now: float) -> None:
        # Removed and added again: assigning to an existing key of a dictionary keeps its position.
        del self._open[kind]
        window.opened = now
        self._open[kind] = window
