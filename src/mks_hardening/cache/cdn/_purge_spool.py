"""Items to purge, in a file for each process: they outlive the process, and the next one continues with them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from uuid import uuid4

from mks_hardening._core.codec import Stored, json_dumps, json_loads
from mks_hardening._core.private_folder import make_private
from mks_hardening.cache.cdn.purge_item import PurgeItem
from mks_hardening.exceptions import DecodeError

if TYPE_CHECKING:
    from mks_hardening.cache.cdn.purge_item import Kind

__all__ = ["PurgeSpool"]

_MAX_BYTES: Final = 67_108_864


class PurgeSpool:
    """The file of one process. Its lock ends with the process, and then others may read it.

    Args:
        folder: created with mode 0700 if missing.
        cdn: identifies the CDN; files of others in the folder are left alone.

    Raises:
        ConfigurationError: the folder cannot be created or written.
    """

    __slots__ = ("_descriptor", "_folder", "_path", "_prefix")

    def __init__(self, folder: Path, cdn: str) -> None:
        make_private(folder, parameter="spool")
        self._folder = folder
        self._prefix = f"purge-{blake2b(cdn.encode(), digest_size=8).hexdigest()}-"
        self._descriptor: int | None = None
        self._path = folder

    def reset_after_fork(self) -> None:
        """Leave the file to the parent."""
        self.release()

    def release(self) -> None:
        """Let other processes continue with what is in the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def append(self, items: Iterable[PurgeItem]) -> None:
        """Write items behind the others.

        Raises:
            OSError: the disk is full, or the folder has been removed.
        """
        if self._descriptor is None:
            self._descriptor, self._path = self._new_file()
        _write_all(self._descriptor, items)

    def replace(self, items: Iterable[PurgeItem]) -> None:
        """Write what is left instead of the whole file; without items, remove it.

        Raises:
            OSError: the disk is full, or the folder has been removed.
        """
        descriptor, path = self._descriptor, self._path
        left = tuple(items)
        if left:
            # The old file stays until the new one is complete: a process may end at any time.
            new, new_path = self._new_file()
            try:
                _write_all(new, left)
            except OSError:
                new_path.unlink(missing_ok=True)
                os.close(new)
                raise
            self._descriptor, self._path = new, new_path
        else:
            self._descriptor = None
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def abandoned(self) -> Iterator[tuple[Path, tuple[PurgeItem, ...]]]:
        """Yield the files of ended processes with their items; each is locked until the next one is asked for."""
        for path in sorted(self._folder.glob(f"{self._prefix}*.jsonl")):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:  # another process was faster
                continue
            try:
                with suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if path.stat().st_ino == os.fstat(descriptor).st_ino:
                        with os.fdopen(descriptor, "rb", closefd=False) as file:
                            content = file.read(_MAX_BYTES)
                        yield path, tuple(_items_in(content))
            finally:
                os.close(descriptor)

    def _new_file(self) -> tuple[int, Path]:
        path = self._folder / f"{self._prefix}{uuid4().hex}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        # Under a name that nobody reads until it is locked.
        hidden = path.with_suffix(".new")
        descriptor = os.open(hidden, flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(path)
        return descriptor, path


def _write_all(descriptor: int, items: Iterable[PurgeItem]) -> None:
    lines = (
        json_dumps([item.kind, item.value, *(text for field in item.headers for text in field)])
        for item in items
    )
    rest = b"".join(line + b"\n" for line in lines)
    size = os.fstat(descriptor).st_size
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:  # without a half line, to which the next one would be appended
        os.ftruncate(descriptor, size)
        raise


def _items_in(content: bytes) -> Iterator[PurgeItem]:
    for line in content.splitlines():
        try:
            found: Stored = json_loads(line)
        except DecodeError:  # the process ended while it wrote this line
            continue
        if isinstance(found, list) and len(parts := cast("list[str]", found)) >= 2:
            kind, value, *fields = parts
            item = PurgeItem(cast("Kind", kind), value, tuple(zip(fields[::2], fields[1::2], strict=False)))
            if item.error is None:
                yield item
