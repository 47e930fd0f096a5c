"""Base backups of PostgreSQL for point-in-time recovery, together with the archived WAL segments.

They cover the whole server, so the server's own account makes them. Deleting a base backup also deletes the
segments that no remaining one needs; nothing else deletes them.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.atomic_files import delete_folder, refuse_foreign_path, sync
from mks_deploy.operations.backup import BackupError, Database, second_of
from mks_deploy.operations.operation_log import Locked, locked

if TYPE_CHECKING:
    from datetime import datetime

    from mks_deploy.settings.definitions import Settings

__all__ = ["base_backup"]

_STARTED_IN: Final = re.compile(r"^START WAL LOCATION: .* \(file ([0-9A-F]{24})\)$", re.MULTILINE)


def base_backup(settings: Settings, database: Database, *, now: datetime) -> Path:
    """Make a base backup next to the archived segments, and delete those beyond ``upkeep.base_backups``.

    Args:
        settings: settings of the deployment.
        database: address of the server; this process runs as its account.
        now: current time, which names the directory.

    Returns:
        The directory of the base backup.

    Raises:
        BackupError: the server is on another machine, or the backup failed.
    """
    server = {name: value for name, value in database.variables.items() if name in {"PGHOST", "PGPORT"}}
    if not server.get("PGHOST", "/").startswith("/"):
        raise BackupError(f"PostgreSQL is at {server['PGHOST']}, not here: base backups are made there")
    root = Path(settings.paths.wal)
    refuse_foreign_path(root)
    made = root / f"base-{second_of(now)}"
    partial = root / f".{made.name}.new"
    try:
        with locked(root / ".base.lock", doing="mks-deploy backup --base"):
            for left in root.glob(".base-*.new"):
                shutil.rmtree(left)
            if made.exists():
                raise BackupError(f"{made} was made in this second, by this clock: repeat the command")
            Database(server).run("pg_basebackup", f"--pgdata={partial}", "--checkpoint=fast", "--no-password")
            partial.rename(made)
            sync(root)
            # By what the server wrote, not by their names: a clock that was set back makes the newest seem old.
            kept = sorted(root.glob("base-*"), key=_first_segment)
            while len(kept) > settings.upkeep.base_backups:
                delete_folder(kept.pop(0))
            if segment := _first_segment(kept[0]):
                Database({}).run("pg_archivecleanup", str(root), segment)
    except Locked as error:
        raise BackupError(str(error)) from None
    return made


def _first_segment(base: Path) -> str:
    """Return the first segment that a base backup needs; empty if it is damaged, which makes it the first to go."""
    try:
        found = _STARTED_IN.search((base / "backup_label").read_text(encoding="utf-8"))
    except OSError:
        return ""
    return found[1] if found else ""
