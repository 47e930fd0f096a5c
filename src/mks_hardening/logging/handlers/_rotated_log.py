"""Log that several processes write and rotate together, without losing, tearing or duplicating a line.

Rotation is a rename by the first process that acquires the lock file. A counter in the lock file, mapped into the
memory of all writers, tells them to open the new file; checking it costs no system call. A line that is being
written goes to the renamed file, so nothing is lost.

Compression needs more: no line may be added after the file has been read. Writers therefore hold a shared lock on
the log while they check the counter and write. The compressor waits until any rotation is complete, so that the
counter is updated, then acquires an exclusive lock on the log and releases it at once: when it is granted, the last
pending line has been written, and later writers see the new counter.
"""

from __future__ import annotations

import fcntl
import gzip
import mmap
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final

from mks_hardening.logging.handlers._line_file import LineFile

__all__ = ["RotatedLog"]

_MODE: Final = 0o640
_WIDTH: Final = 8
_LOOK_SECONDS: Final = 1.0


class RotatedLog:
    """Log at ``path`` with its rotated files ``path.1`` (newest), ``path.2`` or ``path.2.gz`` and so on.

    Args:
        path: path of the log; the lock file is ``.NAME.lock`` in the same directory.
        max_bytes: maximum size of the log in bytes, unless a single line is longer.
        backups: number of rotated files to keep.
        compress: whether rotated files will be compressed.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int, backups: int, compress: bool) -> None:
        self._file = LineFile(path)
        self.path: str = self._file.path
        self._path = Path(self.path)
        self._lock_path = self._path.with_name(f".{self._path.name}.lock")
        self._max_bytes = max_bytes
        self._keep = backups
        self._guarded = compress
        self._counter: mmap.mmap | bytes = b""
        self._seen = b""
        self._look_at = 0.0
        self._room = 0

    def append(self, line: bytes, now: float) -> bool:
        """Write one line; return whether the log was rotated before it.

        Args:
            line: the line with its newline.
            now: monotonic time; once per second the files are reopened, in case they have been removed.

        Raises:
            OSError: the log cannot be opened or written.
        """
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._open_counter()
        self._room -= len(line)
        rotated = self._room < 0 and self._make_room(len(line))
        while not self._written(line):
            pass
        return rotated

    def close(self) -> None:
        """Close the log; the next line reopens it."""
        self._file.close()
        self._counter, self._seen, self._look_at = b"", b"", 0.0

    def compress(self, _item: object = None) -> None:
        """Compress all uncompressed rotated files; files that another process is compressing are skipped."""
        for number in range(1, self._keep + 1):
            with suppress(FileNotFoundError), self._numbered(number).open("rb") as raw:
                self._compress_one(raw)

    # --- writing -----------------------------------------------------------------------------

    def _written(self, line: bytes) -> bool:
        """Write the line unless another process has rotated the log; return whether it was written."""
        if self._count() != self._seen:
            self._follow()
        if not self._guarded:
            self._file.write(line)
            return True
        descriptor = self._file.descriptor
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            if self._count() != self._seen:
                return False
            self._file.write(line)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        return True

    def _follow(self) -> None:
        count = self._count()
        self._file.follow()
        # Only now: if the log is rotated in between, the next check sees a different count.
        self._seen = count

    def _count(self) -> bytes:
        return self._counter[:_WIDTH]

    def _make_room(self, length: int) -> bool:
        """Check the size of the log and rotate it if the line does not fit; return whether it was rotated."""
        if self._count() != self._seen:
            self._follow()
        free = self._max_bytes - os.lseek(self._file.descriptor, 0, os.SEEK_END)
        # Other processes write too: check again after an eighth of the free space.
        self._room = (free - length) // 8
        return free < min(length, self._max_bytes) and self._rotate(length)

    def _open_counter(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(wait=True) as descriptor:
            if os.fstat(descriptor).st_size < _WIDTH:
                os.truncate(descriptor, _WIDTH)
            counter = mmap.mmap(descriptor, _WIDTH)
        self._counter = counter
        self._follow()

    # --- rotating ----------------------------------------------------------------------------

    def _rotate(self, room: int) -> bool:
        """Rename the log unless another process is rotating or has rotated it; return whether it was renamed."""
        with self._locked(wait=False) as descriptor:
            # Checked again under the lock: its previous holder may have rotated the log.
            log = _status(self._path)
            if descriptor < 0 or log is None or log.st_size + room <= self._max_bytes:
                return False
            self._remove_beyond()
            # Oldest first: the reverse order would overwrite files that have not been moved yet.
            for number in range(self._keep, 0, -1):
                self._shift(number, "")
                self._shift(number, ".gz")
            self._path.rename(self._numbered(1))
            count = int.from_bytes(os.pread(descriptor, _WIDTH, 0), "little") + 1
            os.pwrite(descriptor, count.to_bytes(_WIDTH, "little"), 0)
            return True

    def _remove_beyond(self) -> None:
        """Remove files beyond ``backups``, left from a larger setting."""
        for number in count(self._keep + 1):
            old = [self._numbered(number, suffix) for suffix in ("", ".gz")]
            found = [path for path in old if path.exists()]
            if not found:  # dated names of other tools are not consecutive numbers
                return
            for path in found:
                path.unlink(missing_ok=True)

    def _shift(self, number: int, suffix: str) -> None:
        old = self._numbered(number, suffix)
        with suppress(FileNotFoundError):
            if number == self._keep:
                old.unlink()
            else:
                old.rename(self._numbered(number + 1, suffix))

    def _numbered(self, number: int, suffix: str = "") -> Path:
        return self._path.with_name(f"{self._path.name}.{number}{suffix}")

    @contextmanager
    def _locked(self, *, wait: bool) -> Generator[int]:
        """Lock the lock file and return its descriptor; -1 if another process holds it and ``wait`` is false."""
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            yield -1
            return
        try:
            yield descriptor
        finally:
            # Unlock explicitly: the mapping holds a second descriptor of the same open file.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    # --- compressing -------------------------------------------------------------------------

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
                # Another process has compressed it since we opened it; the claimed file may be its result.
                return
            # Renamed but not yet counted: until then other processes keep writing to this file.
            with self._locked(wait=True):
                pass
            # Granted when the last pending line has been written; no process writes to this file any more, so
            # release it at once.
            fcntl.flock(raw, fcntl.LOCK_EX)
            fcntl.flock(raw, fcntl.LOCK_UN)
            target.truncate(0)
            os.fchmod(target.fileno(), _MODE)
            with gzip.GzipFile("", "wb", 6, target) as stream:
                shutil.copyfileobj(raw, stream, 1 << 20)
            target.flush()
            os.fsync(target.fileno())  # the raw file is removed next: a power failure must not lose both
            self._put_in_place(inode, packed)

    def _put_in_place(self, inode: int, packed: Path) -> None:
        with self._locked(wait=True):
            for number in range(1, self._keep + 1):
                raw = self._numbered(number)
                status = _status(raw)
                # By inode, as its number has changed if other processes have rotated the log during compression.
                if status is not None and status.st_ino == inode:
                    packed.rename(self._numbered(number, ".gz"))
                    raw.unlink()
                    return
            packed.unlink()  # removed by rotation in the meantime


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
