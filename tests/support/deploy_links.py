"""Links that the account of an application makes in its own folders."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from testbed.services import unavailable, unprivileged


def own_folder(folder: Path) -> Path:
    """Make a folder that belongs to another account, as those of an application do; return it."""
    if os.geteuid() != 0:
        unavailable("another account", "needs root")
    folder.mkdir(parents=True, exist_ok=True)
    for parent in folder.parents[:-2]:  # pytest's folders are closed to it
        parent.chmod(parent.stat().st_mode | 0o011)
    shutil.chown(folder, unprivileged()["user"], unprivileged()["group"])
    return folder


def plant(link: Path, target: Path) -> None:
    """Make a link as that account."""
    subprocess.run(["ln", "-sfn", str(target), str(link)], check=True, **unprivileged())
