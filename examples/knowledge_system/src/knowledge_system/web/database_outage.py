"""Database outages: one log record at the beginning and one at the end, however many requests fail."""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy import Engine, event

from mks_hardening.protocols import Clock

_log = logging.getLogger(__name__)

_QUIET = 300
"""Minimum seconds between two outage records: a database with a full disk still commits empty transactions."""


class Outage:
    """State of the database as seen by this process.

    Args:
        engine: engine; each new connection and each commit shows that the database is available.
        clock: source of time.
    """

    def __init__(self, engine: Engine, *, clock: Clock = time) -> None:
        self._lock = threading.Lock()
        self._monotonic = clock.monotonic
        self._is_unavailable = self._is_reported = False
        self._reported_at = float("-inf")
        event.listen(engine, "connect", self._note_success)
        event.listen(engine, "commit", self._note_success)

    def note_failure(self, error: Exception) -> None:
        """Record that a request failed because of the outage."""
        with self._lock:
            new = not self._is_unavailable and self._monotonic() - self._reported_at >= _QUIET
            self._is_unavailable = True
            if new:
                self._is_reported, self._reported_at = True, self._monotonic()
        if new:
            _log.error(
                "the database is unavailable; requests are answered with 503 until it is back", exc_info=error
            )

    def _note_success(self, *_: object) -> None:
        if not self._is_unavailable:  # true for nearly every commit
            return
        with self._lock:
            reported, self._is_unavailable, self._is_reported = self._is_reported, False, False
        if reported:
            _log.warning("the database is available again")
