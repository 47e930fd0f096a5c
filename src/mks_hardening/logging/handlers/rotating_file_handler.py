"""The handler that rotates its own file, safely over processes; how it does that stands in ``rotated_log``."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mks_hardening._core.checks import flag, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.process.after_fork import renew_in_child
from mks_hardening._core.process.background_worker import BackgroundWorker
from mks_hardening.logging.handlers._file_handler import MIN_FREE_BYTES, FileHandler
from mks_hardening.logging.handlers._rotated_log import RotatedLog
from mks_hardening.protocols import Clock

__all__ = ["ProcessSafeRotatingFileHandler", "Rotation"]


@dataclass(frozen=True, slots=True)
class Rotation:
    """When to rotate and what to keep.

    Attributes:
        max_bytes: size of a file beyond which the next line goes into a new one.
        backups: old files kept, named ``.1`` (newest) upwards.
        compress: whether old files are compressed with gzip.

    Raises:
        ConfigurationError: less than 1,024 bytes, or no backups.
    """

    max_bytes: int = 10_485_760
    backups: int = 10
    compress: bool = True

    def __post_init__(self) -> None:
        whole_number(self.max_bytes, parameter="max_bytes", minimum=1024)
        whole_number(self.backups, parameter="backups", minimum=1)
        flag(self.compress, parameter="compress")


class ProcessSafeRotatingFileHandler(FileHandler):
    """Appends to a file and rotates it by size, safely over processes.

    Args:
        filename: the file; the lock lies beside it as ``.NAME.lock``.
        max_bytes: see ``Rotation``.
        backups: see ``Rotation``.
        compress: see ``Rotation``.
        level: lowest level written.
        min_free_bytes: see ``FileHandler``.
        clock: see ``FileHandler``.

    Raises:
        ConfigurationError: ``max_bytes`` below 1024 or ``backups`` below 1.
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
        Rotation(max_bytes=max_bytes, backups=backups, compress=compress)  # refuses what is impossible
        self._log = RotatedLog(filename, max_bytes=max_bytes, backups=backups, compress=compress)
        self._compressor = (
            BackgroundWorker(self._log.compress, name="mks-log-gzip", max_queue=1, clock=given_clock(clock))
            if compress
            else None
        )
        super().__init__(filename, level=level, min_free_bytes=min_free_bytes, clock=clock)
        renew_in_child(self)

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

    def renew(self) -> None:
        """In a forked child: open the file anew."""
        # A lock belongs to the open file, which parent and child would share.
        self._log.close()
