"""What concerns a user on the start page: own unfinished texts, what waits for them, what they read and watch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import Select, bindparam, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from knowledge_system.domain import permissions
from knowledge_system.domain.permissions import Actor
from knowledge_system.models import Article, ArticleTag, Watch
from knowledge_system.services.knowledge import article_queries, following, overdue_articles, review
from knowledge_system.services.visibility import read_by, seen_by

MOST: Final = 6
"""Articles in each part of the page."""


def home_parts(session: Session, actor: Actor, *, recent: Sequence[int], now: datetime) -> dict[str, Any]:
    """Return the parts of the start page, except the newest articles, which the lists have.

    Args:
        session: database session.
        actor: the user.
        recent: ids of the articles read last, newest first.
        now: current time.
    """
    # Only reviewers have something to decide on besides their own.
    waiting = (
        [each for each in review.queue(session, actor) if not each["own"]]
        if permissions.sees_all(actor)
        else []
    )
    seen = _seen_among(session, actor, recent) if recent else set[int]()
    ids = {
        "recent": [number for number in recent if number in seen],
        "watched": _of_watches(session, actor),
        "favourites": following.favourite_ids(session, actor, most=MOST),
    }
    shown = {each["id"]: each for each in article_queries.summaries(session, [*{*chain(*ids.values())}])}
    return {
        "unfinished": _unfinished(session, actor) if permissions.may_write(actor) else [],
        "waiting": waiting[:MOST],
        "waiting_total": len(waiting),
        "overdue": len(overdue_articles.overdue(session, actor, now=now))
        if permissions.may_write(actor)
        else 0,
        **{part: [shown[each] for each in found if each in shown] for part, found in ids.items()},
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
        .limit(MOST)
    )
    return [
        {"id": row.id, "title": row.title, "status": row.next_status or row.status, "next": row.next_revision}
        for row in session.execute(asked)
    ]


def _seen_among(session: Session, actor: Actor, ids: Sequence[int]) -> set[int]:
    return set(session.scalars(select(Article.id).where(Article.id.in_(ids), seen_by(actor))))


def _of_watches(session: Session, actor: Actor) -> Sequence[int]:
    """Return the ids of the newest published articles of the tags and sites that the user watches."""
    return session.connection().scalars(_select_watched(actor.groups), {"user": actor.id}).all()


@lru_cache(maxsize=64)
def _select_watched(groups: frozenset[int]) -> Select[Any]:
    """Build the statement once for users in the same groups: building it takes longer than running it."""
    own = Watch.user_id == bindparam("user")
    tags, sites = (select(Watch.subject).where(own, Watch.kind == kind) for kind in ("tag", "site"))
    of_site = aliased(Article)
    # Two index lookups; one condition with OR would scan all articles.
    watched = union_all(
        select(ArticleTag.article_id).where(ArticleTag.name.in_(tags)),
        select(of_site.id).where(of_site.site != "", of_site.site.in_(sites)),
    )
    asked = select(Article.id).where(Article.status == "published", read_by(groups), Article.id.in_(watched))
    return asked.order_by(Article.updated_at.desc(), Article.id.desc()).limit(MOST)
