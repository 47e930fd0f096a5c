"""Extraction of the text of attachments: after an upload, and at night for those that are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy.orm import Session, sessionmaker

from knowledge_system.models import Attachment
from knowledge_system.services.attachments import attachment_texts
from knowledge_system.services.attachments.file_store import FileStore
from knowledge_system.settings import AppSettings
from mks_hardening.tasks import Daily, Task, TaskRun, Tasks

_AT_ONCE: Final = 500


def register(
    tasks: Tasks, sessions: sessionmaker[Session], *, settings: AppSettings, forget: Callable[[int], object]
) -> Task[[int], dict[str, object]]:
    """Register the tasks; ``forget`` is called with the id of an article whose attachments have a new text."""
    store = FileStore(settings.upload_folder)

    @tasks.task("attachments.text", priority="low", timeout=180, max_attempts=3)
    def read(_run: TaskRun, attachment_id: int) -> dict[str, object]:
        """Extract, store and index the text of one attachment."""
        with sessions() as session:
            found = session.get(Attachment, attachment_id)
        if found is None or found.content_type not in attachment_texts.READABLE:
            return {}
        text = attachment_texts.extract(store, found.digest, found.content_type)
        with sessions.begin() as session:
            attachment_texts.keep(session, attachment_id, text)
        forget(found.article_id)
        return {"readable": text is not None, "characters": len(text or "")}

    @tasks.task("attachments.missing_texts", schedule=Daily(4, 10))
    def read_missing(_run: TaskRun) -> dict[str, object]:
        """Enqueue the extraction for attachments without a text."""
        with sessions.begin() as session:
            missing = attachment_texts.missing(session, most=_AT_ONCE)
            for attachment_id in missing:
                read.enqueue(session, attachment_id)
        return {"attachments": len(missing)}

    return read
