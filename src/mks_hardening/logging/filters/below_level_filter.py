"""Filter for records below a level, for handlers of less severe records."""

from __future__ import annotations

import logging

from mks_hardening._core.checks import level_number

__all__ = ["BelowLevelFilter"]


class BelowLevelFilter(logging.Filter):
    """Pass only records below a level, for example so that errors go to stderr only."""

    def __init__(self, level: int = logging.ERROR) -> None:
        super().__init__()
        self._level = level_number(level)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is below the level."""
        return record.levelno < self._level
