"""Reports: figures of a month or a site, stored files, signed download links."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, delete, func, select
from sqlalchemy.orm import Session, joinedload

from knowledge_system.domain import translations
from knowledge_system.domain.permissions import CATEGORIES, JST, Actor
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.models import Article, Comment, Report, Revision, User
from knowledge_system.reports.figures import CategoryRow, Figures, ListedArticle
from knowledge_system.services.secret_keys import key_bytes
from knowledge_system.services.transactions import count_changed
from knowledge_system.services.visibility import read_by

_MOST_ARTICLES = 2000


class Link(NamedTuple):
    """The data of a download link that its signature covers."""

    report: str
    owner: int
    until: int

    def is_signed(self, keys: Sequence[bytes], given: str) -> bool:
        """Whether one of the keys made the signature."""
        sent = given.encode()  # for text, compare_digest accepts ASCII only
        return any([hmac.compare_digest(signature(key, self).encode(), sent) for key in keys])  # noqa: C419 - all of them


def link_keys(secret_keys: Sequence[str]) -> tuple[bytes, ...]:
    """Derive the keys that sign links, newest first; without configured keys, links expire with the process."""
    keys = key_bytes(secret_keys) or [secrets.token_bytes(32)]
    return tuple(hmac.digest(key, b"links to reports", "sha256") for key in keys)


def signature(key: bytes, link: Link) -> str:
    """Return the signature of a link."""
    said = f"report file\n{link.report}\n{link.owner}\n{link.until}"
    return hmac.digest(key, said.encode(), "sha256").hex()


def months(session: Session, actor: Actor, *, now: datetime) -> list[str]:
    """Return the months from the oldest article of the actor's to now, newest first, as ``2025-11``; at most 60."""
    oldest = session.scalar(select(func.min(Article.created_at)).where(read_by(actor.groups)))
    here = now.astimezone(JST)
    first = oldest.astimezone(JST) if oldest else here
    number = (here.year - first.year) * 12 + here.month - first.month
    last = here.year * 12 + here.month - 1
    return [f"{(last - back) // 12:04d}-{(last - back) % 12 + 1:02d}" for back in range(min(number, 59) + 1)]


def sites(session: Session, actor: Actor) -> list[str]:
    """Return the departments and sites that have written articles that the actor may read."""
    question = select(User.department).join(Article, Article.author_id == User.id).distinct()
    return sorted(name for name in session.scalars(question.where(read_by(actor.groups))) if name)


def check_subject(session: Session, actor: Actor, kind: str, subject: str, *, now: datetime) -> None:
    """Check that a month or a site has data.

    Raises:
        Problem: ``invalid``.
    """
    if subject not in (months(session, actor, now=now) if kind == "monthly" else sites(session, actor)):
        raise Problem("invalid", errors=[FieldError("subject", "choice")])


def figures(
    session: Session, actor: Actor, kind: str, subject: str, *, now: datetime, language: str = "ja"
) -> Figures:
    """Return the figures of a month (``2025-11``) or a site, of what the actor may read, with titles in a language.

    Raises:
        Problem: ``invalid`` if the month or site has no data (any more).
    """
    check_subject(session, actor, kind, subject, now=now)
    if kind == "monthly":
        begin, end = _month(subject)
        scope = translations.written(begin, "month", language)
        within = and_(Article.updated_at >= begin, Article.updated_at < end)
        return Figures(
            translations.say("月次ナレッジレポート %(scope)s", language, scope=scope),
            scope,
            _wall(now),
            _rows(session, actor, begin=begin, end=end, site=None),
            _articles(session, select(Article).where(within, read_by(actor.groups))),
            language,
        )
    of_site = Article.author.has(department=subject)
    return Figures(
        translations.say("部署別ナレッジレポート %(scope)s", language, scope=subject),
        subject,
        _wall(now),
        _rows(session, actor, begin=None, end=None, site=subject),
        _articles(session, select(Article).where(of_site, read_by(actor.groups))),
        language,
    )


def find(session: Session, report_id: str, *, owner_id: int, now: datetime) -> Report | None:
    """Return a report of this user that has not expired, without its content."""
    return session.scalar(
        select(Report).where(Report.id == report_id, Report.owner_id == owner_id, Report.expires_at > now)
    )


def kept(session: Session, *, owner_id: int, now: datetime) -> dict[str, Report]:
    """Return the reports of this user that have not expired, by id."""
    question = select(Report).where(Report.owner_id == owner_id, Report.expires_at > now)
    return {report.id: report for report in session.scalars(question)}


def content_of(session: Session, report_id: str) -> bytes:
    """Return the file of a report."""
    return session.scalars(select(Report.content).where(Report.id == report_id)).one()


def remove_expired(session: Session, *, now: datetime) -> int:
    """Delete expired reports; return how many."""
    return count_changed(session, delete(Report).where(Report.expires_at <= now))


def _month(text: str) -> tuple[datetime, datetime]:
    year, month = map(int, text.split("-"))
    begin = datetime(year, month, 1, tzinfo=JST)
    return begin, begin.replace(year=year + month // 12, month=month % 12 + 1)


def _wall(now: datetime) -> datetime:
    """Return the naive local time in Japan; spreadsheets have no time zones."""
    return now.astimezone(JST).replace(tzinfo=None)


def _rows(
    session: Session, actor: Actor, *, begin: datetime | None, end: datetime | None, site: str | None
) -> tuple[CategoryRow, ...]:
    def counted(question: Select[Any, Any], moment: Any) -> dict[str, int]:
        if site is not None:
            question = question.where(Article.author.has(department=site))
        if begin is not None and end is not None and moment is not None:
            question = question.where(moment >= begin, moment < end)
        question = question.where(Article.status == "published", read_by(actor.groups))
        question = question.group_by(Article.category)
        return {row[0]: row[1] for row in session.execute(question)}

    number = func.count()
    published = counted(select(Article.category, number), None)
    created = counted(select(Article.category, number), Article.created_at)
    edits = counted(
        select(Article.category, number).join(Revision, Revision.article_id == Article.id), Revision.saved_at
    )
    comments = counted(
        select(Article.category, number)
        .join(Comment, Comment.article_id == Article.id)
        .where(Comment.deleted_at.is_(None)),
        Comment.created_at,
    )
    rows = (
        CategoryRow(name, *(found.get(name, 0) for found in (published, created, edits, comments)))
        for name in CATEGORIES
    )
    return tuple(row for row in rows if any(row[1:]))


def _articles(session: Session, chosen: Select[Article]) -> tuple[ListedArticle, ...]:
    chosen = (
        chosen.where(Article.status == "published")
        .options(joinedload(Article.author))
        .order_by(Article.updated_at.desc(), Article.id)
        .limit(_MOST_ARTICLES)
    )
    found = list(session.scalars(chosen))
    question = (
        select(Comment.article_id, func.count())
        .where(Comment.article_id.in_([article.id for article in found]), Comment.deleted_at.is_(None))
        .group_by(Comment.article_id)
    )
    comments = {row[0]: row[1] for row in session.execute(question)}
    return tuple(
        ListedArticle(
            article.title,
            article.category,
            article.author.display_name,
            article.author.department,
            _wall(article.updated_at),
            comments.get(article.id, 0),
        )
        for article in found
    )
