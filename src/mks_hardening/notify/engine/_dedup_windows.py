"""The dedup windows: which alert is the first of its kind, which repeat it, and when repetitions are reported.

A small state machine over a clock. It is asked on the thread that logs, so every step is a few dictionary
operations; whoever uses it guards it with a lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from mks_hardening.notify.engine._alert import Alert
    from mks_hardening.notify.engine._fingerprint import Fingerprint

__all__ = ["DedupWindow", "DedupWindows", "RepeatedAlert"]

# Kinds come from messages, and so from whoever can cause one: the bound is on memory.
_MAX_WINDOWS: Final = 2000


class RepeatedAlert(NamedTuple):
    """Repetitions to report: of which alert, how many, and when they were (wall time).

    Attributes:
        handed_over: whether the shared store has them already.
    """

    alert: Alert
    number: int
    first: float
    last: float
    handed_over: bool = False


class DedupWindow:
    """One kind of alert, and its repetitions since the last report."""

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
        """The number of repetitions, which starts anew."""
        number, self.repeats = self.repeats, 0
        return number


class DedupWindows:
    """The windows of one handler, oldest first.

    Args:
        length: seconds in which repetitions are counted; 0 calls every alert a first one.
        digest: whether repetitions are reported when their window ends.
        shared: other processes count as well, so that windows without repetitions are to be looked at too.
    """

    def __init__(self, length: float, *, digest: bool, shared: bool) -> None:
        self._length = length
        self._digest = digest
        self._shared = digest and shared
        self._open: dict[Fingerprint, DedupWindow] = {}
        self._pushed_out: list[RepeatedAlert] = []

    def admit(self, kind: Fingerprint, *, now: float, at: float) -> bool:
        """Whether an alert is the first of its window; otherwise it is counted as a repetition.

        Args:
            kind: what the alert is about.
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
        # With repetitions still to report the window stays open: the digest would otherwise tell of the new alert
        # too.
        if self._ended(window, now) and not (self._digest and window.repeats):
            self._reopen(kind, window, now)
            return True
        window.count(1, at=at)
        return False

    def remember(self, kind: Fingerprint, alert: Alert) -> None:
        """Keep the alert whose repetitions will be reported."""
        window = self._open.get(kind)
        if window is not None:
            window.alert = alert

    def count(self, kind: Fingerprint, alert: Alert, *, now: float) -> None:
        """Count an alert as a repetition after all: another process has sent it.

        Its window may have ended meanwhile, while a destination that hung held up whoever asks the other processes.
        Then another begins, whose end tells of it: without one nobody would.
        """
        window = self._open.get(kind)
        if window is None:
            self._make_room()
            window = self._open[kind] = DedupWindow(now)
            window.alert = alert
        window.count(1, at=alert.created)

    def take_repeats(self, kind: Fingerprint) -> int:
        """Repetitions that no digest has reported, for the alert that comes now."""
        window = self._open.get(kind)
        return window.take() if window is not None else 0

    def forget(self, kind: Fingerprint) -> None:
        """Let the next one be a first one, because this one was not taken after all."""
        self._open.pop(kind, None)

    def due(self, *, now: float, everything: bool = False) -> list[RepeatedAlert]:
        """Take the repetitions to report now, and close windows in which nothing came.

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
        """Forget all windows; their repetitions have been taken."""
        self._open.clear()

    def next_end(self, *, now: float) -> float | None:
        """Seconds until the next window ends, or ``None`` when none is open."""
        # The first is the one that ends first, as all are of one length and a reopened one goes to the end.
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
        # Taken out and put in again: a dictionary keeps the place of a key that is written over.
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
