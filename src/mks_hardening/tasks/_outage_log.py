"""Outage log of the task table: one record when it becomes unusable and one when it recovers."""

from __future__ import annotations

import logging
from threading import RLock
from typing import Final

from mks_hardening._core.database.error_text import error_summary
from mks_hardening._core.process.after_fork import register_after_fork

__all__ = ["OutageLog"]

_FIRST: Final = 0.5
_LONGEST: Final = 10.0
_logger: Final = logging.getLogger("mks_hardening.tasks")


class OutageLog:
    """Outage state shared by the threads of one worker."""

    def __init__(self) -> None:
        self._wait = 0.0
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child, because a thread of the parent may hold it."""
        self._lock = RLock()

    def began(self, error: Exception) -> float:
        """Record a failure and log the first one; return the seconds until the next attempt, growing each time."""
        with self._lock:
            first, self._wait = not self._wait, min(_LONGEST, max(_FIRST, 2 * self._wait))
            wait = self._wait
        if first:
            _logger.error("the table of tasks cannot be used (%s); it is asked again", error_summary(error))
        return wait

    def over(self) -> None:
        """Record a success and log the first one after a failure."""
        # Without the lock, as this runs after every task. A stale read delays the record by one task.
        if not self._wait:
            return
        with self._lock:
            was, self._wait = self._wait, 0.0
        if was:
            _logger.warning("the table of tasks can be used again")
