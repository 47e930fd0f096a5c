"""One log record when a server becomes unavailable, and one when it is available again."""

from __future__ import annotations

import logging
from threading import RLock
from typing import Final

from mks_hardening._core.process.after_fork import register_after_fork

__all__ = ["OutageLog"]

_FIRST: Final = 0.5
_LONGEST: Final = 10.0


class OutageLog:
    """Outage state shared by the threads of one object.

    Args:
        logger: logger of both records.
        began: message of the record for the first failure, at level ``level``; its arguments come from ``failed``.
        ended: message of the record for the first success after a failure, at level WARNING.
        level: level of the first record.
    """

    __slots__ = ("__weakref__", "_began", "_ended", "_level", "_lock", "_logger", "_wait")

    def __init__(self, logger: logging.Logger, *, began: str, ended: str, level: int = logging.ERROR) -> None:
        self._logger = logger
        self._began = began
        self._ended = ended
        self._level = level
        self._wait = 0.0
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child, because a thread of the parent may hold it."""
        self._lock = RLock()

    def failed(self, *arguments: object) -> float:
        """Record a failure and log the first one; return the seconds until the next attempt, growing each time."""
        with self._lock:
            first, self._wait = not self._wait, min(_LONGEST, max(_FIRST, 2 * self._wait))
            wait = self._wait
        if first:
            self._logger.log(self._level, self._began, *arguments)
        return wait

    def succeeded(self) -> None:
        """Record a success and log the first one after a failure."""
        # Without the lock, as this runs after every call. A stale read delays the record by one call.
        if not self._wait:
            return
        with self._lock:
            was, self._wait = self._wait, 0.0
        if was:
            self._logger.warning(self._ended)
