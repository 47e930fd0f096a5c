"""Schema migrations and initial content."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from knowledge_system.migrations.runner import MigrationError, Migrations
from knowledge_system.services.knowledge import stored_content
from knowledge_system.services.operations.backups import newest_backup

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.services.attachments.upload_intake import Intake
    from knowledge_system.settings import AppSettings
    from mks_hardening.db import SearchIndex
    from mks_hardening.protocols import Clock

Progress = Callable[[str], Callable[[int, int], None]]

_GENERATED_AT_ONCE = 250
"""Articles per transaction."""


def upgrade(
    engine: Engine, settings: AppSettings, *, clock: Clock, without_backup: str | None = None
) -> list[str]:
    """Apply all pending revisions and return their names.

    Args:
        engine: engine of the database.
        settings: settings that say whether this is production, and where the backups are.
        clock: clock for the age of a backup.
        without_backup: reason for an upgrade without a fresh backup; skips the check.

    Raises:
        MigrationError: production has data but no fresh backup, or a revision cannot be applied.
    """
    migrations = Migrations(engine)
    if settings.production and not without_backup and migrations.pending() and not migrations.is_empty():
        check_backup(settings, now=clock.time())
    return migrations.upgrade()


def check_backup(settings: AppSettings, *, now: float) -> None:
    """Check that a fresh backup exists.

    Raises:
        MigrationError: no fresh backup exists.
    """
    if settings.backups is None:
        raise MigrationError("MKS_BACKUPS must name the folder of the backups")
    if not newest_backup(settings, now=now).fresh:
        hours = settings.backup_max_age / 3600
        raise MigrationError(
            f"no backup in {settings.backups} is younger than {hours:g} hours: make one first"
        )


def fill(
    sessions: sessionmaker[Session],
    search: SearchIndex,
    *,
    password: str,
    clock: Clock,
    number: int = 0,
    intake: Intake | None = None,
    progress: Progress = lambda _label: lambda _done, _total: None,
) -> tuple[int, int]:
    """Load missing users and articles, and generate articles up to ``number``; return the numbers of both added.

    Generated articles are committed in batches: other writers do not wait for the last article, and an interrupted
    run continues where it stopped.
    """
    with sessions.begin() as session:
        people = stored_content.load_people(
            session,
            password=password,
            now=datetime.fromtimestamp(clock.time(), UTC),
            progress=progress("利用者"),
        )
        articles = stored_content.load_articles(session, search=search, progress=progress("記事"))
        present = stored_content.count_articles(session)
    shown = progress("生成した記事")
    for goal in range(present + _GENERATED_AT_ONCE, number + _GENERATED_AT_ONCE, _GENERATED_AT_ONCE):
        with sessions.begin() as session:
            articles += stored_content.generate(session, min(goal, number), search=search, intake=intake)
        shown(min(goal, number) - present, number - present)
    return people, articles
