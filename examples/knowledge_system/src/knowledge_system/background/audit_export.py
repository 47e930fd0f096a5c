"""Nightly copy of the audit log's head to a file outside the database."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from sqlalchemy.orm import Session, sessionmaker

from knowledge_system.services import audit, audit_heads
from knowledge_system.settings import AppSettings
from mks_hardening.protocols import Clock
from mks_hardening.tasks import Daily, TaskRun, Tasks

_log = logging.getLogger(__name__)


def register(tasks: Tasks, sessions: sessionmaker[Session], *, settings: AppSettings, clock: Clock) -> None:
    """Register the task."""

    @tasks.task("auditing.head", schedule=Daily(2, 50))
    def keep_head(_run: TaskRun) -> dict[str, object]:
        """Verify the hash chain and the stored heads; if both are intact, store the current head."""
        file, now = settings.audit_heads, datetime.fromtimestamp(clock.time(), UTC)
        with sessions() as session:
            broken = audit.first_broken_entry(session)
            missing = audit_heads.first_missing(session, file) if file else None
            head = audit_heads.newest(session)
        if broken is not None or missing is not None:
            _log.error("the audit log was changed: entry %s", broken if missing is None else missing.id)
            return {"whole": False}
        if head is None:
            return {"whole": True}
        _log.info("the audit log ends with entry %d, hash %s", head.id, head.hash)
        if file is not None:
            audit_heads.keep(file, head, now=now)
        return {"whole": True, "entry": head.id, "hash": head.hash}
