"""Files and links that are there whole or not at all: written beside, brought to the disk, then renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["append_line", "relink", "replace_file", "sync"]


def replace_file(target: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replace the contents and the mode of a file; after a full disk or a power cut it has the old or the new ones.

    Raises:
        OSError: it could not be written; the target is as it was.
    """
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            # Before the rename: after a power cut the name must not lead to an empty file (ext4 writes data later).
            os.fsync(stream.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(target.parent)


def append_line(file: Path, line: str) -> None:
    """Add a line to a file; where there is no room for it, the file stays as it was.

    Raises:
        OSError: it could not be written.
    """
    with file.open("ab", buffering=0) as stream:
        before = os.fstat(stream.fileno()).st_size
        data = f"{line}\n".encode()
        try:
            while data:
                data = data[stream.write(data) :]
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(before)
            raise


def relink(link: Path, target: Path) -> None:
    """Let a link point elsewhere; there is no moment without it."""
    link.parent.mkdir(parents=True, exist_ok=True)
    partial = link.with_name(f".{link.name}.new")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)
    sync(link.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
