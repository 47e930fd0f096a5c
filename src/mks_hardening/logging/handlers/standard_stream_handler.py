"""Handler for stdout and stderr."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from mks_hardening._core.checks import choice, level_number
from mks_hardening.logging.formatting._json_text import to_ascii
from mks_hardening.logging.handlers._error_report import HandlerErrorReport
from mks_hardening.logging.handlers._fork_lock import lock_during_fork

__all__ = ["StandardStreamHandler"]


class StandardStreamHandler(logging.Handler):
    """Write to the current ``sys.stdout`` or ``sys.stderr``.

    If the stream is closed or full, the record is lost and counted, but the request does not fail.

    Args:
        stream: ``stdout`` or ``stderr``.
        level: minimum level of records.
    """

    def __init__(self, stream: Literal["stdout", "stderr"] = "stderr", *, level: int | str = 0) -> None:
        choice(stream, ("stdout", "stderr"), parameter="stream")
        super().__init__(level_number(level))
        self._stream = stream
        self._report = HandlerErrorReport(stream)
        lock_during_fork(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            line = self.format(record) + "\n"
            stream = getattr(sys, self._stream)
            if type(stream).__name__ == "LoggingProxy":
                # Celery turns printed text into records: our records would come back here and be lost.
                stream = getattr(sys, f"__{self._stream}__")
            try:
                stream.write(line)
            except UnicodeEncodeError:
                stream.write(to_ascii(line))
            stream.flush()
        except Exception as error:  # noqa: BLE001 - logging must not break the application
            self._report.failed(type(error).__name__)
        else:
            self._report.works()
