"""A log file that many processes write and rotate together, without losing, tearing or doubling a line.

Rotation is a rename, done by whoever gets a lock file first; the others notice at their next line that the path
leads elsewhere. A line on its way goes into the file under its new name, so nothing is lost. Compressing happens
on a thread of its own: it takes an exclusive lock on the renamed file, which the kernel grants when the last line
on its way has been written, and no new one can come.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from weakref import WeakSet

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.worker import BackgroundWorker
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging.handlers import FileHandler
from mks_hardening.protocols import Clock

__all__ = ["ProcessSafeRotatingFileHandler", "Rotation"]

_MODE: Final = 0o640
_handlers: WeakSet[ProcessSafeRotatingFileHandler] = WeakSet()
_fork_armed = False


class Rotation(NamedTuple):
    """When to rotate and what to keep.

    Attributes:
        max_bytes: size of a file beyond which the next line goes into a new one.
        backups: old files kept, named ``.1`` (newest) upwards.
        compress: whether old files are compressed with gzip.
    """

    max_bytes: int = 10_485_760
    backups: int = 10
    compress: bool = True


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
        min_free_bytes: int = 104_857_600,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_rotation(Rotation(max_bytes, backups, compress))
        super().__init__(filename, level=level, min_free_bytes=min_free_bytes, guarded=compress, clock=clock)
        self._max_bytes = max_bytes
        self._backups = Backups(self.baseFilename, backups)
        self._compressor = (
            BackgroundWorker(self._backups.compress, name="mks-log-gzip", max_queue=1, clock=clock)
            if compress
            else None
        )
        _remember(self)

    def close(self) -> None:
        """Close the file and wait up to five seconds for compression in progress."""
        super().close()
        if self._compressor is not None:
            self._compressor.close()

    def _append(self, data: bytes) -> None:
        if self._file.append(data, limit=self._max_bytes):
            return
        rotated = self._backups.rotate(self._max_bytes - len(data))
        self._file.append(data)
        if rotated and self._compressor is not None:
            self._compressor.put(None)

    def _after_fork(self) -> None:
        # A lock belongs to the open file, which parent and child would share.
        self._file.close()


class Backups:
    """The old files of one log, as ``NAME.1``, ``NAME.2.gz`` and so on.

    Args:
        path: the log.
        keep: how many old files stay.
    """

    def __init__(self, path: str, keep: int) -> None:
        self._path = Path(path)
        self._lock = self._path.with_name(f".{self._path.name}.lock")
        self._keep = keep

    def rotate(self, beyond: int) -> bool:
        """Rename the log if it is larger than ``beyond`` bytes and nobody else is at it; whether it was done."""
        with self._locked(wait=False) as mine:
            if not mine or _size(self._path) <= beyond:
                return False
            for number in range(self._keep, 0, -1):
                self._shift(number, "")
                self._shift(number, ".gz")
            self._path.rename(self._numbered(1))
            return True

    def compress(self, _item: None = None) -> None:
        """Compress every old file that is not; what another process is compressing is left to it."""
        for number in range(1, self._keep + 1):
            with suppress(FileNotFoundError), self._numbered(number).open("rb") as raw:
                self._compress_one(raw)

    def _shift(self, number: int, suffix: str) -> None:
        old = self._numbered(number, suffix)
        with suppress(FileNotFoundError):
            if number == self._keep:
                old.unlink()
            else:
                old.rename(self._numbered(number + 1, suffix))

    def _compress_one(self, raw: BinaryIO) -> None:
        inode = os.fstat(raw.fileno()).st_ino
        packed = self._path.with_name(f".{self._path.name}.{inode}.gz.tmp")
        claim = os.open(packed, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE)
        with os.fdopen(claim, "wb") as target:
            try:
                fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if os.fstat(raw.fileno()).st_nlink == 0:
                # Compressed by another process since we opened it; what we claimed may be its finished file.
                return
            _wait_for_late_lines(raw)
            target.truncate(0)
            os.fchmod(target.fileno(), _MODE)
            with gzip.GzipFile("", "wb", 6, target) as stream:
                shutil.copyfileobj(raw, stream, 1 << 20)
            target.flush()
            self._put_in_place(inode, packed)

    def _put_in_place(self, inode: int, packed: Path) -> None:
        with self._locked(wait=True):
            for number in range(1, self._keep + 1):
                raw = self._numbered(number)
                if _inode(raw) == inode:
                    packed.rename(self._numbered(number, ".gz"))
                    raw.unlink()
                    return
            packed.unlink()

    def _numbered(self, number: int, suffix: str = "") -> Path:
        return self._path.with_name(f"{self._path.name}.{number}{suffix}")

    @contextmanager
    def _locked(self, *, wait: bool) -> Iterator[bool]:
        descriptor = os.open(self._lock, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            yield False
            return
        try:
            yield True
        finally:
            os.close(descriptor)


def check_rotation(rotation: Rotation) -> None:
    """Refuse an impossible rotation.

    Raises:
        ConfigurationError: see ``ProcessSafeRotatingFileHandler``.
    """
    for name, value, least in (("max_bytes", rotation.max_bytes, 1024), ("backups", rotation.backups, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(
                f"{name} must be a whole number of at least {least}, not {type(value).__name__}", parameter=name
            )


def _wait_for_late_lines(raw: BinaryIO) -> None:
    # Writers hold a shared lock while they write, and look again whether the file is still the log. So once this
    # lock was granted nothing is on its way, and it need not be held: nobody is made to wait for gzip.
    fcntl.flock(raw, fcntl.LOCK_EX)
    fcntl.flock(raw, fcntl.LOCK_UN)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1


def _remember(handler: ProcessSafeRotatingFileHandler) -> None:
    global _fork_armed  # noqa: PLW0603 - armed once a process
    _handlers.add(handler)
    if not _fork_armed:
        _fork_armed = True
        os.register_at_fork(after_in_child=_reopen_in_child)


def _reopen_in_child() -> None:
    for handler in list(_handlers):
        handler._after_fork()  # noqa: SLF001 - same module
