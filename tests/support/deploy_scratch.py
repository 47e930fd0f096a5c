"""The temporary PostgreSQL clusters of rehearsals, where tests run as root, which PostgreSQL refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.services import unprivileged

if TYPE_CHECKING:
    import pytest

_run = subprocess.run


def let_postgres_run(patched: pytest.MonkeyPatch) -> None:
    """Give each temporary cluster to another account, and let its programs run as that one."""
    identity = unprivileged()

    def run(command: list[str], **options: Any) -> Any:
        if not identity or Path(command[0]).name not in {"initdb", "pg_ctl"}:
            return _run(command, **options)
        folder = Path(next(word for word in command if word.startswith("--pgdata=")).partition("=")[2])
        if not folder.exists():
            folder.mkdir()
            for parent in (*folder.parents[:-2], Path(options["env"]["PGHOST"])):
                parent.chmod(0o755)
            for owned in (folder, options["env"]["PGHOST"], folder.parent):
                os.chown(owned, identity["user"], identity["group"])
        return _run(command, **options, **identity)

    patched.setattr(subprocess, "run", run)
    # Folders of the rehearsal are not root's now, as those of the unit are not.
    patched.setattr(os, "geteuid", lambda: 1000)
