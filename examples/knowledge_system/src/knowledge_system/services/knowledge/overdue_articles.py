"""Overdue articles, which nobody has confirmed for too long, and reminders to their authors."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session, joinedload

from knowledge_system.domain import permissions
from knowledge_system.domain.permissions import Actor
from knowledge_system.models import Article, Notice
from knowledge_system.services.visibility import groups_of, read_by, seen_by

CONFIRM_EVERY = timedelta(days=365)
"""How long a published article counts as confirmed."""
_REMIND_EVERY = timedelta(days=30)
_MOST_IN_A_MAIL = 50


class Reminder(NamedTuple):
    """The overdue articles of one author."""

    author_id: int
    titles: tuple[str, ...]


def overdue(session: Session, actor: Actor, *, now: datetime) -> list[dict[str, Any]]:
    """Return published articles to confirm, longest overdue first: all for reviewers, their own for writers."""
    asked = (
        select(Article)
        .where(_is_overdue(now), seen_by(actor))
        .options(joinedload(Article.author))
        .order_by(Article.confirmed_at, Article.id)
        .limit(200)
    )
    if not permissions.sees_all(actor):
        asked = asked.where(Article.author_id == actor.id)
    return [
        {
            "id": article.id,
            "title": article.title,
            "category": article.category,
            "author": article.author.display_name,
            "confirmed_at": article.confirmed_at,
        }
        for article in session.scalars(asked)
    ]


def remind(session: Session, *, now: datetime) -> list[Reminder]:
    """Create a notice for the author of each overdue article, unless there is one from the last 30 days.

    Authors who may not read an article any more are not reminded of it.
    """
    already_reminded = exists().where(
        Notice.article_id == Article.id,
        Notice.user_id == Article.author_id,
        Notice.kind == "overdue",
        Notice.created_at > now - _REMIND_EVERY,
    )
    asked = (
        select(Article.id, Article.author_id, Article.title)
        .where(_is_overdue(now), ~already_reminded, read_by(groups_of(Article.author_id)))
        .order_by(Article.confirmed_at, Article.id)
    )
    by_author: dict[int, list[str]] = defaultdict(list)
    for article_id, author_id, title in session.execute(asked).all():
        by_author[author_id].append(title)
        session.add(
            Notice(
                user_id=author_id,
                article_id=article_id,
                actor_id=author_id,
                kind="overdue",
                said="",
                created_at=now,
            )
        )
    return [
        Reminder(author_id, tuple(titles[:_MOST_IN_A_MAIL]))
        for author_id, titles in sorted(by_author.items())
    ]


def _is_overdue(now: datetime) -> ColumnElement[bool]:
    return (Article.status == "published") & (Article.confirmed_at < now - CONFIRM_EVERY)
