"""Cached reading of articles: lists with filter, search and pagination, and single articles.

What is the same for all users is cached: a search costs the database many times as much as the rest of the request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, String, cast, func, select
from sqlalchemy.orm import Session

from knowledge_system.domain import markdown, permissions, snippets
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.models import Article
from knowledge_system.services.attachments import attachment_texts
from knowledge_system.services.knowledge import article_queries, comments, following
from knowledge_system.services.knowledge.article_queries import ArticleFilter
from knowledge_system.services.knowledge.search import matching
from knowledge_system.services.page_reads import PageReads
from knowledge_system.services.visibility import read_by
from mks_hardening.cache import cached
from mks_hardening.db import InvalidCursorError, SearchIndex, SearchQueryError, keyset_page

MOST: Final = 10_000
"""Upper limit when counting articles."""
_SUGGESTED = 8
_CONSIDERED = 200
_NO_ARTICLES: Final = dict.fromkeys(permissions.CATEGORIES, 0)
_TAG = "articles"
_EVERY_ARTICLE = "every-article"
_computed: ContextVar[bool] = ContextVar("computed", default=False)


def _reader(groups: Iterable[int]) -> Actor:
    """Return a reader in these groups, for whom entries of the cache are computed.

    Lists of published and retired articles are the same for all users in the same groups; lists of drafts depend on
    the user and are not cached.
    """
    return Actor(0, "", "", "viewer", groups=frozenset(groups))


_ORDERS: Final[dict[str, tuple[Any, ...]]] = {
    "newest": (Article.updated_at.desc(), Article.id.desc()),
    "confirmed": (func.coalesce(Article.confirmed_at, Article.created_at).desc(), Article.id.desc()),
}
"""Search results are sorted by relevance unless one of these orders is requested."""


class ListQuery(NamedTuple):
    """Filter, search query and sort order of a list."""

    filter: ArticleFilter = ArticleFilter()
    query: str = ""
    sort: str = ""


class RenderedArticle(NamedTuple):
    """An article as the actor may see it, its text as HTML, and anchor and text of each heading."""

    article: dict[str, Any]
    html: str
    headings: list[tuple[str, str]]


class ArticleReader:
    """Reads articles and lists of articles through the cache.

    Args:
        reads: runs queries on a replica or on the primary.
        cache: any cache of ``mks_hardening.cache``.
        search: full-text search.
        page_size: articles per page.
        ttl: seconds until a cached page expires, unless an edit invalidates it earlier.
    """

    def __init__(
        self,
        reads: PageReads,
        *,
        cache: Any,
        search: SearchIndex,
        page_size: int = 20,
        ttl: float = 300,
    ) -> None:
        self._reads = reads
        self._cache = cache
        self._ttl = ttl
        self._search = search
        self.page_size = page_size
        self._shared_page = cached(cache=cache, ttl=ttl, key_prefix="articles", tags=(_TAG,))(
            self._read_shared_page
        )
        self._shared_article = cached(cache=cache, ttl=ttl, key_prefix="article-data", tags=_article_tags)(
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
        """Return a page as ``{"items": [...], "next": cursor or None, "total": …}``, and whether it was cached.

        Raises:
            Problem: ``bad-cursor``.
        """
        if not wanted.same_for_everybody:
            asked = ListQuery(wanted, query, sort)
            return self._reads.run(lambda session: self.read_page(session, actor, asked, after=after)), False
        _computed.set(False)
        groups = tuple(sorted(actor.groups))
        return self._shared_page(*wanted, query, sort, after, groups), not _computed.get()

    def read_page(
        self,
        session: Session,
        actor: Actor,
        asked: ListQuery,
        *,
        after: str | None = None,
        number: int | None = None,
    ) -> dict[str, Any]:
        """Read a page from the database, by cursor or by page number.

        ``total`` is counted up to ``MOST``. A page of a search by number has ``categories``: how many articles the
        search finds in each, whatever category it is limited to.

        Raises:
            Problem: ``bad-cursor``.
        """
        # Only ids are sorted; the rows are read for the twenty on the page. Sorting thousands of full rows
        # costs more.
        following: str | None = None
        categories: dict[str, int] | None = None
        if asked.query and number is not None:
            ids, categories = self._searched(session, actor, asked, number)
            in_category = categories.get(asked.filter.category, 0)
            total = min(in_category if asked.filter.category else sum(categories.values()), MOST)
        elif number is not None:
            ids, total = self._numbered(session, actor, asked, number)
        else:
            chosen, order = self._chosen(session, actor, asked)
            try:
                page = keyset_page(chosen, order_by=order, after=after, limit=self.page_size)
                fetched = page.fetch(session)
            except InvalidCursorError as error:
                raise Problem("bad-cursor") from error
            ids, following = fetched.items, fetched.next_cursor
            total = session.scalar(_counted(chosen)) or 0
        items = article_queries.summaries(session, ids, with_text=bool(asked.query))
        if asked.query:
            files = attachment_texts.find_in(session, ids, asked.query)
            items = [
                {**_with_places(item, asked.query), "files": files.get(item["id"], [])} for item in items
            ]
        shown = {"items": items, "next": following, "total": total}
        return shown if categories is None else {**shown, "categories": categories}

    def ids(self, actor: Actor, asked: ListQuery, *, most: int, skip: int = 0) -> list[int]:
        """Return up to ``most`` matching ids in ascending order, after skipping the first ``skip``.

        In any other order, an edit between two calls would move an article.
        """
        with self._reads.sessions() as session:
            chosen, _ = self._chosen(session, actor, asked)
            return list(session.scalars(chosen.order_by(Article.id).offset(skip).limit(most)))

    def _chosen(self, session: Session, actor: Actor, asked: ListQuery) -> tuple[Select[Any], list[Any]]:
        """Return the query for the matching ids, and their order."""
        chosen, order = article_queries.selection(actor, asked.filter), list(_ORDERS["newest"])
        if asked.query:
            try:
                found = matching(self._search, session, asked.query).subquery("found")
            except SearchQueryError as error:
                raise Problem("invalid", errors=[FieldError("q", "too-long", 100)]) from error
            chosen = chosen.join(found, found.c.document_id == Article.id)
            order.insert(0, found.c.score.desc())
        return chosen, list(_ORDERS.get(asked.sort, order))

    def _numbered(
        self, session: Session, actor: Actor, asked: ListQuery, number: int
    ) -> tuple[list[int], int]:
        """Return the ids of a page and the total, in one statement unless the page is beyond the end."""
        chosen, order = self._chosen(session, actor, asked)
        page = chosen.add_columns(_counted(chosen).scalar_subquery().label("total")).order_by(*order)
        rows = session.execute(page.offset((number - 1) * self.page_size).limit(self.page_size)).all()
        if not rows:
            return [], 0 if number == 1 else session.scalar(_counted(chosen)) or 0
        return [row.id for row in rows], rows[0].total

    def _searched(
        self, session: Session, actor: Actor, asked: ListQuery, number: int
    ) -> tuple[list[int], dict[str, int]]:
        """Return the ids of a page of a search, and the matches per category.

        One statement, unless the page is beyond the end: a search has to find all matches for either.
        """
        category = asked.filter.category
        chosen, order = self._chosen(session, actor, _in_any_category(asked))
        keys = [each.element.label(f"key{place}") for place, each in enumerate(order)]
        hits = chosen.add_columns(Article.category, *keys).cte("hits")
        # A text such as "safety:3,quality:5", which both databases can make in a subquery of one row.
        number_in = (hits.c.category + ":" + cast(func.count(), String)).label("number_in")
        numbers = select(number_in).group_by(hits.c.category).subquery()
        counted = select(func.aggregate_strings(numbers.c.number_in, ",")).scalar_subquery()
        page = select(hits.c.id, counted.label("counted"))
        if category:
            page = page.where(hits.c.category == category)
        page = page.order_by(*(hits.c[key.name].desc() for key in keys))
        rows = session.execute(page.offset((number - 1) * self.page_size).limit(self.page_size)).all()
        if not rows:
            return [], self._per_category(session, actor, asked)
        found = (each.split(":") for each in rows[0].counted.split(","))
        return [row.id for row in rows], _NO_ARTICLES | {name: int(articles) for name, articles in found}

    def _per_category(self, session: Session, actor: Actor, asked: ListQuery) -> dict[str, int]:
        """Return how many articles a search finds in each category, whatever category it is limited to."""
        chosen, _ = self._chosen(session, actor, _in_any_category(asked))
        counted = chosen.with_only_columns(Article.category, func.count()).group_by(Article.category)
        return _NO_ARTICLES | {row[0]: row[1] for row in session.execute(counted)}

    def list_html(
        self,
        actor: Actor,
        asked: ListQuery,
        *,
        after: str | None,
        number: int,
        shown_to: tuple[str, ...],
        show: Callable[[dict[str, Any], article_queries.ArticleCounts], str],
    ) -> tuple[str, bool]:
        """Return a list rendered by ``show`` for all users in the same groups, and whether it was cached.

        Rendering the rows and the filters costs more than the rest of the request, and one entry holds both: each
        cache read is a round trip.

        Args:
            actor: the user.
            asked: filter, query and order of the list.
            after: cursor, or ``None`` for a page by number.
            number: page number.
            shown_to: what the HTML depends on besides: language, role and so on.
            show: renders a page and the numbers beside the filters.

        Raises:
            Problem: ``bad-cursor``.
        """
        computed = False

        def write() -> str:
            nonlocal computed
            computed = True
            reader, position = _reader(actor.groups), None if after else number

            page = self._reads.run(
                lambda session: self.read_page(session, reader, asked, after=after, number=position)
            )
            return show(page, self.counts_of(reader, asked, page))

        named = (*asked.filter, asked.query, asked.sort, after or "", str(number), *shown_to)
        key = _key("list", actor, *named)
        html: str = self._cache.get_or_compute(key, write, ttl=self._ttl, tags=(_TAG,))
        return html, not computed

    def counts_of(
        self, actor: Actor, asked: ListQuery, page: dict[str, Any]
    ) -> article_queries.ArticleCounts:
        """Return the numbers beside the filters: of all published articles, or of those that a search finds.

        Args:
            actor: the user.
            asked: filter and query of the list.
            page: result of ``read_page`` for them.
        """
        counts = self.counts(actor)
        if not asked.query:
            return counts
        found = page.get("categories")
        if found is None:  # a page by cursor
            found = self._reads.run(lambda session: self._per_category(session, actor, asked))
        return counts._replace(categories=found)

    def article(self, actor: Actor, article_id: int) -> dict[str, Any]:
        """Return one article with comments and history.

        Raises:
            Problem: ``not-found``, also if the actor may not see the article.
        """
        return article_queries.as_seen(actor, self._shared_article(article_id))

    def reading(self, actor: Actor, article_id: int, language: str) -> tuple[RenderedArticle, bool]:
        """Return an article and its rendered text as the actor may see them, and whether they were cached.

        Both share one cache entry: a page needs both, and each cache read is a round trip.

        Raises:
            Problem: ``not-found``, also if the actor may not see the article.
        """
        computed = False

        def read() -> dict[str, Any]:
            nonlocal computed
            computed = True
            return self._reads.run(lambda session: _rendered(session, article_id, language))

        tags = _article_tags(article_id)
        kept = self._cache.get_or_compute(
            f"article-page:{article_id}:{language}", read, ttl=self._ttl, tags=tags
        )
        article = article_queries.as_seen(actor, kept["article"])
        return RenderedArticle(article, kept["html"], kept["headings"]), not computed

    def related(self, actor: Actor, article: dict[str, Any]) -> list[dict[str, Any]]:
        """Return published articles related to the result of ``reading``."""
        found: list[dict[str, Any]] = self._cache.get_or_compute(
            _key("related", actor, str(article["id"])),
            lambda: self._reads.run(lambda session: following.related_to(session, actor, article)),
            ttl=self._ttl,
            tags=(_TAG,),  # an edit of any article may change which ones are related
        )
        return found

    def counts(self, actor: Actor) -> article_queries.ArticleCounts:
        """Return the numbers of published articles per category and per site."""
        found = self._cache.get_or_compute(
            _key("counts", actor),
            lambda: self._reads.run(lambda session: article_queries.counts(session, actor)._asdict()),
            ttl=self._ttl,
            tags=(_TAG,),
        )
        return article_queries.ArticleCounts(**found)

    def suggestions(self, actor: Actor, begun: str) -> list[dict[str, Any]]:
        """Return published articles whose title contains the text in any spelling, titles that begin with it first.

        Args:
            actor: the user.
            begun: what was typed so far.
        """
        if not self._search.normalize(begun):
            return []

        def begins(title: str) -> bool:
            return any(piece.matches for piece in self._search.excerpt(title, begun)[:1])

        def find(session: Session) -> list[dict[str, Any]]:
            found = self._search.matching(session, begun, title_only=True).subquery("found")
            asked = select(Article.id, Article.title).join(found, found.c.document_id == Article.id)
            asked = asked.where(Article.status == "published", read_by(actor.groups))
            newest = asked.order_by(Article.updated_at.desc(), Article.id.desc()).limit(_CONSIDERED)
            rows = sorted(session.execute(newest), key=lambda row: not begins(row.title))
            return [{"id": row.id, "title": row.title} for row in rows[:_SUGGESTED]]

        key = _key("suggested", actor, begun.strip())
        found: list[dict[str, Any]] = self._cache.get_or_compute(
            key, lambda: self._reads.run(find), ttl=self._ttl, tags=(_TAG,)
        )
        return found

    def forget(self, article_id: int) -> bool:
        """Invalidate an article and all list pages, after an edit was committed.

        Returns:
            Whether the cache was reached; otherwise the invalidation takes effect when the cache is available
            again.
        """
        return bool(self._cache.invalidate_tags(_TAG, f"article-{article_id}"))

    def forget_all(self) -> bool:
        """Invalidate everything; return whether the cache was reached."""
        return bool(self._cache.invalidate_tags(_TAG, _EVERY_ARTICLE))

    def _read_shared_page(self, *key: Any) -> dict[str, Any]:
        """Compute a shared page from its cache key: the filter, query, order, cursor and groups."""
        _computed.set(True)
        *wanted, query, sort, after, groups = key
        reader, asked = _reader(groups), ListQuery(ArticleFilter(*wanted), query, sort)
        return self._reads.run(lambda session: self.read_page(session, reader, asked, after=after))

    def _read_article(self, article_id: int) -> dict[str, Any]:
        return self._reads.run(lambda session: article_queries.stored(session, article_id))


def _rendered(session: Session, article_id: int, language: str) -> dict[str, Any]:
    """Return an article, its text and its comments as HTML, and its headings."""
    article = article_queries.stored(session, article_id)
    text = markdown.rendered(article["body"], language=language)
    people = comments.names_in(session, (each["body"] for each in article["comments"]))
    for each in article["comments"]:
        each["html"] = str(markdown.comment(each["body"], people, language=language))
    return {"article": article, "html": str(text.html), "headings": text.headings}


def _key(kind: str, actor: Actor, *named: str) -> str:
    """Return the key of an entry that all users in the same groups share."""
    asked = "\0".join((",".join(map(str, sorted(actor.groups))), *named))
    return f"{kind}:{hashlib.sha256(asked.encode()).hexdigest()}"


def _in_any_category(asked: ListQuery) -> ListQuery:
    return asked._replace(filter=asked.filter._replace(category=""))


def _counted(chosen: Select[Any]) -> Select[Any]:
    """Count the selected rows, up to ``MOST``."""
    return select(func.count()).select_from(chosen.limit(MOST).subquery())


def _with_places(item: dict[str, Any], query: str) -> dict[str, Any]:
    """Replace the full text of a list item by its highlighted matches."""
    return {
        **item,
        "title_pieces": snippets.marked(item["title"], query),
        "summary_pieces": snippets.marked(item["summary"], query),
        "excerpt_pieces": snippets.excerpt(item.pop("body"), query),
    }


def _article_tags(article_id: int) -> tuple[str, ...]:
    return (f"article-{article_id}", _EVERY_ARTICLE)
