"""Files and links that are there whole or not at all: written beside, then renamed."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["relink", "replace_file"]


def replace_file(target: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Give a file new contents and this mode; who reads meanwhile sees the old one or the new one."""
    partial = _beside(target)
    with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
    partial.chmod(mode)
    partial.replace(target)


def relink(link: Path, target: Path) -> None:
    """Let a link point elsewhere; there is no moment without it."""
    link.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(link)
    partial.symlink_to(target)
    partial.replace(link)


def _beside(path: Path) -> Path:
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)
    return partial
