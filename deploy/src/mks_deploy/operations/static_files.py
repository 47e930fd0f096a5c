"""Static files of a version, published by digest, so that two versions can be served side by side."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import Final

from mks_deploy.atomic_files import refuse_foreign_path, replace_file

__all__ = ["publish"]

DIGEST_LENGTH: Final = 12
"""Length of the digest that the application appends as ``?v=``, in hexadecimal digits."""

_COMPRESSED: Final = frozenset(
    {".css", ".js", ".mjs", ".svg", ".json", ".txt", ".xml", ".map", ".webmanifest"}
)
_WORTH_IT: Final = 1024


def publish(source: Path, public: Path) -> int:
    """Copy every file of ``source`` below ``public``, keeping existing files; return how many were added.

    Raises:
        PermissionError: as root, ``source`` leads to a file that another account can choose.
    """
    added = 0
    files = sorted(path for path in source.rglob("*") if path.is_file() and not path.name.startswith("."))
    for file in files:
        refuse_foreign_path(file)
        own = file.with_name(f"{file.name}.gz") in files
        content = file.read_bytes()
        name = file.relative_to(source)
        digest = hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
        added += _put(public / "by-digest" / digest / "static" / name, content, own=own)
        _put(public / "static" / name, content, own=own)
    return added


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
