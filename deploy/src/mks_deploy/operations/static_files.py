"""Static files of a version, published by digest, so that two versions can be served side by side."""

from __future__ import annotations

import errno
import gzip
import hashlib
import shutil
import zlib
from pathlib import Path
from typing import Final

from mks_deploy.atomic_files import refuse_foreign_path, relink, replace_file

__all__ = ["link_database", "link_uploads", "publish"]

DIGEST_LENGTH: Final = 12
"""Length of the digest that the application appends as ``?v=``, in hexadecimal digits."""

_COMPRESSED: Final = frozenset(
    {".css", ".js", ".mjs", ".svg", ".json", ".txt", ".xml", ".map", ".webmanifest"}
)
_WORTH_IT: Final = 1024


def publish(source: Path, public: Path, *, version: Path) -> int:
    """Copy every file of ``source`` below ``public``, keeping existing files; return how many were added.

    Raises:
        PermissionError: a file is a link that leads out of the version, or, as root, a path that another account
            can choose.
    """
    added = 0
    files = sorted(path for path in source.rglob("*") if path.is_file() and not path.name.startswith("."))
    for file in files:
        refuse_foreign_path(file)
        _refuse_leaving(file, version)
        own = file.with_name(f"{file.name}.gz") in files
        content = file.read_bytes()
        name = file.relative_to(source)
        digest = hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
        added += _put(public / "by-digest" / digest / "static" / name, content, own=own)
        _put(public / "static" / name, content, own=own)
    return added


def link_uploads(folder: Path, uploads: Path, *, version: Path) -> None:
    """Make ``folder`` of a version a link to the uploads, which outlive the version.

    Raises:
        FileExistsError: the folder has files, which would vanish from the application's sight.
        PermissionError: its path leads out of the version, or, as root, to a place that another account can choose.
    """
    refuse_foreign_path(folder.parent)
    _refuse_leaving(folder.parent, version)
    if folder.is_dir() and not folder.is_symlink():
        found = {each.name for each in folder.iterdir()}
        if not found <= {".gitignore", ".gitkeep"}:
            raise FileExistsError(
                f"{folder} has files of the version; uploads need a folder of their own (media.folder)"
            )
        shutil.rmtree(folder)
    relink(folder, uploads)


def link_database(file: Path, kept: Path, *, version: Path) -> None:
    """Make ``file`` of a version a link to the database of SQLite, which outlives the version.

    A file that is there already is one that git has committed, or that the build has made; it is not used.

    Raises:
        PermissionError: its path leads out of the version, or, as root, to a place that another account can choose.
    """
    refuse_foreign_path(file.parent)
    _refuse_leaving(file.parent, version)
    relink(file, kept)


def _refuse_leaving(path: Path, version: Path) -> None:
    """Refuse a link that someone has committed to the source and that leads to another file of the host."""
    if not path.resolve().is_relative_to(version.resolve()):
        raise PermissionError(errno.EPERM, f"leads out of {version}", str(path))


def _put(target: Path, content: bytes, *, own: bool) -> bool:
    """Write a file; ``own`` says that the application has a compressed one of its own, which follows."""
    # If the compressed file exists, nginx serves it, whatever the other one contains: it comes first.
    packed = target.with_name(f"{target.name}.gz")
    compressed = target.suffix in _COMPRESSED and len(content) >= _WORTH_IT
    if (
        target.is_file()
        and target.read_bytes() == content
        and (_unpacked(packed) == content if compressed else own or not packed.exists())
    ):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    if compressed:
        replace_file(packed, gzip.compress(content, 9, mtime=0))
    replace_file(target, content)
    if not compressed and not own:
        packed.unlink(missing_ok=True)
    return True


def _unpacked(file: Path) -> bytes | None:
    try:
        return gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error):
        return None
