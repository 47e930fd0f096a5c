"""The list of articles: filtered, searched, paged by position, cached where it is the same for everybody."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from knowledge_system.models import Article
from knowledge_system.problems import Problem
from knowledge_system.rules import Actor
from knowledge_system.services.articles import ArticleFilter, category_counts, selection, summaries

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.services.search import SearchIndex
from mks_hardening.cache import cached
from mks_hardening.db import InvalidCursorError, keyset_page

__all__ = ["Catalogue"]

_TAG = "articles"
_computed: ContextVar[bool] = ContextVar("computed", default=False)

# Whoever asks sees the same published and retired articles; drafts depend on who asks and are never cached.
_EVERYBODY = Actor(0, "", "", "viewer")


class Catalogue:
    """Pages of articles.

    Args:
        sessions: makes database sessions.
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
        self._sessions = sessions
        self._cache = cache
        self._search = search
        self._page_size = page_size
        keep = cached(cache=cache, ttl=ttl, key_prefix="articles", tags=(_TAG,))
        self._shared_page = keep(self._read_shared_page)
        self._shared_counts = keep(self._read_counts)

    def page(
        self, actor: Actor, wanted: ArticleFilter, *, query: str = "", after: str | None = None
    ) -> tuple[dict[str, Any], bool]:
        """One page as ``{"items": [...], "next": cursor or None}``, and whether it came from the cache.

        Raises:
            Problem: ``bad-cursor``.
        """
        if query or wanted.status in {"draft", "review"}:
            return self._read_page(actor, wanted, query, after), False
        _computed.set(False)
        return self._shared_page(*wanted, after), not _computed.get()

    def counts(self) -> dict[str, int]:
        """Published articles of each category."""
        return self._shared_counts()

    def forget(self) -> None:
        """Throw out every page after an edit was committed."""
        self._cache.invalidate_tags(_TAG)

    def _read_shared_page(
        self, category: str, tag: str, status: str, author: str, after: str | None
    ) -> dict[str, Any]:
        _computed.set(True)
        return self._read_page(_EVERYBODY, ArticleFilter(category, tag, status, author), "", after)

    def _read_counts(self) -> dict[str, int]:
        with self._sessions() as session:
            return category_counts(session)

    def _read_page(
        self, actor: Actor, wanted: ArticleFilter, query: str, after: str | None
    ) -> dict[str, Any]:
        chosen = selection(actor, wanted)
        order: list[Any] = [Article.updated_at.desc(), Article.id.desc()]
        with self._sessions() as session:
            if query:
                found = self._search.matching(session, query).subquery("found")
                chosen = chosen.join(found, found.c.document_id == Article.id)
                order.insert(0, found.c.score.desc())
            try:
                page = keyset_page(chosen, order_by=order, after=after, limit=self._page_size).fetch(session)
            except InvalidCursorError as error:
                raise Problem("bad-cursor") from error
            return {"items": summaries(session, page.items), "next": page.next_cursor}
