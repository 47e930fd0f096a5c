"""The newest backup, as ``mks-deploy backup`` leaves it, for whoever asks: a migration, the check, the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from knowledge_system.settings import AppSettings

__all__ = ["NewestBackup", "newest_backup"]


class NewestBackup(NamedTuple):
    """When it was made, in seconds since the epoch (``None``: there is none), and whether that is soon enough."""

    made_at: float | None
    fresh: bool


def newest_backup(settings: AppSettings, *, now: float) -> NewestBackup:
    """The newest backup that was written whole: the mark in it is written last, and carries the time."""
    folder = settings.backups
    marks = () if folder is None else folder.glob("[0-9]*/complete")
    # One from the future was made while the clock was wrong, and would be fresh until then.
    made_at = max((at for mark in marks if (at := mark.stat().st_mtime) <= now), default=None)
    return NewestBackup(made_at, made_at is not None and now - made_at <= settings.backup_max_age)
