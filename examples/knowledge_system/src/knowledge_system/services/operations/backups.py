"""The newest backup made by ``mks-deploy backup``, for migrations, the check and the operations page."""

from __future__ import annotations

from typing import NamedTuple

from knowledge_system.settings import AppSettings


class NewestBackup(NamedTuple):
    """When the backup was made, in seconds since the epoch (``None`` if there is none), and whether it is fresh."""

    made_at: float | None
    fresh: bool


def newest_backup(settings: AppSettings, *, now: float) -> NewestBackup:
    """Return the newest complete backup; its marker file is written last, and its mtime is the backup's time."""
    folder = settings.backups
    marks = () if folder is None else folder.glob("[0-9]*/complete")
    # A timestamp in the future stems from a wrong clock, and would count as fresh until then.
    made_at = max((at for mark in marks if (at := mark.stat().st_mtime) <= now), default=None)
    return NewestBackup(made_at, made_at is not None and now - made_at <= settings.backup_max_age)
