"""Static files of a version, published by digest, so that two versions can be served side by side."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Final

from mks_deploy.atomic_files import replace_file

__all__ = ["publish"]

DIGEST_LENGTH: Final = 12
"""Length of the digest that the application appends as ``?v=``, in hexadecimal digits."""

_COMPRESSED: Final = frozenset(
    {".css", ".js", ".mjs", ".svg", ".json", ".txt", ".xml", ".map", ".webmanifest"}
)
_WORTH_IT: Final = 1024


def publish(source: Path, public: Path) -> int:
    """Copy every file of ``source`` below ``public``, keeping existing files; return how many were added."""
    added = 0
    for file in sorted(
        path for path in source.rglob("*") if path.is_file() and not path.name.startswith(".")
    ):
        content = file.read_bytes()
        name = file.relative_to(source)
        digest = hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
        added += _put(public / "by-digest" / digest / "static" / name, content)
        _put(public / "static" / name, content)
    return added


def _put(target: Path, content: bytes) -> bool:
    if target.is_file() and target.read_bytes() == content:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix in _COMPRESSED and len(content) >= _WORTH_IT:
        # The compressed file first: if it exists, nginx serves it, whatever the other one contains.
        replace_file(target.with_name(f"{target.name}.gz"), gzip.compress(content, 9, mtime=0))
    replace_file(target, content)
    return True
