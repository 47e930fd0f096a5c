"""What concerns a user on the start page: own unfinished texts, what waits for them, what they read and watch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from knowledge_system.domain import permissions
from knowledge_system.domain.permissions import Actor
from knowledge_system.models import Article, ArticleTag, Watch
from knowledge_system.services.knowledge import article_queries, following, overdue_articles, review
from knowledge_system.services.visibility import seen_by

_MOST: Final = 6


def home_parts(session: Session, actor: Actor, *, recent: Sequence[int], now: datetime) -> dict[str, Any]:
    """Return the parts of the start page.

    Args:
        session: database session.
        actor: the user.
        recent: ids of the articles read last, newest first.
        now: current time.
    """
    waiting = [each for each in review.queue(session, actor) if not each["own"]]
    seen = set(session.scalars(select(Article.id).where(Article.id.in_(recent), seen_by(actor))))
    return {
        "unfinished": _unfinished(session, actor) if permissions.may_write(actor) else [],
        "waiting": waiting[:_MOST],
        "waiting_total": len(waiting),
        "overdue": len(overdue_articles.overdue(session, actor, now=now))
        if permissions.may_write(actor)
        else 0,
        "unread": review.unread(session, actor),
        "recent": article_queries.summaries(session, [number for number in recent if number in seen]),
        "watched": _of_watches(session, actor),
        "favourites": following.favourites(session, actor)[:_MOST],
        "newest": _newest(session, actor),
    }


def _unfinished(session: Session, actor: Actor) -> list[dict[str, Any]]:
    """Return the user's drafts and articles in review, and next versions of published ones, newest first."""
    asked = (
        select(Article.id, Article.title, Article.status, Article.next_status, Article.next_revision)
        .where(
            Article.author_id == actor.id,
            seen_by(actor),
            or_(Article.status.in_(permissions.UNFINISHED), Article.next_status.is_not(None)),
        )
        .order_by(Article.updated_at.desc(), Article.id.desc())
        .limit(_MOST)
    )
    return [
        {"id": row.id, "title": row.title, "status": row.next_status or row.status, "next": row.next_revision}
        for row in session.execute(asked)
    ]


def _of_watches(session: Session, actor: Actor) -> list[dict[str, Any]]:
    """Return the newest published articles of the tags and sites that the user watches."""
    own = Watch.user_id == actor.id
    tags, sites = (select(Watch.subject).where(own, Watch.kind == kind) for kind in ("tag", "site"))
    tagged = select(ArticleTag.article_id).where(ArticleTag.name.in_(tags))
    return _newest(
        session, actor, or_(Article.id.in_(tagged), and_(Article.site != "", Article.site.in_(sites)))
    )


def _newest(session: Session, actor: Actor, *only: ColumnElement[bool]) -> list[dict[str, Any]]:
    """Return the newest published articles that meet the conditions."""
    asked = select(Article.id).where(Article.status == "published", seen_by(actor), *only)
    newest = asked.order_by(Article.updated_at.desc(), Article.id.desc()).limit(_MOST)
    return article_queries.summaries(session, session.scalars(newest).all())
