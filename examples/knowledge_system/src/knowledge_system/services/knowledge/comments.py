"""Comments on articles: adding, answering, changing, removing, and the people whom they mention."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from knowledge_system.domain import permissions
from knowledge_system.domain.markdown import MENTION
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import Problem
from knowledge_system.models import Article, Comment, User
from knowledge_system.services.knowledge.article_queries import MAX_ID, load_seen
from knowledge_system.services.visibility import select_readers

_MOST_MENTIONED: Final = 10


def add(
    session: Session, actor: Actor, article_id: int, body: str, *, parent: int = 0, now: datetime
) -> Comment:
    """Add a comment on an article that the actor may see.

    Args:
        session: database session.
        actor: who writes it.
        article_id: id of the article.
        body: its text.
        parent: the comment it answers, 0 for none; an answer to an answer belongs to the same comment.
        now: current time.

    Raises:
        Problem: ``not-found``, also if the other comment was removed or belongs to another article.
    """
    article = load_seen(session, actor, article_id, lock=True)  # wait for a concurrent deletion
    answered = _find(session, article, parent) if parent else None
    comment = Comment(article_id=article.id, author_id=actor.id, body=body, created_at=now)
    if answered is not None:
        comment.parent_id = answered.parent_id or answered.id
    session.add(comment)
    session.flush()
    return comment


def change(
    session: Session, actor: Actor, article_id: int, comment_id: int, body: str, *, now: datetime
) -> None:
    """Change the text of one's own comment, for a quarter of an hour.

    Raises:
        Problem: ``not-found``, ``forbidden``.
    """
    comment = _find(session, load_seen(session, actor, article_id, lock=True), comment_id)
    if not permissions.may_change_comment(
        actor, author_id=comment.author_id, age=(now - comment.created_at).total_seconds()
    ):
        raise Problem("forbidden")
    if comment.body != body:
        comment.body, comment.edited_at = body, now
    session.flush()


def remove(session: Session, actor: Actor, article_id: int, comment_id: int, *, now: datetime) -> None:
    """Remove the text of a comment; that there was one stays visible.

    Raises:
        Problem: ``not-found``, ``forbidden``.
    """
    comment = _find(session, load_seen(session, actor, article_id, lock=True), comment_id)
    if not permissions.may_remove_comment(actor, author_id=comment.author_id):
        raise Problem("forbidden")
    comment.body, comment.deleted_at = "", now
    session.flush()


def mentioned(session: Session, actor: Actor, article: Article, body: str) -> tuple[int, ...]:
    """Return the ids of other active users whom a text mentions (``@sato``) and who may see the article."""
    names = list(dict.fromkeys(MENTION.findall(body)))[:_MOST_MENTIONED]
    if not names:
        return ()
    asked = select_readers(article.id).where(User.username.in_(names), User.id != actor.id)
    return tuple(session.scalars(asked))


def names_in(session: Session, bodies: Iterable[str]) -> dict[str, str]:
    """Return the display names of the users whom the texts mention, by user name."""
    names = {name for body in bodies for name in MENTION.findall(body)}
    if not names:
        return {}
    rows = session.execute(select(User.username, User.display_name).where(User.username.in_(names)))
    return {row.username: row.display_name for row in rows}


def in_threads(comments: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return each comment with its answers; a removed comment without answers is left out."""
    answers: dict[int, list[dict[str, Any]]] = {}
    for comment in comments:
        if comment.get("parent_id") and not comment.get("deleted"):
            answers.setdefault(comment["parent_id"], []).append(comment)
    return [
        (comment, answers.get(comment["id"], []))
        for comment in comments
        if not comment.get("parent_id") and (not comment.get("deleted") or comment["id"] in answers)
    ]


def _find(session: Session, article: Article, comment_id: int) -> Comment:
    comment = session.get(Comment, comment_id) if 0 < comment_id <= MAX_ID else None
    if comment is None or comment.article_id != article.id or comment.deleted_at is not None:
        raise Problem("not-found")
    return comment
