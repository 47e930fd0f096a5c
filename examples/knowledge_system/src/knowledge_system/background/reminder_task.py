"""Scheduled reminders, sent in the morning in Japan."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from knowledge_system.background import mail_texts
from knowledge_system.domain.permissions import JST
from knowledge_system.services.knowledge import digests, overdue_articles
from knowledge_system.services.reports import link_keys
from mks_hardening.tasks import Daily

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.background.queue import Background
    from knowledge_system.settings import AppSettings
    from mks_hardening.protocols import Clock
    from mks_hardening.tasks import TaskRun, Tasks


def register(
    tasks: Tasks,
    sessions: sessionmaker[Session],
    *,
    settings: AppSettings,
    background: Background,
    clock: Clock,
) -> None:
    """Register the tasks."""
    site = settings.site_url

    @tasks.task("reminding.overdue", schedule=Daily(7, 30))
    def remind_of_overdue(_run: TaskRun) -> dict[str, object]:
        """Remind authors of articles not confirmed for a year, by notice and mail in one transaction."""
        now = datetime.fromtimestamp(clock.time(), UTC)
        with sessions.begin() as session:
            reminders = overdue_articles.remind(session, now=now)
            for reminder in reminders:
                letter = mail_texts.overdue(reminder.titles, link=f"{site}/overdue")
                background.send_notice(session, reminder.author_id, letter)
        return {"authors": len(reminders), "articles": sum(len(reminder.titles) for reminder in reminders)}

    @tasks.task("notifying.digest", schedule=Daily(7, 40))
    def send_digests(_run: TaskRun) -> dict[str, object]:
        """Send each user who chose it one mail with the unread notices, at most one a day.

        The digest is taken and its mail enqueued in one transaction for each user: a worker that dies leaves the
        others to the next attempt, and nobody gets a second mail.
        """
        now, sent = datetime.fromtimestamp(clock.time(), UTC), 0
        keys = settings.hardening.security.secret_keys
        with sessions() as session:
            people = digests.due(session, now=now)
        for person in people:
            stop, one_click = f"{site}/account#mails-title", None
            if keys:
                signed = digests.signature(link_keys(keys)[0], person)
                stop = f"{site}/mails/stop?user={person}&signature={signed}"
                one_click = stop if stop.startswith("https://") else None
            with sessions.begin() as session:
                found = digests.take(session, person, now=now)
                if found is not None:
                    letter = mail_texts.digest(found, site=site, stop=stop)
                    day = now.astimezone(JST).date()
                    background.send_mail(
                        session,
                        person,
                        letter,
                        wanted="daily",
                        key=f"digest {person} {day}",
                        unsubscribe_url=one_click,
                    )
                    sent += 1
        return {"mails": sent}
