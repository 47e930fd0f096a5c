"""Articles: listing, reading, writing, commenting, all under the rules of ``rules.py``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session, joinedload, selectinload

from knowledge_system import rules
from knowledge_system.models import Article, ArticleTag, Comment, Revision
from knowledge_system.problems import FieldFault, Problem
from knowledge_system.rules import Actor
from knowledge_system.services.search import SearchIndex

__all__ = [
    "ArticleFilter",
    "add_comment",
    "category_counts",
    "create",
    "index",
    "read",
    "save",
    "selection",
    "summaries",
    "with_list_parts",
]

MAX_ID = 2**31 - 1


class ArticleFilter(NamedTuple):
    """What a list shows; every part narrows it."""

    category: str = ""
    tag: str = ""
    status: str = "published"
    author: str = ""


def selection(actor: Actor, wanted: ArticleFilter) -> Select[Any]:
    """The articles that pass the filter and that the actor may see."""
    chosen = select(Article).where(Article.status == wanted.status)
    if wanted.status in {"draft", "review"} and not rules.sees_all(actor):
        chosen = chosen.where(Article.author_id == actor.id)
    if wanted.category:
        chosen = chosen.where(Article.category == wanted.category)
    if wanted.tag:
        chosen = chosen.where(Article.tags.any(ArticleTag.name == wanted.tag))
    if wanted.author:
        chosen = chosen.where(Article.author.has(username=wanted.author))
    return with_list_parts(chosen)


def with_list_parts(chosen: Select[Any]) -> Select[Any]:
    """The selection with what a list shows beside the article itself, in two statements altogether."""
    return chosen.options(joinedload(Article.author), selectinload(Article.tags))


def summaries(session: Session, articles: Sequence[Article]) -> list[dict[str, Any]]:
    """What a list shows of each article, as plain values that a cache can keep."""
    ids = [article.id for article in articles]
    number = func.count().label("number")
    counted = (
        select(Comment.article_id, number).where(Comment.article_id.in_(ids)).group_by(Comment.article_id)
    )
    comments = {row.article_id: row.number for row in session.execute(counted)}
    return [_summary(article, comments.get(article.id, 0)) for article in articles]


def category_counts(session: Session) -> dict[str, int]:
    """How many published articles each category has, in the order of the categories."""
    number = func.count().label("number")
    counted = select(Article.category, number).where(Article.status == "published").group_by(Article.category)
    counts = {row.category: row.number for row in session.execute(counted)}
    return {category: counts.get(category, 0) for category in rules.CATEGORIES}


def read(session: Session, actor: Actor, article_id: int) -> dict[str, Any]:
    """One article with comments and history.

    Raises:
        Problem: ``not-found``, also for an article the actor may not see.
    """
    article = _load(session, actor, article_id)
    comments = [
        {"id": c.id, "author": c.author.display_name, "body": c.body, "created_at": c.created_at.isoformat()}
        for c in article.comments
    ]
    history = [
        {
            "revision": r.number,
            "editor": r.editor.display_name,
            "status": r.status,
            "saved_at": r.saved_at.isoformat(),
        }
        for r in article.revisions
    ]
    return {
        **_summary(article, len(comments)),
        "body": article.body,
        "created_at": article.created_at.isoformat(),
        "comments": comments,
        "history": history,
        "editable": rules.may_edit(actor, author_id=article.author_id, status=article.status),
    }


def create(
    session: Session, actor: Actor, values: dict[str, Any], *, search: SearchIndex, now: datetime
) -> int:
    """Add an article written by the actor; returns its id.

    Raises:
        Problem: ``forbidden``, or ``invalid`` for a status the actor may not choose.
    """
    if not rules.may_write(actor):
        raise Problem("forbidden")
    _check_status(actor, values["status"])
    article = Article(author_id=actor.id, revision=1, created_at=now, updated_at=now, tags=[], revisions=[])
    session.add(article)
    _assign(article, actor, values, now)
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
) -> int:
    """Save an edit made on top of ``revision``; returns the new revision.

    The rise of the revision number and the test of the old one are one statement, so of two edits made on the
    same revision exactly one is saved.

    Raises:
        Problem: ``not-found``, ``forbidden``, ``invalid``, or ``conflict`` with the current revision.
    """
    article = _load(session, actor, article_id)
    if not rules.may_edit(actor, author_id=article.author_id, status=article.status):
        raise Problem("forbidden")
    _check_status(actor, values["status"])
    risen = session.execute(
        update(Article)
        .where(Article.id == article_id, Article.revision == revision)
        .values(revision=revision + 1)
        .execution_options(synchronize_session=False)
    )
    if risen.rowcount != 1:  # type: ignore[attr-defined]  # an UPDATE gives a CursorResult
        raise Problem("conflict", extra={"current_revision": article.revision})
    session.refresh(article, ["revision"])
    _assign(article, actor, values, now)
    session.flush()
    index(session, search, article)
    return article.revision


def add_comment(session: Session, actor: Actor, article_id: int, body: str, *, now: datetime) -> int:
    """Add a remark below an article the actor may see; returns its id.

    Raises:
        Problem: ``not-found``.
    """
    article = _load(session, actor, article_id)
    comment = Comment(article_id=article.id, author_id=actor.id, body=body, created_at=now)
    session.add(comment)
    session.flush()
    return comment.id


def index(session: Session, search: SearchIndex, article: Article) -> None:
    """Put the article's words into the index, in the same transaction as the article."""
    words = (article.summary, " ".join(tag.name for tag in article.tags), article.body)
    search.index(session, article.id, title=article.title, body="\n".join(words))


def _load(session: Session, actor: Actor, article_id: int) -> Article:
    if not 0 < article_id <= MAX_ID:
        raise Problem("not-found")
    article = session.scalar(
        select(Article)
        .where(Article.id == article_id)
        .options(
            joinedload(Article.author),
            selectinload(Article.tags),
            selectinload(Article.comments).joinedload(Comment.author),
            selectinload(Article.revisions).joinedload(Revision.editor),
        )
    )
    if article is None or not rules.may_see(actor, author_id=article.author_id, status=article.status):
        raise Problem("not-found")
    return article


def _check_status(actor: Actor, status: str) -> None:
    if status not in rules.statuses_for(actor):
        raise Problem("invalid", faults=[FieldFault("status", "not-allowed")])


def _assign(article: Article, actor: Actor, values: dict[str, Any], now: datetime) -> None:
    article.title, article.summary, article.body = values["title"], values["summary"], values["body"]
    article.category, article.status, article.updated_at = values["category"], values["status"], now
    kept = {tag.name: tag for tag in article.tags}
    article.tags = [kept.get(name) or ArticleTag(name=name) for name in values["tags"]]
    for position, tag in enumerate(article.tags):
        tag.position = position
    article.revisions.append(
        Revision(number=article.revision, editor_id=actor.id, status=article.status, saved_at=now)
    )


def _summary(article: Article, comments: int) -> dict[str, Any]:
    return {
        "id": article.id,
        "title": article.title,
        "summary": article.summary,
        "category": article.category,
        "tags": [tag.name for tag in article.tags],
        "status": article.status,
        "author": article.author.display_name,
        "author_username": article.author.username,
        "revision": article.revision,
        "updated_at": article.updated_at.isoformat(),
        "comment_count": comments,
    }
