"""Workflow steps, review queue, older revisions, notices."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload, undefer_group

from knowledge_system.domain import permissions, workflow
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.domain.workflow import STEPS
from knowledge_system.models import Article, Notice, Reader, Review, Revision, User
from knowledge_system.services.attachments import article_attachments
from knowledge_system.services.knowledge import article_queries, articles, tags
from knowledge_system.services.transactions import count_changed
from knowledge_system.services.visibility import seen_by, seen_by_users, select_closed, select_readers
from mks_hardening.db import SearchIndex

_MOST_NOTICES: Final = 300
_OVERDUE: Final = "overdue"


class ReviewEvent(NamedTuple):
    """An event on an article, and the users to notify."""

    article_id: int
    title: str
    kind: str
    said: str
    readers: tuple[int, ...]


def take(
    session: Session,
    actor: Actor,
    article_id: int,
    step: str,
    *,
    revision: int,
    comment: str,
    files: str = "",
    search: SearchIndex,
    now: datetime,
    four_eyes: bool,
) -> ReviewEvent:
    """Take a workflow step on the version that the actor has seen; one statement checks and changes its status.

    Approval also publishes the attachments, so these must be the ones the actor has seen, if ``files`` names them.

    Raises:
        Problem: ``not-found``, ``forbidden``, ``own-work``, ``wrong-state``, ``conflict`` with the current
            revision, or ``invalid`` if the reason is missing, or the actor may not read the version's category
            or see the files that it publishes.
    """
    article = article_queries.load_seen(session, actor, article_id, lock=True)
    stored = article_queries.stored(session, article_id)
    subject = article_queries.subject(stored)
    code = workflow.refusal(step, actor, subject, four_eyes=four_eyes)
    if code:
        raise Problem(code)
    attached = ",".join(str(file["id"]) for file in stored["attachments"]) or "0"
    if step == "approve" and files not in {"", attached}:
        raise Problem("conflict", extra={"current_revision": article.revision})
    wanted = STEPS[step]
    if wanted.comment and not comment:
        raise Problem("invalid", errors=[FieldError("comment", "missing")])
    coming = article.next_revision is not None
    status = Article.next_status if coming else Article.status
    seen = (Article.id == article_id, Article.revision == revision, status == wanted.before)
    moved = update(Article).where(*seen).values({status: wanted.after})
    if count_changed(session, moved.execution_options(synchronize_session=False)) != 1:
        raise Problem("conflict", extra={"current_revision": article.revision})
    session.refresh(article, ["status", "next_status"])
    number = article.next_revision or article.shown_revision
    kept = session.get_one(Revision, (article_id, number), options=[undefer_group("text")])
    kept.status = wanted.after
    if step == "approve":
        articles.check_category(session, actor, kept.category or article.category)
        article_attachments.check_can_publish(session, actor, article_id)
        _publish(session, article, kept, search=search, now=now)
    elif step == "confirm":
        article.confirmed_at = now
    elif step == "retire":
        article.updated_at = now
    session.add(
        Review(
            article_id=article_id,
            revision=number,
            actor_id=actor.id,
            step=step,
            comment=comment,
            taken_at=now,
        )
    )
    session.flush()
    return ReviewEvent(
        article_id, article.title, step, comment, _readers(session, article_id, step, actor, subject)
    )


def _publish(
    session: Session, article: Article, kept: Revision, *, search: SearchIndex, now: datetime
) -> None:
    if kept.body is None:  # the only revision of an article from before texts were stored
        article.confirmed_at = now
        return
    values = {name: getattr(kept, name) for name in articles.TEXT}
    values["tags"] = tags.canonical_tags(session, values["tags"])
    articles.show(article, values, status="published", number=kept.number, now=now)
    session.flush()
    articles.index(session, search, article)


def _readers(
    session: Session, article_id: int, step: str, actor: Actor, subject: workflow.Subject
) -> tuple[int, ...]:
    others = select_readers(article_id).where(User.id != actor.id)
    if step == "submit":
        people = (Actor(*row) for row in session.execute(others.where(User.role.in_(permissions.SEE_ALL))))
        return tuple(person.id for person in people if permissions.may_review(person, subject.approvers))
    if step not in {"return", "approve", "retire"}:
        return ()
    concerned = {subject.author_id, *subject.writers}
    return tuple(session.scalars(others.where(User.id.in_(concerned))))


def queue(session: Session, actor: Actor) -> list[dict[str, Any]]:
    """Return the versions waiting for review, oldest first: those that the actor may review, and their own."""
    asked = (
        select(Article, Revision.title, Revision.saved_at, Revision.number)
        .join(
            Revision,
            (Revision.article_id == Article.id)
            & (Revision.number == func.coalesce(Article.next_revision, Article.revision)),
        )
        .where(
            func.coalesce(Article.next_status, Article.status) == "review",
            seen_by(actor),
            _is_open(Revision.category, actor),
        )
        .options(joinedload(Article.author))
        .order_by(Revision.saved_at)
        .limit(200)
    )
    if permissions.sees_all(actor):
        reviewed_by = article_queries.reviewed_by(actor, Article.category) & article_queries.reviewed_by(
            actor, func.coalesce(Revision.category, Article.category)
        )
        asked = asked.where(reviewed_by | (Article.author_id == actor.id))
    else:
        asked = asked.where(Article.author_id == actor.id)
    return [
        {
            "id": article.id,
            "title": title or article.title,
            "category": article.category,
            "author": article.author.display_name,
            "own": article.author_id == actor.id,
            "next": article.next_revision is not None,
            "revision": number,
            "since": saved_at,
        }
        for article, title, saved_at, number in session.execute(asked)
    ]


def _is_open(category: InstrumentedAttribute[str | None], actor: Actor) -> ColumnElement[bool]:
    """Whether the actor may read a category; revisions from before texts were stored have none."""
    return category.is_(None) | category.not_in(select_closed(Reader.category, actor.groups))


def steps(session: Session, actor: Actor, article_id: int) -> list[dict[str, Any]]:
    """Return the workflow steps of an article with their comments, newest first.

    Those of a version that the actor may not read are left out.
    """
    version = and_(Revision.article_id == Review.article_id, Revision.number == Review.revision)
    asked = (
        select(Review)
        .outerjoin(Revision, version)
        .where(Review.article_id == article_id, _is_open(Revision.category, actor))
        .options(joinedload(Review.actor))
        .order_by(Review.id.desc())
        .limit(50)
    )
    return [
        {
            "label": STEPS[review.step].label,
            "step": review.step,
            "revision": review.revision,
            "actor": review.actor.display_name,
            "comment": review.comment,
            "taken_at": review.taken_at,
        }
        for review in session.scalars(asked)
    ]


def text_of(session: Session, actor: Actor, article_id: int, number: int) -> dict[str, Any]:
    """Return the full text of one revision, with its editor and time.

    Raises:
        Problem: ``not-found``, also if the actor may not see the version, yet or at all; ``no-text``.
    """
    seen = article_queries.read(session, actor, article_id)
    entry = next((entry for entry in seen["history"] if entry["revision"] == number), None)
    if entry is None:
        raise Problem("not-found")
    # The category of the version may be restricted, whatever that of the article is.
    asked = select(Revision).where(
        Revision.article_id == article_id, Revision.number == number, _is_open(Revision.category, actor)
    )
    kept = session.scalar(asked.options(undefer_group("text")))
    if kept is None:
        raise Problem("not-found")
    if kept.body is None:
        raise Problem("no-text")
    return {**entry, **{name: getattr(kept, name) for name in articles.TEXT}}


def notify(session: Session, actor: Actor, event: ReviewEvent, *, now: datetime) -> None:
    """Create a notice for each user to notify."""
    session.add_all(
        Notice(
            user_id=reader,
            article_id=event.article_id,
            actor_id=actor.id,
            kind=event.kind,
            said=event.said,
            created_at=now,
        )
        for reader in event.readers
    )


class NoticeGroup(NamedTuple):
    """The notices of one article, newest first, and how many of them are unread.

    Attributes:
        article_id: id of the article.
        title: its title.
        unread: number of unread notices.
        events: notices by kind, with the people, their number, the newest comment and its time.
    """

    article_id: int
    title: str
    unread: int
    events: list[dict[str, Any]]


def notices(session: Session, actor: Actor, *, unread_since: datetime | None = None) -> list[NoticeGroup]:
    """Return the user's newest notices by article, limited to articles that the user may still see.

    Reminders of overdue articles are not among them: ``overdue_notices`` counts them.

    Args:
        session: database session.
        actor: the user.
        unread_since: only unread notices that are newer.
    """
    asked = (
        select(Notice)
        .join(Article, Article.id == Notice.article_id)
        .where(Notice.user_id == actor.id, Notice.kind != _OVERDUE, seen_by(actor))
        .options(joinedload(Notice.actor), joinedload(Notice.article))
        .order_by(Notice.id.desc())
        .limit(_MOST_NOTICES)
    )
    if unread_since is not None:
        asked = asked.where(Notice.read_at.is_(None), Notice.created_at > unread_since)
    by_article: dict[int, list[Notice]] = {}
    for notice in session.scalars(asked):
        by_article.setdefault(notice.article_id, []).append(notice)
    return [
        NoticeGroup(
            article_id,
            found[0].article.title,
            sum(notice.read_at is None for notice in found),
            _events(found),
        )
        for article_id, found in by_article.items()
    ]


def _events(found: list[Notice]) -> list[dict[str, Any]]:
    """Group notices of one article by what happened, newest first."""
    by_kind: dict[str, list[Notice]] = {}
    for notice in found:
        by_kind.setdefault(notice.kind, []).append(notice)
    return [
        {
            "kind": kind,
            "actors": list(dict.fromkeys(notice.actor.display_name for notice in same)),
            "number": len(same),
            "said": same[0].said,
            "created_at": same[0].created_at,
        }
        for kind, same in by_kind.items()
    ]


def overdue_notices(session: Session, actor: Actor) -> tuple[int, bool]:
    """Return how many articles the user was reminded to confirm, and whether a reminder is unread."""
    asked = (
        select(
            func.count(Notice.article_id.distinct()), func.count(Notice.id).filter(Notice.read_at.is_(None))
        )
        .join(Article, Article.id == Notice.article_id)
        .where(Notice.user_id == actor.id, Notice.kind == _OVERDUE, _still_overdue(), seen_by(actor))
    )
    number, unread_number = session.execute(asked).one()
    return number, unread_number > 0


def _still_overdue() -> ColumnElement[bool]:
    """Whether nobody has confirmed or retired the article since the reminder."""
    return (Article.status == "published") & (Article.confirmed_at < Notice.created_at)


def select_unread() -> Select[Any]:
    """Select the number of unread lines of the user in the enclosing statement.

    Reminders of overdue articles are one line together.
    """
    line = case((Notice.kind == _OVERDUE, 0), else_=Notice.article_id)
    return (
        select(func.count(line.distinct()))
        .select_from(Notice)
        .join(Article, Article.id == Notice.article_id)
        .where(
            Notice.user_id == User.id,
            Notice.read_at.is_(None),
            seen_by_users(),
            (Notice.kind != _OVERDUE) | _still_overdue(),
        )
        .correlate(User)
    )


def mark_read(session: Session, actor: Actor, *, article_id: int = 0, now: datetime) -> None:
    """Mark the notices of the user as read: all, or those of one article."""
    unread = update(Notice).where(Notice.user_id == actor.id, Notice.read_at.is_(None))
    session.execute(
        (unread.where(Notice.article_id == article_id) if article_id else unread).values(read_at=now)
    )
