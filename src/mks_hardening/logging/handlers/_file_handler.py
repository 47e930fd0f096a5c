"""Base class of the file handlers: errors do not fail a request and are reported once; free space is monitored."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from mks_hardening._core.checks import level_number, path_text, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening.logging.handlers._error_report import HandlerErrorReport, to_stderr
from mks_hardening.protocols import Clock

__all__ = ["MIN_FREE_BYTES", "FileHandler"]

MIN_FREE_BYTES: Final = 104_857_600

# With a full disk, not every record must cost a failing system call.
_RETRY_SECONDS: Final = 1.0
# statvfs on a network file system may be slow.
_SPACE_SECONDS: Final = 30.0


class FileHandler(logging.Handler):
    """Base class of both file handlers: handles write errors without failing the caller, and monitors free space.

    Args:
        filename: path of the file, relative to the current directory; missing directories are created.
        level: minimum level of records.
        min_free_bytes: free space below which a warning is written to stderr; 0 disables the check.
        clock: clock for retries after an error and for the interval between checks of the free space.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        *,
        level: int | str = 0,
        min_free_bytes: int = MIN_FREE_BYTES,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(level_number(level))
        self.baseFilename: str = str(
            Path(path_text(filename, parameter="filename")).absolute()
        )  # the attribute name of logging.FileHandler
        self._clock = clock = given_clock(clock)
        self._min_free = whole_number(min_free_bytes, parameter="min_free_bytes", minimum=0)
        self._report = HandlerErrorReport(f"log file {self.baseFilename}")
        self._reason = ""
        self._retry_at = 0.0
        self._look_at = 0.0
        self._warned = False
        self._open()
        try:
            # An empty write opens the file and changes nothing: an error is reported now, not at the first record.
            self._append(b"", clock.monotonic())
        except OSError as error:
            self._failed(error, lost=0)

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line, or count it as lost."""
        try:
            data = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception as error:  # noqa: BLE001 - a custom formatter
            self._report.failed(type(error).__name__)
            return
        now = self._clock.monotonic()
        if now < self._retry_at:
            self._report.failed(self._reason)
            return
        try:
            self._append(data, now)
        except OSError as error:
            self._failed(error)
            return
        if self._retry_at:
            self._retry_at = 0.0
            self._report.works()
        if now >= self._look_at:
            self._look_at = now + _SPACE_SECONDS
            self._check_free_space()

    def close(self) -> None:
        """Close the file."""
        self.acquire()
        try:
            self._close_file()
        finally:
            self.release()
        super().close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.baseFilename} ({logging.getLevelName(self.level)})>"

    def _open(self) -> None:
        """Create what ``_append`` needs; called once, when ``baseFilename`` is set."""

    def _append(self, line: bytes, now: float) -> None:
        raise NotImplementedError

    def _close_file(self) -> None:
        raise NotImplementedError

    def _failed(self, error: OSError, *, lost: int = 1) -> None:
        self._close_file()
        self._retry_at = self._clock.monotonic() + _RETRY_SECONDS
        self._reason = error.strerror or type(error).__name__
        self._report.failed(self._reason, lost=lost)

    def _check_free_space(self) -> None:
        if not self._min_free:
            return
        try:
            status = os.statvfs(Path(self.baseFilename).parent)
        except OSError:
            return
        free = status.f_bavail * status.f_frsize
        if free >= self._min_free:
            self._warned = False
        elif not self._warned:
            self._warned = True
            to_stderr(f"only {free // 1_048_576} MiB are free for {self.baseFilename}")
