"""What people follow: favourites to find again, and articles, tags and sites of which they want to hear."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sqlalchemy import and_, delete, func, literal, or_, select, union_all

from knowledge_system.domain import permissions, related_articles
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import FieldFault, Problem
from knowledge_system.models import Article, ArticleTag, Favourite, Notice, User, Watch
from knowledge_system.services.insert_if_missing import add_missing
from knowledge_system.services.knowledge import article_queries
from knowledge_system.services.knowledge.tags import kept_spelling

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "Event",
    "Follow",
    "favour",
    "favourites",
    "followed",
    "related_to",
    "site_page",
    "tell_watchers",
    "watch",
    "watches",
]

Event = Literal["publish", "comment", "retire"]
_MOST_FAVOURITES = 500
_MOST_WATCHES = 200
_MOST_CANDIDATES = 40
"""Of each kind: weighing one costs a twentieth of a millisecond."""
_RELATED = 5
_KEPT = "kept"


class Follow(NamedTuple):
    """What somebody follows of what a page shows."""

    favourite: bool
    watched: frozenset[str]

    def watches(self, kind: str) -> bool:
        """Whether the article, the tag or the site of the page."""
        return kind in self.watched


def followed(session: Session, actor: Actor, *, article_id: int = 0, tag: str = "", site: str = "") -> Follow:
    """Whether the person keeps the article, and what of these he or she watches, in one statement."""
    named = or_(
        and_(Watch.kind == "article", Watch.subject == str(article_id)),
        and_(Watch.kind == "tag", Watch.subject.in_(kept_spelling(tag))),
        and_(Watch.kind == "site", Watch.subject == site),
    )
    kept = Favourite.user_id == actor.id, Favourite.article_id == article_id
    asked = union_all(
        select(Watch.kind).where(Watch.user_id == actor.id, named),
        select(literal(_KEPT)).where(select(Favourite).where(*kept).exists()),
    )
    found = frozenset(session.scalars(asked))
    return Follow(_KEPT in found, found - {_KEPT})


def favourites(session: Session, actor: Actor) -> list[dict[str, Any]]:
    """The favourites of a person that he or she may still see, newest first."""
    asked = (
        select(Article.id, Article.author_id, Article.status)
        .join(Favourite, Favourite.article_id == Article.id)
        .where(Favourite.user_id == actor.id)
        .order_by(Favourite.added_at.desc(), Favourite.article_id.desc())
    )
    ids = [
        row.id
        for row in session.execute(asked)
        if permissions.may_see(actor, author_id=row.author_id, status=row.status)
    ]
    return article_queries.summaries(session, ids)


def favour(session: Session, actor: Actor, article_id: int, *, on: bool, now: datetime) -> None:
    """Keep an article among the favourites, or no longer; harmless when it is so already.

    Raises:
        Problem: ``not-found``, also for an article the actor may not see; ``invalid`` for more than fit.
    """
    own = Favourite.user_id == actor.id
    if not on:
        session.execute(delete(Favourite).where(own, Favourite.article_id == article_id))
        return
    _ask_whether_seen(session, actor, article_id)
    _ask_for_room(session, Favourite, _MOST_FAVOURITES, own, "favourite")
    add_missing(session, Favourite, [{"user_id": actor.id, "article_id": article_id, "added_at": now}])


def watch(session: Session, actor: Actor, kind: str, subject: str, *, on: bool, now: datetime) -> None:
    """Hear of an article, a tag or a site from now on, or no longer; harmless when it is so already.

    Raises:
        Problem: ``not-found`` for what is not there or not to be seen; ``invalid`` for more than fit.
    """
    if kind == "tag":
        subject = session.scalar(kept_spelling(subject)) or subject
    own = Watch.user_id == actor.id
    if not on:
        session.execute(delete(Watch).where(own, Watch.kind == kind, Watch.subject == subject))
        return
    if kind == "article":
        if not subject.isascii() or not subject.isdecimal() or str(int(subject)) != subject:
            raise Problem("not-found")
        _ask_whether_seen(session, actor, int(subject))
    elif not session.scalar(_is_there(kind, subject)):
        raise Problem("not-found")
    _ask_for_room(session, Watch, _MOST_WATCHES, own, "subject")
    row = {"user_id": actor.id, "kind": kind, "subject": subject, "added_at": now}
    add_missing(session, Watch, [row])


def watches(session: Session, actor: Actor) -> list[dict[str, Any]]:
    """What a person watches; articles by their title."""
    asked = select(Watch.kind, Watch.subject).where(Watch.user_id == actor.id)
    found = [(kind, subject) for kind, subject in session.execute(asked.order_by(Watch.added_at.desc()))]
    ids = [int(subject) for kind, subject in found if kind == "article"]
    rows = session.execute(
        select(Article.id, Article.title, Article.author_id, Article.status).where(Article.id.in_(ids))
    )
    titles = {
        str(row.id): row.title
        for row in rows
        if permissions.may_see(actor, author_id=row.author_id, status=row.status)
    }
    return [
        {"kind": kind, "subject": subject, "title": titles[subject] if kind == "article" else subject}
        for kind, subject in found
        if kind != "article" or subject in titles
    ]


def tell_watchers(
    session: Session,
    actor: Actor,
    article_id: int,
    event: Event,
    *,
    said: str = "",
    told: tuple[int, ...] = (),
    now: datetime,
) -> tuple[str, tuple[int, ...]]:
    """Leave a notice for those who watch the article, or one of its tags or its site when it is published.

    Args:
        session: with the transaction.
        actor: who did it, and needs no notice.
        article_id: of which article.
        event: what happened.
        said: with it.
        told: people who hear of it otherwise.
        now: when.

    Returns:
        The title, and whom to write.
    """
    article = session.get_one(Article, article_id)
    named = [and_(Watch.kind == "article", Watch.subject == str(article_id))]
    if event == "publish":
        tags = select(ArticleTag.name).where(ArticleTag.article_id == article_id)
        named.append(and_(Watch.kind == "tag", Watch.subject.in_(tags)))
        named.append(and_(Watch.kind == "site", Watch.subject == article.site))
    asked = (
        select(User.id, User.username, User.display_name, User.role)
        .join(Watch, Watch.user_id == User.id)
        .where(User.active, or_(*named))
        .distinct()
        .order_by(User.id)
    )
    readers = tuple(
        reader.id
        for reader in (Actor(*row) for row in session.execute(asked))
        if reader.id not in {actor.id, *told}
        and permissions.may_see(reader, author_id=article.author_id, status=article.status)
    )
    session.add_all(
        Notice(
            user_id=reader,
            article_id=article_id,
            actor_id=actor.id,
            kind=f"watch-{event}",
            said=said,
            created_at=now,
        )
        for reader in readers
    )
    return article.title, readers


def related_to(session: Session, article: dict[str, Any]) -> list[dict[str, Any]]:
    """Published articles that belong to this one, as ``{"id": …, "title": …}``, read in one statement.

    Candidates are those with most shared tags, and the newest of the site.
    """
    most_tags = (
        select(ArticleTag.article_id)
        .where(ArticleTag.name.in_(article["tags"]))
        .group_by(ArticleTag.article_id)
        .order_by(func.count().desc(), ArticleTag.article_id.desc())
        .limit(_MOST_CANDIDATES)
        .subquery()
    )
    same_site = (
        select(Article.id)
        .where(Article.site == article["site"], Article.site != "", Article.status == "published")
        .order_by(Article.updated_at.desc(), Article.id.desc())
        .limit(_MOST_CANDIDATES)
        .subquery()
    )
    names = (
        select(func.aggregate_strings(ArticleTag.name, "\x1f"))
        .where(ArticleTag.article_id == Article.id)
        .scalar_subquery()
    )
    asked = select(
        Article.id, Article.title, Article.summary, Article.category, Article.site, names.label("names")
    ).where(
        # Two look-ups in indexes; one condition with OR reads every article.
        Article.id.in_(union_all(select(most_tags.c.article_id), select(same_site.c.id))),
        Article.id != article["id"],
        Article.status == "published",
    )
    candidates = [
        related_articles.Candidate(
            row.id,
            row.title,
            f"{row.title} {row.summary}",
            row.category,
            row.site,
            frozenset((row.names or "").split("\x1f")) - {""},
        )
        for row in session.execute(asked)
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


def site_page(session: Session, name: str) -> dict[str, Any]:
    """A site: its published articles by category, who writes there, and when something changed last.

    Raises:
        Problem: ``not-found``: no published article names it.
    """
    of_site = (Article.site == name, Article.site != "", Article.status == "published")
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
    asked = select(Article.author_id, Article.status).where(Article.id == article_id)
    asked = asked.with_for_update(read=True, key_share=True)  # one that is being removed is waited for
    row = session.execute(asked).first() if 0 < article_id <= article_queries.MAX_ID else None
    if row is None or not permissions.may_see(actor, author_id=row.author_id, status=row.status):
        raise Problem("not-found")


def _ask_for_room(session: Session, table: Any, most: int, own: Any, field: str) -> None:
    if (session.scalar(select(func.count()).select_from(table).where(own)) or 0) >= most:
        raise Problem("invalid", faults=[FieldFault(field, "too-many", most)])


def _is_there(kind: str, subject: str) -> Any:
    published = Article.status == "published"
    if kind == "site":
        return select(select(Article.id).where(Article.site == subject, published).exists())
    tagged = select(ArticleTag.article_id).join(Article, Article.id == ArticleTag.article_id)
    return select(tagged.where(ArticleTag.name == subject, published).exists())
