"""Folders for data that other users of the machine must neither read nor write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mks_hardening.exceptions import ConfigurationError

__all__ = ["make_private"]


def make_private(folder: Path, *, parameter: str) -> None:
    """Create a folder, or restrict its mode to its owner.

    Raises:
        ConfigurationError: it cannot be created or written, or anybody can write to it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = folder.stat()
        if known.st_uid == os.geteuid():
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            f"{parameter} must be a folder that can be created ({error.strerror})", parameter=parameter
        ) from error
    # Anyone who can write to the folder could add entries in our name.
    foreign = known.st_uid != os.geteuid() and known.st_mode & stat.S_IWOTH
    if foreign or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"{parameter} must be a folder that this process can write to and that is not world-writable",
            parameter=parameter,
        )
