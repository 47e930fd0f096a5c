"""File operations that leave nothing half-done, and as root follow no link that another account can make."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

__all__ = [
    "append_line",
    "delete_folder",
    "empty_folder",
    "refuse_foreign_path",
    "relink",
    "replace_file",
    "sync",
]


_MOST_LINKS: Final = 40  # as Linux


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


def empty_folder(folder: Path) -> None:
    """Delete what a folder holds, and leave its owner and mode."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def refuse_foreign_path(path: Path) -> None:
    """Refuse, as root, a path on which another account can put a link; other accounts use their own rights.

    Raises:
        PermissionError: the path, or a folder above it, belongs to another account or can be changed by one.
    """
    if os.geteuid() != 0:
        return
    at, left, links, is_shared = Path("/"), [*reversed(path.absolute().parts)], 0, False
    while left and links < _MOST_LINKS:
        part = left.pop()
        at = at.parent if part == ".." else at / part
        found = at.lstat() if os.path.lexists(at) else None
        if found is None and not is_shared:
            return  # root alone can make it
        mode = found.st_mode if found else 0
        is_link = stat.S_ISLNK(mode)
        # git archive lets the group write; in root's own group there is no other account.
        writers = 0o022 if found and found.st_gid != 0 else 0o002
        is_shared = is_shared if is_link else bool(mode & writers)
        # In /tmp, which is sticky, each account changes its own files alone.
        is_open = is_shared and not is_link and not mode & stat.S_ISVTX
        if found is None or found.st_uid != 0 or is_open:
            reason = f"root follows no link that another account can make, as in {at}: run this as that one"
            raise PermissionError(errno.EPERM, reason, str(path))
        if is_link:
            links += 1
            left += reversed(at.readlink().parts)
            at = at.parent


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
