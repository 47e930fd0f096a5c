"""File to which several processes append lines.

Each line is one ``write`` to a descriptor opened with ``O_APPEND``: the kernel appends it atomically, so lines of
several processes are neither torn nor lost.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from mks_hardening._core.checks import path_text

__all__ = ["LineFile"]

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MODE: Final = 0o640


class LineFile:
    """Append lines to the file that the path currently refers to.

    Args:
        path: path of the file; missing directories are created, a new file gets mode 0640.
    """

    __slots__ = ("_torn", "descriptor", "identity", "path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: str = str(Path(path_text(path, parameter="filename")).absolute())
        self.descriptor: int = -1
        self.identity: tuple[int, int] = (0, 0)
        self._torn = False

    def follow(self) -> None:
        """Open the file at the path unless it is already open: it may have been renamed or removed.

        Raises:
            OSError: it cannot be opened.
        """
        if self.descriptor < 0 or _identity(self.path) != self.identity:
            self.close()
            self.descriptor = _opened(self.path)
            status = os.fstat(self.descriptor)
            self.identity = (status.st_ino, status.st_dev)

    def write(self, line: bytes) -> None:
        """Write one line to the open file.

        Raises:
            OSError: it cannot be written. The next write terminates a partially written line.
        """
        # The disk was full in the middle of a line: start the next line on its own.
        if self._torn:
            line = b"\n" + line
        written = os.write(self.descriptor, line)
        self._torn = written != len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - runs for every line, and a Path costs as much as the call
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_dev


def _opened(path: str) -> int:
    try:
        # O_EXCL shows whether the file was created here: the mode of an existing file is left unchanged.
        descriptor = os.open(path, _FLAGS | os.O_EXCL, _MODE)
    except FileExistsError:
        return os.open(path, _FLAGS, _MODE)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, _FLAGS, _MODE)
    os.fchmod(descriptor, _MODE)  # independent of the umask
    return descriptor
