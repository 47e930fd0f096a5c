"""A file system that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.services import unavailable


@contextmanager
def small_disk(folder: Path, *options: str) -> Iterator[Path]:
    """Mount a file system in memory on a folder, which is made if it is missing.

    Args:
        folder: where it is mounted.
        options: options of ``mount`` for tmpfs, for example ``"size=4m"``.
    """
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "small", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        unavailable("a small disk", "needs root and the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def resize(folder: Path, size: str | int) -> None:
    """Give the file system another size, for example ``"64m"``."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
