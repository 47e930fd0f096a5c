"""Atomic file operations: write a temporary file, sync it to disk, rename it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["append_line", "delete_folder", "relink", "replace_file", "sync"]


def replace_file(
    target: Path, content: str | bytes, *, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> None:
    """Replace content, mode and owner of a file atomically, even if the disk is full or the power fails.

    Args:
        target: the file.
        content: what it contains from then on.
        mode: permissions.
        owner: numbers of its account and group; those of this process by default.

    Raises:
        OSError: the file could not be written; the target is unchanged.
    """
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            if owner is not None:  # the sandboxes of the units refuse the call
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)
            # Sync before the rename: after a power failure, the name could refer to an empty file (ext4
            # delays writes).
            os.fsync(stream.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(target.parent)


def append_line(file: Path, line: str) -> None:
    """Append a line to a file; if the write fails, the file stays unchanged.

    Raises:
        OSError: the line could not be written.
    """
    with file.open("ab", buffering=0) as stream, file.open("rb") as reading:
        before = os.fstat(stream.fileno()).st_size
        data = f"{line}\n".encode()
        if before and os.pread(reading.fileno(), 1, before - 1) != b"\n":
            data = b"\n" + data  # the power failed in the middle of a line
        try:
            while data:
                data = data[stream.write(data) :]
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(before)
            raise


def delete_folder(folder: Path) -> None:
    """Delete a folder under a hidden name, so that one that is half deleted is never taken for a whole one."""
    hidden = folder.with_name(f".{folder.name}.new")
    folder.rename(hidden)
    shutil.rmtree(hidden)


def relink(link: Path, target: Path) -> None:
    """Change the target of a symbolic link atomically."""
    link.parent.mkdir(parents=True, exist_ok=True)
    partial = link.with_name(f".{link.name}.new")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)
    sync(link.parent)


def sync(path: Path) -> None:
    """Sync a file, or the entries of a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
