"""Handler that rotates its own file, safe for several processes; see ``_rotated_log`` for the algorithm."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mks_hardening._core.checks import boolean, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.background_worker import BackgroundWorker
from mks_hardening.logging.handlers._file_handler import MIN_FREE_BYTES, FileHandler
from mks_hardening.logging.handlers._rotated_log import RotatedLog
from mks_hardening.protocols import Clock

__all__ = ["ProcessSafeRotatingFileHandler", "Rotation"]


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotation settings of a log file.

    Attributes:
        max_bytes: size in bytes beyond which the next line goes to a new file.
        backups: number of rotated files to keep, named ``.1`` (newest) upwards.
        compress: whether rotated files are compressed with gzip.

    Raises:
        ConfigurationError: ``max_bytes`` is below 1,024 or ``backups`` is below 1.
    """

    max_bytes: int = 10_485_760
    backups: int = 10
    compress: bool = True

    def __post_init__(self) -> None:
        whole_number(self.max_bytes, parameter="max_bytes", minimum=1024)
        whole_number(self.backups, parameter="backups", minimum=1)
        boolean(self.compress, parameter="compress")


class ProcessSafeRotatingFileHandler(FileHandler):
    """Append to a file and rotate it by size, safe for several processes.

    Args:
        filename: path of the file; the lock file is ``.NAME.lock`` in the same directory.
        max_bytes: see ``Rotation``.
        backups: see ``Rotation``.
        compress: see ``Rotation``.
        level: minimum level of records.
        min_free_bytes: see ``ReopeningFileHandler``.
        clock: see ``ReopeningFileHandler``.

    Raises:
        ConfigurationError: ``max_bytes`` is below 1024 or ``backups`` is below 1.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        *,
        max_bytes: int = Rotation().max_bytes,
        backups: int = Rotation().backups,
        compress: bool = True,
        level: int | str = 0,
        min_free_bytes: int = MIN_FREE_BYTES,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        Rotation(max_bytes=max_bytes, backups=backups, compress=compress)  # rejects invalid values
        self._log = RotatedLog(filename, max_bytes=max_bytes, backups=backups, compress=compress)
        self._compressor = (
            BackgroundWorker(self._log.compress, name="mks-log-gzip", max_queue=1, clock=given_clock(clock))
            if compress
            else None
        )
        super().__init__(filename, level=level, min_free_bytes=min_free_bytes, clock=clock)
        register_after_fork(self)

    def close(self) -> None:
        """Close the file and wait up to five seconds for compression in progress."""
        super().close()
        if self._compressor is not None:
            self._compressor.close()

    def _append(self, line: bytes, now: float) -> None:
        if self._log.append(line, now) and self._compressor is not None:
            self._compressor.put(None)

    def _close_file(self) -> None:
        self._log.close()

    def reset_after_fork(self) -> None:
        """Reopen the file in a forked child."""
        # A lock belongs to the open file description, which parent and child would share.
        self._log.close()
