"""The application's task queue, run by threads of the web processes or by Celery."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy import Connection, Engine, select
from sqlalchemy.orm import Session, sessionmaker

from knowledge_system import models
from knowledge_system.background import audit_export, cleanup_tasks, reminder_task, report_task, text_task
from knowledge_system.background.mail_texts import MailTemplate
from knowledge_system.domain.permissions import Actor
from knowledge_system.settings import AppSettings
from mks_hardening.protocols import Clock
from mks_hardening.tasks import MailTask, TaskQueueWatch, Tasks, TaskStatus, TaskWorker

_STOP_SECONDS = 4
"""Below gunicorn's graceful timeout; a task that is cut off runs again after its lease expires."""


class Background:
    """The task queue with all tasks of the application.

    Args:
        engine: engine of the application's database, which holds the task rows.
        sessions: factory of database sessions for the tasks.
        settings: mail server, broker, directories.
        clock: clock of the application; with the default, task rows use the time of the database or host.
        forget: called with the id of an article whose cached pages are out of date.
    """

    def __init__(
        self,
        engine: Engine,
        sessions: sessionmaker[Session],
        *,
        settings: AppSettings,
        clock: Clock = time,
        forget: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._settings = settings
        self.tasks = Tasks(engine, table=models.tasks, clock=None if clock is time else clock)
        with_mail = "notify" in settings.areas
        self._mail = (
            MailTask.from_settings(self.tasks, settings.hardening, clock=clock) if with_mail else None
        )
        self._write_report = report_task.register(self.tasks, sessions, tell=self.send_mail, clock=clock)
        self.read_text = text_task.register(self.tasks, sessions, settings=settings, forget=forget)
        audit_export.register(self.tasks, sessions, settings=settings, clock=clock)
        cleanup_tasks.register(self.tasks, sessions, settings=settings, clock=clock)
        reminder_task.register(self.tasks, sessions, settings=settings, background=self, clock=clock)

    @property
    def sends_mail(self) -> bool:
        """Whether users are notified by mail."""
        return self._mail is not None

    def request_report(
        self,
        session: Session,
        actor: Actor,
        *,
        kind: str,
        subject: str,
        file_format: str,
        link: str,
        language: str,
        key: str,
    ) -> str:
        """Enqueue a report in the caller's transaction; return the id of the task, which the report will share."""
        # The key covers the parameters: a reused key with different parameters must not return the first
        # report.
        asked = hashlib.sha256(f"{kind}\n{subject}\n{file_format}".encode()).hexdigest()[:16]
        task = self._write_report.using(user_id=str(actor.id), key=f"{actor.id} {key} {asked}")
        return task.enqueue(session, kind, subject, file_format, link, language)

    def reports_of(self, actor: Actor) -> list[TaskStatus]:
        """Return the newest reports that the user requested."""
        listed = self.tasks.listed(name=report_task.NAME, user_id=str(actor.id), most=20)
        return [status for status, _ in listed]

    def report_of(self, actor: Actor, report_id: str) -> TaskStatus | None:
        """Return a report if this user requested it."""
        found = self.tasks.status(report_id, user_id=str(actor.id))
        return found if found is not None and found.name == report_task.NAME else None

    def send_notice(self, connection: Session | Connection, user_id: int, letter: MailTemplate) -> None:
        """Send a mail to a user who wants one for each notice."""
        self.send_mail(connection, user_id, letter, wanted="each")

    def send_mail(
        self,
        connection: Session | Connection,
        user_id: int,
        letter: MailTemplate,
        *,
        wanted: str = "",
        key: str | None = None,
        unsubscribe_url: str | None = None,
    ) -> None:
        """Send a mail to a user in the caller's transaction; do nothing if mail is disabled.

        Args:
            connection: the transaction.
            user_id: the recipient.
            letter: the mail.
            wanted: only if the recipient chose this kind of notices.
            key: of several mails with the same key, only the first is sent.
            unsubscribe_url: address with which mail programs end such mails at one click.
        """
        user = models.User
        asked = select(user.username, user.email).where(user.id == user_id, user.active)
        for name, email in connection.execute(asked.where(user.mails == wanted) if wanted else asked):
            domain = self._settings.mail_domain
            if to := email or (f"{name}@{domain}" if domain else ""):
                self.mail(connection, to, letter, user_id=user_id, key=key, unsubscribe_url=unsubscribe_url)

    def mail(
        self,
        connection: Session | Connection,
        to: str,
        letter: MailTemplate,
        *,
        user_id: int,
        key: str | None = None,
        unsubscribe_url: str | None = None,
    ) -> None:
        """Send a mail to an address in the caller's transaction; do nothing if mail is disabled."""
        if self._mail is not None:
            reads = select(models.User.language).where(models.User.id == user_id)
            subject, text = letter.written(connection.execute(reads).scalar() or "ja")
            self._mail.enqueue(
                connection,
                to=to,
                subject=subject,
                text=text,
                user_id=str(user_id),
                key=key,
                unsubscribe_url=unsubscribe_url,
            )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run tasks on threads of this process, unless Celery runs them, and monitor the queue."""
        with ExitStack() as stack:
            if self._settings.broker_url is None:
                worker = TaskWorker(self.tasks)
                worker.start()
                stack.callback(worker.stop, _STOP_SECONDS)
            stack.enter_context(TaskQueueWatch(self.tasks))
            yield
