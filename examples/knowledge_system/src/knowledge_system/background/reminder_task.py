"""Scheduled reminders, sent in the morning in Japan."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from knowledge_system.background import mail_texts
from knowledge_system.services.knowledge import overdue_articles
from mks_hardening.tasks import Daily

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.background.mail_texts import MailTemplate
    from knowledge_system.settings import AppSettings
    from mks_hardening.protocols import Clock
    from mks_hardening.tasks import TaskRun, Tasks

__all__ = ["register"]


def register(
    tasks: Tasks,
    sessions: sessionmaker[Session],
    *,
    settings: AppSettings,
    tell: Callable[[Session, int, MailTemplate], None],
    clock: Clock,
) -> None:
    """Register the task."""
    link = f"{_address(settings)}/overdue"

    @tasks.task("reminding.overdue", schedule=Daily(7, 30))
    def remind_of_overdue(run: TaskRun) -> dict[str, object]:
        """Remind authors of articles not confirmed for a year, by notice and mail in one transaction."""
        del run
        now = datetime.fromtimestamp(clock.time(), UTC)
        with sessions.begin() as session:
            reminders = overdue_articles.remind(session, now=now)
            for reminder in reminders:
                tell(session, reminder.author_id, mail_texts.overdue(reminder.titles, link=link))
        return {"authors": len(reminders), "articles": sum(len(reminder.titles) for reminder in reminders)}


def _address(settings: AppSettings) -> str:
    """Return the URL of the site from the settings; a task has no request."""
    edge = settings.hardening.wsgi
    host = edge.canonical_host or next(iter(edge.allowed_hosts), "localhost")
    return f"https://{host.lstrip('.')}{'' if edge.https_port == 443 else f':{edge.https_port}'}"
