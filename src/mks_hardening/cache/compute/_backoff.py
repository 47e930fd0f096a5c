"""Pauses between attempts to recompute values whose computation fails. State without I/O."""

from __future__ import annotations

from threading import RLock
from typing import Final

from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.protocols import Clock

__all__ = ["Backoff"]

_FIRST: Final = 1.0
_LONGEST: Final = 30.0
_MOST_KEYS: Final = 1000


class Backoff:
    """For each key, how often its computation has failed in a row, and until when to wait with the next attempt.

    The pause is one second after the first failure, and doubles up to 30 seconds.
    """

    __slots__ = ("__weakref__", "_clock", "_failures", "_lock")

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child."""
        self._lock = RLock()

    def is_waiting(self, key: str) -> bool:
        """Return whether the next attempt has to wait."""
        failed = self._failures.get(key)
        return failed is not None and self._clock.monotonic() < failed[1]

    def failed(self, key: str) -> bool:
        """Count a failure, once for all callers of one attempt; return whether it was counted."""
        with self._lock:
            if self.is_waiting(key):
                return False
            count, _until = self._failures.pop(key, (0, 0.0))
            pause = min(_LONGEST, _FIRST * 2.0 ** min(count, 10))
            self._failures[key] = (count + 1, self._clock.monotonic() + pause)
            if len(self._failures) > _MOST_KEYS:  # forgetting one costs an attempt, and nothing else
                del self._failures[next(iter(self._failures))]
            return True

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        if key in self._failures:
            with self._lock:
                self._failures.pop(key, None)
