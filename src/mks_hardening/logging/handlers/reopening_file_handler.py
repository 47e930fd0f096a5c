"""File handler for files that logrotate renames."""

from __future__ import annotations

from mks_hardening.logging.handlers._file_handler import FileHandler
from mks_hardening.logging.handlers._line_file import LineFile

__all__ = ["ReopeningFileHandler"]


class ReopeningFileHandler(FileHandler):
    """Append to a file that logrotate or another program may rename or remove; the next record opens a new file.

    With ``copytruncate``, logrotate copies the file and then truncates it. Lines written in between are lost,
    whatever the writer, so use ``create`` (the default of logrotate) instead.

    Args:
        filename: path of the file, relative to the current directory; missing directories are created.
        level: minimum level of records.
        min_free_bytes: free space below which a warning is written to stderr; 0 disables the check.
        clock: clock for retries after an error and for the interval between checks of the free space.
    """

    def _open(self) -> None:
        self._file = LineFile(self.baseFilename)

    def _append(self, line: bytes, now: float) -> None:  # noqa: ARG002 - the rotating handler needs the time
        self._file.follow()
        self._file.write(line)

    def _close_file(self) -> None:
        self._file.close()
