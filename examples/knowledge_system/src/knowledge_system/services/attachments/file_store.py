"""Content-addressed file store: user-supplied names never become file names."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

_DIGEST: Final = frozenset("0123456789abcdef")
_ASIDE: Final = ".removed"
_NEW: Final = ".new"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HOUR: Final = 3600


class StoreFullError(OSError):
    """The disk or the quota is full; no part of the file is stored."""


class FileStore:
    """Files below one directory, which no web server serves directly.

    Equal files are stored once. A file that is no longer referenced is quarantined for some days before it is
    deleted, because the last backup of the database may be older than that of the directory.

    Args:
        folder: directory, created with the first file; writable by its owner, readable by its group.
        durable: whether a stored file survives a power cut; many files are stored sooner without.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder
        self._durable = durable

    def keep(self, content: bytes) -> str:
        """Store a file atomically; return its digest.

        Raises:
            StoreFullError: the disk or the quota is full.
            OSError: the directory is not writable.
        """
        digest = hashlib.sha256(content).hexdigest()
        place = self._place(digest)
        try:
            with self.scratch() as file:
                file.write(content)
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o640)
                place.parent.mkdir(mode=0o750, exist_ok=True)
                # Replaced even if it exists: a concurrent cleanup then sees the new mtime and keeps the file.
                with self._locked():
                    Path(file.name).replace(place)
            if self._durable:
                _to_disk(place.parent)
        except OSError as error:
            if error.errno in _FULL:
                raise StoreFullError(error.errno, "no space for the file") from error
            raise
        return digest

    def path(self, digest: str) -> Path:
        """Return the path of a file, restoring it from quarantine if necessary.

        Raises:
            FileNotFoundError: the file is missing.
        """
        place = self._place(digest)
        if not place.is_file():
            with suppress(FileNotFoundError):
                (self.folder / _ASIDE / digest).replace(place)
        if not place.is_file():
            raise FileNotFoundError(errno.ENOENT, "a stored file is missing", digest)
        return place

    def read(self, digest: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: the file is missing.
        """
        return self.path(digest).read_bytes()

    @contextmanager
    def scratch(self) -> Iterator[IO[bytes]]:
        """Provide a temporary file for writing, removed on exit unless it was moved."""
        new = self.folder / _NEW
        new.mkdir(mode=0o750, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=new, delete=False) as file:
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """Yield the digests of all stored files."""
        for folder in self.folder.glob("[0-9a-f][0-9a-f]"):
            yield from (file.name for file in folder.iterdir() if is_digest(file.name))

    def put_aside(self, digest: str, *, unless_since: float, now: float) -> bool:
        """Quarantine a file unless it was written after ``unless_since``; return whether it was quarantined."""
        place = self._place(digest)
        with self._locked():
            if not place.is_file() or place.stat().st_mtime > unless_since:
                return False
            aside = self.folder / _ASIDE
            aside.mkdir(mode=0o750, exist_ok=True)
            os.utime(place, (now, now))
            place.replace(aside / digest)
        return True

    def remove_old(self, *, aside_before: float, now: float) -> int:
        """Delete files quarantined before ``aside_before`` and stale temporary files; return how many."""
        old = [(file, aside_before) for file in (self.folder / _ASIDE).glob("*")]
        old += [(file, now - _HOUR) for file in (self.folder / _NEW).glob("*")]
        removed = 0
        for file, before in old:
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < before:
                    file.unlink()
                    removed += 1
        return removed

    def _place(self, digest: str) -> Path:
        if not is_digest(digest):
            raise ValueError("no digest")
        return self.folder / digest[:2] / digest

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock for moving files into and out of the store."""
        with (self.folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def is_digest(text: str) -> bool:
    """Whether a text is a hexadecimal SHA-256 digest."""
    return len(text) == 64 and _DIGEST.issuperset(text)


def _to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
