"""Which records a handler leaves to another one because they are too grave for it."""

from __future__ import annotations

import logging

from mks_hardening._core.checks import level_number

__all__ = ["BelowLevelFilter"]


class BelowLevelFilter(logging.Filter):
    """Lets records below a level through, so that errors go to stderr alone."""

    def __init__(self, level: int = logging.ERROR) -> None:
        super().__init__()
        self._level = level_number(level)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is below the level."""
        return record.levelno < self._level
