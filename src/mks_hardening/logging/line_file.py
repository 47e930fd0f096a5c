"""A file that lines are appended to, by many processes at once.

Each line is one ``write`` on a descriptor opened with ``O_APPEND``: the kernel puts it at the end as a whole, so
lines of several processes are neither torn nor lost. Before each write the path is looked up; when it leads to
another file than the one held open (logrotate, or another process has rotated), that one is opened.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

__all__ = ["LineFile"]

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MODE: Final = 0o640


class LineFile:
    """Appends lines to a path that may be renamed at any time.

    Args:
        path: the file; missing folders are made, a new file gets mode 0640.
        guarded: hold a shared lock on the file while writing, so that whoever holds an exclusive one (before
            compressing a file that was renamed) knows that no late line will come.
    """

    __slots__ = ("_descriptor", "_guarded", "_identity", "_torn", "path")

    def __init__(self, path: str | os.PathLike[str], *, guarded: bool = False) -> None:
        self.path = str(Path(path).absolute())
        self._guarded = guarded
        self._descriptor = -1
        self._identity = (0, 0)
        self._torn = False

    def append(self, data: bytes, *, limit: int = 0) -> bool:
        """Write one line; false, and nothing written, when the file would grow beyond ``limit`` bytes.

        Raises:
            OSError: the file cannot be opened or written; a line written in part is closed by the next one.
        """
        while True:
            size = self._current().st_size
            if limit and size and size + len(data) > limit:
                return False
            if not self._guarded:
                self._write(data)
                return True
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
            try:
                # Renamed between look-up and lock: the line belongs into the new file.
                if self._is_current():
                    self._write(data)
                    return True
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def is_open(self) -> bool:
        """Whether a descriptor is held."""
        return self._descriptor >= 0

    def open(self) -> None:
        """Open the file now, to learn early whether it can be.

        Raises:
            OSError: it cannot.
        """
        self._current()

    def _current(self) -> os.stat_result:
        """The state of the file at the path, which is the open one afterwards."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            status = None
        if status is not None and self._descriptor >= 0 and (status.st_ino, status.st_dev) == self._identity:
            return status
        self.close()
        self._descriptor = _opened(self.path)
        status = os.fstat(self._descriptor)
        self._identity = (status.st_ino, status.st_dev)
        return status

    def _is_current(self) -> bool:
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (status.st_ino, status.st_dev) == self._identity

    def _write(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        written = os.write(self._descriptor, data)
        if written != len(data):
            self._torn = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False


def _opened(path: str) -> int:
    for make_folder in (True, False):
        try:
            descriptor = os.open(path, _FLAGS | os.O_EXCL, _MODE)
        except FileExistsError:
            return os.open(path, _FLAGS, _MODE)
        except FileNotFoundError:
            if not make_folder:
                raise
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        else:
            os.fchmod(descriptor, _MODE)
            return descriptor
    raise AssertionError("unreachable")


