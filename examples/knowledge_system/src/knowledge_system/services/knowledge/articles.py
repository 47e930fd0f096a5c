"""Creating, saving, deleting and commenting articles, under the rules of ``domain/permissions.py``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import and_, literal, select, update
from sqlalchemy import delete as remove
from sqlalchemy.orm import Session, object_session, undefer_group

from knowledge_system.domain import permissions, workflow
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.models import (
    Article,
    ArticleNode,
    ArticleTag,
    Attachment,
    Favourite,
    Notice,
    Reader,
    Review,
    Revision,
    Watch,
)
from knowledge_system.services.attachments import article_attachments, attachment_texts
from knowledge_system.services.knowledge.article_queries import load_seen, reviewed_by, stored
from knowledge_system.services.knowledge.tags import canonical_tags
from knowledge_system.services.transactions import count_changed
from knowledge_system.services.visibility import select_closed
from mks_hardening.db import SearchIndex

TEXT = ("title", "summary", "body", "category", "site", "tags")
"""The fields that each revision copies."""
_KEPT_WHILE_WRITTEN = frozenset({"published", "retired"})
"""Statuses in which the current text stays visible while the next version is written."""


def create(
    session: Session,
    actor: Actor,
    values: dict[str, Any],
    *,
    search: SearchIndex,
    now: datetime,
    four_eyes: bool = True,
) -> int:
    """Create an article by the actor; return its id.

    Raises:
        Problem: ``forbidden``, or ``invalid`` for a status the actor may not choose.
    """
    if not permissions.may_write(actor):
        raise Problem("forbidden")
    _check_status(session, actor, values["status"], {values["category"]}, four_eyes=four_eyes)
    check_category(session, actor, values["category"])
    values = {**values, "tags": canonical_tags(session, values["tags"])}
    article = Article(author_id=actor.id, revision=1, created_at=now, updated_at=now, tags=[], revisions=[])
    session.add(article)
    _keep(article, actor, values, now)
    show(article, values, status=values["status"], number=1, now=now)
    session.flush()
    index(session, search, article)
    return article.id


def save(
    session: Session,
    actor: Actor,
    article_id: int,
    values: dict[str, Any],
    *,
    revision: int,
    search: SearchIndex,
    now: datetime,
    four_eyes: bool = True,
) -> int:
    """Save an edit based on ``revision``; return the new revision.

    For a published or retired article, the edit becomes the next version, which readers see once it is approved.
    The revision number is checked and increased in one statement, so of two edits based on the same revision
    exactly one is saved.

    Raises:
        Problem: ``not-found``, ``forbidden``, ``invalid``, or ``conflict`` with the current revision.
    """
    article = load_seen(session, actor, article_id, lock=True)
    if not permissions.may_edit(actor, author_id=article.author_id, status=article.status):
        raise Problem("forbidden")
    categories = {article.category, values["category"]}
    _check_status(session, actor, values["status"], categories, four_eyes=four_eyes)
    check_category(session, actor, values["category"])
    becomes_next = article.status in _KEPT_WHILE_WRITTEN and values["status"] != "published"
    if becomes_next:
        _check_next_category(session, article_id, values["category"])
    seen = update(Article).where(Article.id == article_id, Article.revision == revision)
    raised = seen.values(revision=revision + 1).execution_options(synchronize_session=False)
    if count_changed(session, raised) != 1:
        raise Problem("conflict", extra={"current_revision": article.revision})
    session.refresh(article, ["revision"])
    values = {**values, "tags": canonical_tags(session, values["tags"])}
    _keep(article, actor, values, now)
    if becomes_next:
        article.next_revision, article.next_status = article.revision, values["status"]
        article.next_since = article.next_since or article.revision
        session.flush()
        return article.revision
    article_attachments.check_can_publish(session, actor, article_id)
    show(article, values, status=values["status"], number=article.revision, now=now)
    session.flush()
    index(session, search, article)
    return article.revision


def record_contributor(session: Session, actor: Actor, article_id: int, *, now: datetime) -> None:
    """Record the actor, who changed attachments, as a writer of the version in progress.

    Saves the text once more as a revision of the actor. Does nothing if the actor already wrote this version, or if
    no version is in progress.
    """
    article = load_seen(session, actor, article_id, lock=True)
    status, since = article.next_status or article.status, article.next_since or 1
    if status not in permissions.UNFINISHED:
        return
    if any(kept.editor_id == actor.id and kept.number >= since for kept in article.revisions):
        return
    number = article.next_revision or article.shown_revision
    newest = session.get_one(Revision, (article_id, number), options=[undefer_group("text")])
    article.revision += 1
    _keep(article, actor, {**{name: getattr(newest, name) for name in TEXT}, "status": status}, now)
    if article.next_revision is None:
        article.shown_revision = article.revision
    else:
        article.next_revision = article.revision
    session.flush()


def delete(
    session: Session,
    actor: Actor,
    article_id: int,
    *,
    revision: int | None,
    search: SearchIndex,
    kept: float = 0,
    now: datetime,
) -> None:
    """Delete an article with its comments and history.

    Args:
        session: database session with the transaction.
        actor: user who deletes it.
        article_id: id of the article.
        revision: expected revision; ``None`` for any.
        search: search index to update.
        kept: seconds for which articles are kept after their retirement.
        now: current time.

    Raises:
        Problem: ``not-found``, ``forbidden``, ``kept``, or ``conflict`` with the current revision.
    """
    article = load_seen(session, actor, article_id, lock=True)
    if not permissions.may_delete(actor, author_id=article.author_id, status=article.status):
        raise Problem("forbidden")
    if revision not in {None, article.revision}:
        raise Problem("conflict", extra={"current_revision": article.revision})
    if permissions.is_kept(status=article.status, age=(now - article.updated_at).total_seconds(), kept=kept):
        raise Problem("kept")
    search.remove(session, article.id)
    files = session.scalars(select(Attachment.id).where(Attachment.article_id == article.id)).all()
    attachment_texts.remove(session, files)
    for related in (Review, Notice, Favourite, Attachment, ArticleNode, Reader):
        session.execute(remove(related).where(related.article_id == article.id))
    session.execute(remove(Watch).where(Watch.kind == "article", Watch.subject == str(article.id)))
    session.delete(article)
    session.flush()


def index(session: Session, search: SearchIndex, article: Article) -> None:
    """Update the search index, in the transaction of the article."""
    words = (article.summary, " ".join(tag.name for tag in article.tags), article.site, article.body)
    search.index(session, article.id, title=article.title, body="\n".join(words))


def _check_status(
    session: Session, actor: Actor, status: str, categories: Collection[str], *, four_eyes: bool
) -> None:
    """Refuse a status that the actor may not choose; publishing is for those who may approve the categories."""
    allowed = status in workflow.statuses_to_save(actor, four_eyes=four_eyes)
    if allowed and status == "published":
        approved_by = (reviewed_by(actor, literal(category)) for category in sorted(categories))
        allowed = bool(session.scalar(select(and_(*approved_by))))
    if not allowed:
        raise Problem("invalid", errors=[FieldError("status", "not-allowed")])


def check_category(session: Session, actor: Actor, category: str) -> None:
    """Refuse a category whose articles the actor may not read, and so the article itself from then on.

    Raises:
        Problem: ``invalid``.
    """
    if category in session.scalars(select_closed(Reader.category, actor.groups)).all():
        raise Problem("invalid", errors=[FieldError("category", "not-allowed")])


def _check_next_category(session: Session, article_id: int, category: str) -> None:
    """Refuse a restricted category for the next version of an article that more people read.

    The category restricts the article from the approval on.

    Raises:
        Problem: ``invalid``.
    """
    groups = set(session.scalars(select(Reader.group_id).where(Reader.category == category)))
    if groups and not any(groups.issuperset(each) for each in stored(session, article_id)["readers"]):
        raise Problem("invalid", errors=[FieldError("category", "restrict-first")])


def _keep(article: Article, actor: Actor, values: dict[str, Any], now: datetime) -> None:
    """Store the text as a revision."""
    article.revisions.append(
        Revision(
            number=article.revision,
            editor_id=actor.id,
            status=values["status"],
            saved_at=now,
            **{name: values[name] for name in TEXT},
        )
    )


def show(article: Article, values: Mapping[str, Any], *, status: str, number: int, now: datetime) -> None:
    """Show readers the text of revision ``number``, and the files added with it."""
    article.title, article.summary, article.body = values["title"], values["summary"], values["body"]
    article.category, article.site = values["category"], values["site"]
    article.status, article.shown_revision, article.updated_at = status, number, now
    article.next_revision = article.next_since = article.next_status = None
    if status == "published":
        article.confirmed_at = now
    kept = {tag.name: tag for tag in article.tags}
    article.tags = [kept.get(name) or ArticleTag(name=name) for name in values["tags"]]
    for position, tag in enumerate(article.tags):
        tag.position = position
    session = object_session(article)
    if session is not None and article.id is not None:
        session.execute(update(Attachment).where(Attachment.article_id == article.id).values(shown=True))
