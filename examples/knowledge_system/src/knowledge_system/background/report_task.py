"""The task that writes a report, and stores it in the transaction that completes the task."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import insert

from knowledge_system.background import mail_texts
from knowledge_system.domain.problems import Problem
from knowledge_system.models import Report
from knowledge_system.reports.document import write_document
from knowledge_system.reports.spreadsheet import write_sheet
from knowledge_system.services import reports
from knowledge_system.services.identity import accounts
from mks_hardening.exceptions import TaskRefusedError

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.background.mail_texts import MailTemplate
    from mks_hardening.protocols import Clock
    from mks_hardening.tasks import Task, TaskRun, Tasks

NAME = "reports.write"
DAYS_KEPT = 7
FORMATS = {
    "xlsx": ("Excel", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", write_sheet),
    "pdf": ("PDF", "application/pdf", write_document),
}

Tell = Callable[["Connection", int, "MailTemplate"], None]


def register(
    tasks: Tasks, sessions: sessionmaker[Session], *, tell: Tell, clock: Clock
) -> Task[[str, str, str, str, str], None]:
    """Register the task.

    Args:
        tasks: queue to register it in.
        sessions: factory of database sessions for reading.
        tell: sends a mail in a transaction.
        clock: clock for the time printed on the report.
    """

    @tasks.task(NAME, priority="low", timeout=120, max_attempts=3)
    def write(  # noqa: PLR0917 - task arguments are positional, as they are stored
        run: TaskRun, kind: str, subject: str, file_format: str, link: str, language: str = "ja"
    ) -> None:
        # The default is for tasks enqueued by the previous release.
        owner, now = int(run.user_id or 0), datetime.fromtimestamp(clock.time(), UTC)
        _, content_type, written = FORMATS[file_format]
        run.progress(0.05, "記事とコメントを集計しています")
        try:
            with sessions() as session:
                actor = accounts.find(session.connection(), owner)
                if actor is None:
                    raise TaskRefusedError("the account is not active any more")
                figures = reports.figures(session, actor, kind, subject, now=now, language=language)
        except Problem:
            raise TaskRefusedError("there is no such month or site") from None
        content = written(figures, progress=lambda share, stage: run.progress(0.3 + 0.6 * share, stage))
        run.progress(0.95, "保存しています")
        file_name = f"{figures.title.replace(' ', '_')}.{file_format}"
        result: object = {"title": figures.title, "file": file_name, "bytes": len(content)}
        with run.commit(result) as connection:
            connection.execute(
                insert(Report).values(
                    id=run.id,
                    owner_id=owner,
                    title=figures.title,
                    file_name=file_name,
                    content_type=content_type,
                    content=content,
                    expires_at=now + timedelta(days=DAYS_KEPT),
                )
            )
            tell(
                connection,
                owner,
                mail_texts.report_ready(figures.title, link=f"{link}/{run.id}", days=DAYS_KEPT),
            )

    return write
