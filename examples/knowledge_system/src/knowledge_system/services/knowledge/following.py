"""Favourites, subscriptions to articles, tags and sites, and related articles."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    CompoundSelect,
    Integer,
    Select,
    and_,
    bindparam,
    delete,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from knowledge_system.domain import permissions, related_articles
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.domain.tags import key_of
from knowledge_system.models import Article, ArticleTag, Favourite, User, Watch
from knowledge_system.services.insert_if_missing import add_missing
from knowledge_system.services.knowledge import article_queries, review
from knowledge_system.services.knowledge.tags import select_canonical_tag
from knowledge_system.services.visibility import read_by, seen_by, select_readers

Event = Literal["publish", "comment", "retire"]
_MOST_FAVOURITES = 500
_MOST_WATCHES = 200
_MOST_CANDIDATES = 40
"""Candidates per kind: scoring one takes 0.05 ms."""
_RELATED = 5
_KEPT = "kept"


class Follow(NamedTuple):
    """What the user follows of the things on a page."""

    favourite: bool
    watched: frozenset[str]

    def watches(self, kind: str) -> bool:
        """Whether the user watches the article, tag or site of the page."""
        return kind in self.watched


def followed(session: Session, actor: Actor, *, article_id: int = 0, tag: str = "", site: str = "") -> Follow:
    """Return whether the article is a favourite, and which of article, tag and site the user watches.

    Uses a single statement.
    """
    values = {"user": actor.id, "article": article_id, "subject": str(article_id), "site": site}
    # Plain columns need no mapper, which takes as long as the statement itself.
    found = frozenset(session.connection().scalars(_select_followed(), {**values, "tag": key_of(tag)}))
    return Follow(_KEPT in found, found - {_KEPT})


@cache
def _select_followed() -> CompoundSelect[Any]:
    """Build the statement once: every article page runs it, and building it takes longer."""
    own = bindparam("user", type_=Integer)
    named = or_(
        and_(Watch.kind == "article", Watch.subject == bindparam("subject")),
        and_(Watch.kind == "tag", Watch.subject.in_(select_canonical_tag(bindparam("tag")))),
        and_(Watch.kind == "site", Watch.subject == bindparam("site")),
    )
    kept = Favourite.user_id == own, Favourite.article_id == bindparam("article")
    return union_all(
        select(Watch.kind).where(Watch.user_id == own, named),
        select(literal(_KEPT)).where(select(Favourite).where(*kept).exists()),
    )


def favourites(session: Session, actor: Actor) -> list[dict[str, Any]]:
    """Return the user's favourites that the user may still see, newest first."""
    return article_queries.summaries(session, favourite_ids(session, actor))


def favourite_ids(session: Session, actor: Actor, *, most: int = _MOST_FAVOURITES) -> Sequence[int]:
    """Return the ids of ``favourites``, up to ``most``."""
    asked = _select_favourites(actor.role, actor.groups)
    return session.connection().scalars(asked, {"user": actor.id, "most": most}).all()


@lru_cache(maxsize=64)
def _select_favourites(role: str, groups: frozenset[int]) -> Select[Any]:
    """Build the statement once for users with the same role and groups: that takes longer than running it."""
    user = bindparam("user", type_=Integer)
    return (
        select(Article.id)
        .join(Favourite, Favourite.article_id == Article.id)
        .where(Favourite.user_id == user, seen_by(Actor(0, "", "", role, groups=groups), user))
        .order_by(Favourite.added_at.desc(), Favourite.article_id.desc())
        .limit(bindparam("most", type_=Integer))
    )


def favour(session: Session, actor: Actor, article_id: int, *, on: bool, now: datetime) -> None:
    """Add or remove a favourite; does nothing if there is nothing to change.

    Raises:
        Problem: ``not-found``, also if the actor may not see the article; ``invalid`` beyond the maximum number.
    """
    own = Favourite.user_id == actor.id
    if not on:
        session.execute(delete(Favourite).where(own, Favourite.article_id == article_id))
        return
    _ask_whether_seen(session, actor, article_id)
    _check_limit(session, Favourite, _MOST_FAVOURITES, own, "favourite")
    add_missing(session, Favourite, [{"user_id": actor.id, "article_id": article_id, "added_at": now}])


def watch(session: Session, actor: Actor, kind: str, subject: str, *, on: bool, now: datetime) -> None:
    """Subscribe to or unsubscribe from an article, tag or site; does nothing if there is nothing to change.

    Raises:
        Problem: ``not-found`` if it does not exist or is not visible; ``invalid`` beyond the maximum number.
    """
    if kind == "tag":
        subject = session.scalar(select_canonical_tag(key_of(subject))) or subject
    own = Watch.user_id == actor.id
    if not on:
        session.execute(delete(Watch).where(own, Watch.kind == kind, Watch.subject == subject))
        return
    if kind == "article":
        if not subject.isascii() or not subject.isdecimal() or str(int(subject)) != subject:
            raise Problem("not-found")
        _ask_whether_seen(session, actor, int(subject))
    elif not session.scalar(_is_there(actor, kind, subject)):
        raise Problem("not-found")
    _check_limit(session, Watch, _MOST_WATCHES, own, "subject")
    row = {"user_id": actor.id, "kind": kind, "subject": subject, "added_at": now}
    add_missing(session, Watch, [row])


def watches(session: Session, actor: Actor) -> list[dict[str, Any]]:
    """Return the user's subscriptions; articles with their titles."""
    asked = select(Watch.kind, Watch.subject).where(Watch.user_id == actor.id)
    found = [(kind, subject) for kind, subject in session.execute(asked.order_by(Watch.added_at.desc()))]
    ids = [int(subject) for kind, subject in found if kind == "article"]
    rows = session.execute(select(Article.id, Article.title).where(Article.id.in_(ids), seen_by(actor)))
    titles = {str(row.id): row.title for row in rows}
    return [
        {"kind": kind, "subject": subject, "title": titles[subject] if kind == "article" else subject}
        for kind, subject in found
        if kind != "article" or subject in titles
    ]


def notify_subscribers(
    session: Session,
    actor: Actor,
    article_id: int,
    event: Event,
    *,
    said: str = "",
    already_notified: tuple[int, ...] = (),
    now: datetime,
) -> tuple[str, tuple[int, ...]]:
    """Create notices for subscribers of the article, and on publication for those of its tags and site.

    Args:
        session: database session with the transaction.
        actor: user who caused the event; gets no notice.
        article_id: id of the article.
        event: kind of the event.
        said: comment that belongs to the event.
        already_notified: users who are notified in another way.
        now: current time.

    Returns:
        The title of the article, and the ids of the users to mail.
    """
    article = session.get_one(Article, article_id)
    named = [and_(Watch.kind == "article", Watch.subject == str(article_id))]
    if event == "publish":
        tags = select(ArticleTag.name).where(ArticleTag.article_id == article_id)
        named.append(and_(Watch.kind == "tag", Watch.subject.in_(tags)))
        named.append(and_(Watch.kind == "site", Watch.subject == article.site))
    watching = select(Watch.user_id).where(or_(*named))
    asked = select_readers(article_id).where(
        User.id.in_(watching), User.id.not_in({actor.id, *already_notified})
    )
    readers = tuple(session.scalars(asked))
    review.notify(
        session,
        actor,
        review.ReviewEvent(article_id, article.title, f"watch-{event}", said, readers),
        now=now,
    )
    return article.title, readers


def related_to(session: Session, actor: Actor, article: dict[str, Any]) -> list[dict[str, Any]]:
    """Return related published articles that the actor may read as ``{"id": …, "title": …}``, from one statement.

    Candidates are the articles with the most shared tags, and the newest of the same site.
    """
    values = {name: article[name] for name in ("id", "site", "tags")}
    candidates = [
        related_articles.Candidate(
            row.id,
            row.title,
            f"{row.title} {row.summary}",
            row.category,
            row.site,
            frozenset((row.names or "").split("\x1f")) - {""},
        )
        for row in session.execute(_select_related(actor.groups), values)
    ]
    subject = related_articles.Candidate(
        article["id"],
        article["title"],
        f"{article['title']} {article['summary']}",
        article["category"],
        article["site"],
        frozenset(article["tags"]),
    )
    return [
        {"id": one.id, "title": one.title}
        for one in related_articles.nearest(subject, candidates, most=_RELATED)
    ]


@lru_cache(maxsize=256)
def _select_related(groups: frozenset[int]) -> Select[Any]:
    """Select the candidates of ``related_to``; cached, because building it takes longer than running it."""
    most_tags = (
        select(ArticleTag.article_id)
        .where(ArticleTag.name.in_(bindparam("tags", expanding=True)))
        .group_by(ArticleTag.article_id)
        .order_by(func.count().desc(), ArticleTag.article_id.desc())
        .limit(_MOST_CANDIDATES)
        .subquery()
    )
    same_site = (
        select(Article.id)
        .where(Article.site == bindparam("site"), Article.site != "", Article.status == "published")
        .order_by(Article.updated_at.desc(), Article.id.desc())
        .limit(_MOST_CANDIDATES)
        .subquery()
    )
    names = (
        select(func.aggregate_strings(ArticleTag.name, "\x1f"))
        .where(ArticleTag.article_id == Article.id)
        .scalar_subquery()
    )
    return select(
        Article.id, Article.title, Article.summary, Article.category, Article.site, names.label("names")
    ).where(
        # Two index lookups; one condition with OR would scan all articles.
        Article.id.in_(union_all(select(most_tags.c.article_id), select(same_site.c.id))),
        Article.id != bindparam("id"),
        Article.status == "published",
        read_by(groups),
    )


def site_page(session: Session, actor: Actor, name: str) -> dict[str, Any]:
    """Return the data of a site page: published articles by category, writers, time of the last change.

    Raises:
        Problem: ``not-found``: no published article that the actor may read belongs to the site.
    """
    of_site = (Article.site == name, Article.site != "", Article.status == "published", read_by(actor.groups))
    number = func.count().label("number")
    by_category = session.execute(
        select(Article.category, number, func.max(Article.updated_at).label("last"))
        .where(*of_site)
        .group_by(Article.category)
    ).all()
    if not by_category:
        raise Problem("not-found")
    writers = session.execute(
        select(User.username, User.display_name, number)
        .join(Article, Article.author_id == User.id)
        .where(*of_site)
        .group_by(User.id, User.username, User.display_name)
        .order_by(number.desc(), User.id)
        .limit(10)
    )
    newest = session.scalars(
        select(Article.id).where(*of_site).order_by(Article.updated_at.desc(), Article.id.desc()).limit(20)
    )
    counted = {row.category: row.number for row in by_category}
    return {
        "name": name,
        "categories": {name: counted[name] for name in permissions.CATEGORIES if name in counted},
        "total": sum(counted.values()),
        "updated_at": max(row.last for row in by_category),
        "writers": [(row.username, row.display_name, row.number) for row in writers],
        "articles": article_queries.summaries(session, newest.all()),
    }


def _ask_whether_seen(session: Session, actor: Actor, article_id: int) -> None:
    asked = select(Article.id).where(Article.id == article_id, seen_by(actor))
    asked = asked.with_for_update(read=True, key_share=True)  # wait for a concurrent deletion
    if not 0 < article_id <= article_queries.MAX_ID or session.scalar(asked) is None:
        raise Problem("not-found")


def _check_limit(session: Session, table: Any, most: int, own: Any, field: str) -> None:
    if (session.scalar(select(func.count()).select_from(table).where(own)) or 0) >= most:
        raise Problem("invalid", errors=[FieldError(field, "too-many", most)])


def _is_there(actor: Actor, kind: str, subject: str) -> Any:
    published = (Article.status == "published") & read_by(actor.groups)
    if kind == "site":
        return select(select(Article.id).where(Article.site == subject, published).exists())
    tagged = select(ArticleTag.article_id).join(Article, Article.id == ArticleTag.article_id)
    return select(tagged.where(ArticleTag.name == subject, published).exists())
