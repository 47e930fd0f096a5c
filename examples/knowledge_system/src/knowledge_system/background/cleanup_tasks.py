"""Cleanup tasks, scheduled at night in Japan; the result of each says what was removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from glob import escape
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from knowledge_system.services import idempotency, reports, retention
from knowledge_system.services.attachments import article_attachments
from knowledge_system.services.attachments.file_store import FileStore
from knowledge_system.services.identity import api_tokens
from knowledge_system.services.knowledge import drafts
from knowledge_system.settings import AppSettings
from mks_hardening.protocols import Clock
from mks_hardening.tasks import Daily, TaskRun, Tasks, clean_folder

_OLD_LOGS = timedelta(days=30)
_STALE_ALERTS = timedelta(days=30)
_UPLOADS_UNUSED = timedelta(days=1)
"""Longer than any request takes between storing the file and inserting its row."""
_UPLOADS_ASIDE = timedelta(days=7)
_LOOKED_UP_AT_ONCE = 500


def register(tasks: Tasks, sessions: sessionmaker[Session], *, settings: AppSettings, clock: Clock) -> None:
    """Register the tasks.

    Sessions need no task: the memory store drops expired ones itself, and Redis uses a time to live.
    """
    log_file, spool = settings.hardening.logging.file, settings.hardening.notify.alert_spool

    @tasks.task("cleaning.logs", schedule=Daily(3, 10))
    def logs(_run: TaskRun) -> dict[str, object]:
        """Remove old log files rotated by logrotate; the current file stays."""
        if log_file is None:
            return {}
        live = Path(log_file)
        return clean_folder(
            live.parent,
            older_than=_OLD_LOGS,
            # Numbered, or dated as by the deployment's logrotate: app.log.2.gz,
            # app.log-20261128-1796000000.gz
            pattern=f"{escape(live.name)}[.-]*",
            keep=[live.name],
            clock=clock,
        ).result

    @tasks.task("cleaning.spool", schedule=Daily(3, 20))
    def stale_alerts(_run: TaskRun) -> dict[str, object]:
        """Remove alerts that could not be delivered for a month."""
        if spool is None:
            return {}
        folders = sorted(
            folder for folder in Path(spool).glob("*") if folder.is_dir() and not folder.is_symlink()
        )
        return {
            folder.name: clean_folder(folder, older_than=_STALE_ALERTS, clock=clock).result
            for folder in folders
        }

    @tasks.task("cleaning.results", schedule=Daily(3, 30))
    def results(_run: TaskRun) -> dict[str, object]:
        """Remove expired rows: reports, API sign-ins, stored responses, drafts, finished tasks."""
        now = datetime.fromtimestamp(clock.time(), UTC)
        with sessions.begin() as session:
            expired = {
                "reports": reports.remove_expired(session, now=now),
                "sign_ins": api_tokens.remove_expired(session, now=now),
                "answers": idempotency.remove_expired(session, now=now),
                "drafts": drafts.remove_expired(session, now=now),
            }
        return {**expired, "tasks": tasks.clean()}

    @tasks.task("cleaning.people", schedule=Daily(3, 50))
    def people(_run: TaskRun) -> dict[str, object]:
        """Erase the personal data of leavers, and remove old notices, when they expire."""
        now, kept = datetime.fromtimestamp(clock.time(), UTC), settings.leavers_kept
        with sessions.begin() as session:
            retention.mark_leavers(session, now=now)
            notices = retention.remove_notices(session, kept=settings.notices_kept, now=now)
            due = [each.id for each in retention.leavers(session, kept=kept) if each.erased_at <= now]
        erased = 0
        for person in due:
            with sessions.begin() as session:
                erased += retention.erase(session, person, kept=kept, now=now)
        return {"erased": erased, "notices": notices}

    store = FileStore(settings.upload_folder)

    @tasks.task("cleaning.uploads", schedule=Daily(3, 40))
    def uploads(_run: TaskRun) -> dict[str, object]:
        """Quarantine files that no article uses, and delete those quarantined a week ago."""
        now = clock.time()
        kept = sorted(store.digests())
        unused = 0
        for begin in range(0, len(kept), _LOOKED_UP_AT_ONCE):
            some = kept[begin : begin + _LOOKED_UP_AT_ONCE]
            with sessions() as session:
                orphans = sorted(set(some) - article_attachments.used(session, some))
            before = now - _UPLOADS_UNUSED.total_seconds()
            unused += sum(store.put_aside(each, unless_since=before, now=now) for each in orphans)
        removed = store.remove_old(aside_before=now - _UPLOADS_ASIDE.total_seconds(), now=now)
        return {"files": len(kept), "put_aside": unused, "removed": removed}
