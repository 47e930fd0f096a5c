"""Runs our own programs that read untrusted files, each in a process that limits itself before it reads."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

_SECONDS: Final = 120


def run(program: Path, argument: str, content: bytes) -> bytes | None:
    """Return what the program writes for a file, or ``None`` if it fails, exceeds a limit or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 - our own program, no shell
            [sys.executable, "-I", str(program), argument],
            input=content,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
            env={"LANG": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        _log.warning("%s did not read a file within %d s", program.stem, _SECONDS)
        return None
    if done.returncode:
        _log.warning("%s cannot read a file: exit status %d", program.stem, done.returncode)
        return None
    return done.stdout
