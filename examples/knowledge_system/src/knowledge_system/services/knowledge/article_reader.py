"""Articles as they are read: lists, filtered, searched, paged by position, and single ones.

What is the same for everybody comes from the cache: a search costs the database many times what the rest of the
request does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select

from knowledge_system.domain import markdown, snippets
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import Problem
from knowledge_system.models import Article
from knowledge_system.services.knowledge import article_queries, following
from knowledge_system.services.knowledge.article_queries import ArticleFilter
from knowledge_system.services.knowledge.search import literal_conditions, matching

if TYPE_CHECKING:
    import re

    from sqlalchemy import Select
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.services.knowledge.search import SearchIndex
from mks_hardening.cache import cached
from mks_hardening.db import InvalidCursorError, keyset_page

__all__ = ["MOST", "Catalogue", "Reading", "Wanted"]

MOST: Final = 10_000
"""Articles are counted this far."""
_TAG = "articles"
_EVERY_ARTICLE = "every-article"
_computed: ContextVar[bool] = ContextVar("computed", default=False)

# Whoever asks sees the same published and retired articles; drafts depend on who asks and are never cached.
_EVERYBODY = Actor(0, "", "", "viewer")


_ORDERS: Final[dict[str, tuple[Any, ...]]] = {
    "newest": (Article.updated_at.desc(), Article.id.desc()),
    "confirmed": (func.coalesce(Article.confirmed_at, Article.created_at).desc(), Article.id.desc()),
}
"""What was searched for is ordered by how well it fits, unless one of these is asked for."""


class Wanted(NamedTuple):
    """What somebody is looking for, and in which order."""

    filter: ArticleFilter = ArticleFilter()
    query: str = ""
    sort: str = ""


class Reading(NamedTuple):
    """An article as somebody may see it, its text as HTML, and anchor and text of each heading."""

    article: dict[str, Any]
    html: str
    headings: list[tuple[str, str]]


class Catalogue:
    """Pages of articles.

    Args:
        sessions: makes database sessions for reading.
        cache: any cache of ``mks_hardening.cache``.
        search: finds articles by words.
        page_size: articles on one page.
        ttl: seconds a page stays in the cache unless an edit throws it out before.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        *,
        cache: Any,
        search: SearchIndex,
        page_size: int = 20,
        ttl: float = 300,
    ) -> None:
        self.sessions = sessions
        self._cache = cache
        self._ttl = ttl
        self._search = search
        self.page_size = page_size
        self._shared_page = cached(cache=cache, ttl=ttl, key_prefix="articles", tags=(_TAG,))(
            self._read_shared_page
        )
        self._shared_article = cached(cache=cache, ttl=ttl, key_prefix="article", tags=_article_tags)(
            self._read_article
        )

    def page(
        self,
        actor: Actor,
        wanted: ArticleFilter,
        *,
        query: str = "",
        after: str | None = None,
        sort: str = "",
    ) -> tuple[dict[str, Any], bool]:
        """One page as ``{"items": [...], "next": cursor or None, "total": …}``, and whether it came from the cache.

        Raises:
            Problem: ``bad-cursor``.
        """
        if not wanted.same_for_everybody:
            with self.sessions() as session:
                return self.read_page(session, actor, Wanted(wanted, query, sort), after=after), False
        _computed.set(False)
        return self._shared_page(*wanted, query, sort, after), not _computed.get()

    def read_page(
        self,
        session: Session,
        actor: Actor,
        asked: Wanted,
        *,
        after: str | None = None,
        number: int | None = None,
    ) -> dict[str, Any]:
        """One page from the database: the one behind a cursor, or the one with this number.

        ``total`` counts to ``MOST`` at most.

        Raises:
            Problem: ``bad-cursor``.
        """
        chosen, order = self._chosen(session, actor, asked)
        # The articles themselves are read when it is known which twenty: sorting thousands of them costs more.
        following: str | None = None
        if number is None:
            try:
                page = keyset_page(chosen, order_by=order, after=after, limit=self.page_size)
                fetched = page.fetch(session)
            except InvalidCursorError as error:
                raise Problem("bad-cursor") from error
            ids, following = fetched.items, fetched.next_cursor
            total = session.scalar(_counted(chosen)) or 0
        else:
            ids, total = self._numbered(session, chosen, order, number, whole=bool(asked.query))
        items = article_queries.summaries(session, ids, with_text=bool(asked.query))
        if asked.query:
            pattern = snippets.pattern_of(asked.query)
            items = [_with_places(item, pattern) for item in items]
        return {"items": items, "next": following, "total": total}

    def ids(self, actor: Actor, asked: Wanted, *, most: int, skip: int = 0) -> list[int]:
        """The ids of what is wanted, lowest first: at most so many, behind the first ``skip``.

        An edit between two calls moves an article in every other order.
        """
        with self.sessions() as session:
            chosen, _ = self._chosen(session, actor, asked)
            return list(session.scalars(chosen.order_by(Article.id).offset(skip).limit(most)))

    def _chosen(self, session: Session, actor: Actor, asked: Wanted) -> tuple[Select[Any], list[Any]]:
        """The ids of what is wanted, and their order."""
        chosen, order = article_queries.selection(actor, asked.filter), list(_ORDERS["newest"])
        if asked.query:
            literal = literal_conditions(asked.query)
            chosen = chosen.where(*literal)
            if not literal or any(letter.isalnum() for letter in asked.query):
                found = matching(self._search, session, asked.query).subquery("found")
                chosen = chosen.join(found, found.c.document_id == Article.id)
                order.insert(0, found.c.score.desc())
        return chosen, list(_ORDERS.get(asked.sort, order))

    def _numbered(
        self, session: Session, chosen: Select[Any], order: list[Any], number: int, *, whole: bool
    ) -> tuple[list[int], int]:
        """The ids of a page, and how many articles there are, in one statement unless the page is beyond the end.

        A search has to find all anyway; of a list, an index gives the first twenty and the number.
        """
        total = func.count().over() if whole else _counted(chosen).scalar_subquery()
        page = chosen.add_columns(total.label("total")).order_by(*order)
        rows = session.execute(page.offset((number - 1) * self.page_size).limit(self.page_size)).all()
        if not rows:
            return [], 0 if number == 1 else session.scalar(_counted(chosen)) or 0
        return [row.id for row in rows], min(rows[0].total, MOST)

    def rows(
        self,
        session: Session,
        asked: Wanted,
        *,
        after: str | None,
        number: int,
        language: str,
        show: Callable[[dict[str, Any]], str],
    ) -> tuple[dict[str, Any], bool]:
        """One page as ``show`` writes it, for everybody: ``{"html": …, "total": …}``, and whether from the cache.

        Writing twenty rows costs more than all the rest of the request.

        Raises:
            Problem: ``bad-cursor``.
        """
        computed = False

        def write() -> dict[str, Any]:
            nonlocal computed
            computed = True
            page = self.read_page(session, _EVERYBODY, asked, after=after, number=None if after else number)
            return {"html": show(page), "total": page["total"]}

        named = "\0".join((*asked.filter, asked.query, asked.sort, after or "", str(number), language))
        key = f"rows:{hashlib.sha256(named.encode()).hexdigest()}"
        written: dict[str, Any] = self._cache.get_or_compute(key, write, ttl=self._ttl, tags=(_TAG,))
        return written, not computed

    def article(self, actor: Actor, article_id: int) -> dict[str, Any]:
        """One article with comments and history.

        Raises:
            Problem: ``not-found``, also for an article the actor may not see.
        """
        return article_queries.as_seen(actor, self._shared_article(article_id))

    def reading(self, session: Session, actor: Actor, article_id: int, language: str) -> tuple[Reading, bool]:
        """An article and its text as this person may see them, and whether they came from the cache.

        They are kept together: a page needs both, and each look into the cache is a round trip.

        Raises:
            Problem: ``not-found``, also for an article the actor may not see.
        """
        computed = False

        def read() -> dict[str, Any]:
            nonlocal computed
            computed = True
            article = article_queries.stored(session, article_id)
            text = markdown.rendered(article["body"], language=language)
            return {"article": article, "html": str(text.html), "headings": text.headings}

        tags = _article_tags(article_id)
        kept = self._cache.get_or_compute(f"reading:{article_id}:{language}", read, ttl=self._ttl, tags=tags)
        article = article_queries.as_seen(actor, kept["article"])
        return Reading(article, kept["html"], kept["headings"]), not computed

    def related(self, session: Session, article: dict[str, Any]) -> list[dict[str, Any]]:
        """Published articles that belong to one that ``reading`` gave."""
        found: list[dict[str, Any]] = self._cache.get_or_compute(
            f"related:{article['id']}",
            lambda: following.related_to(session, article),
            ttl=self._ttl,
            tags=(_TAG,),  # which articles are near changes with any of them
        )
        return found

    def counts(self, session: Session) -> article_queries.Counts:
        """Published articles of each category and of each site."""
        found = self._cache.get_or_compute(
            "counts", lambda: article_queries.counts(session)._asdict(), ttl=self._ttl, tags=(_TAG,)
        )
        return article_queries.Counts(**found)

    def forget(self, article_id: int) -> bool:
        """Throw out an article and every page of a list, after an edit was committed.

        Returns:
            Whether the cache could be told at once; where it could not, it is told as soon as it is back.
        """
        return bool(self._cache.invalidate_tags(_TAG, f"article-{article_id}"))

    def forget_all(self) -> bool:
        """Throw out everything; whether the cache could be told at once."""
        return bool(self._cache.invalidate_tags(_TAG, _EVERY_ARTICLE))

    def _read_shared_page(self, *key: Any) -> dict[str, Any]:
        """The key is all there is to know: the filter, then query, order and position."""
        _computed.set(True)
        *wanted, query, sort, after = key
        with self.sessions() as session:
            return self.read_page(
                session, _EVERYBODY, Wanted(ArticleFilter(*wanted), query, sort), after=after
            )

    def _read_article(self, article_id: int) -> dict[str, Any]:
        with self.sessions() as session:
            return article_queries.stored(session, article_id)


def _counted(chosen: Select[Any]) -> Select[Any]:
    """Counts what was chosen, and stops at ``MOST``."""
    return select(func.count()).select_from(chosen.limit(MOST).subquery())


def _with_places(item: dict[str, Any], pattern: re.Pattern[str] | None) -> dict[str, Any]:
    """An article of a list with what of it was searched for, in the place of its whole text."""
    excerpt = snippets.excerpt(item.pop("body"), pattern)
    return {
        **item,
        **{
            f"{name}_pieces": [piece._asdict() for piece in snippets.marked(text, pattern)]
            for name, text in (("title", item["title"]), ("summary", item["summary"]), ("excerpt", excerpt))
        },
    }


def _article_tags(article_id: int) -> tuple[str, ...]:
    return (f"article-{article_id}", _EVERY_ARTICLE)
