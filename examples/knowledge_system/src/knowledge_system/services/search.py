"""Which search the articles use: the library's, or a plain LIKE where the database area is switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import Select, literal, or_, select

from knowledge_system.models import Article

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = ["PlainSearch", "SearchIndex"]


class SearchIndex(Protocol):
    """What the articles need of ``mks_hardening.db.JapaneseSearch``."""

    def create(self, bind: Session | Connection) -> None:
        """Create the index unless it exists."""
        ...

    def index(
        self, bind: Session | Connection, document_id: int, *, title: str | None, body: str | None = None
    ) -> None:
        """Put a document into the index or replace it."""
        ...

    def matching(self, bind: Session | Connection, query: str) -> Select[Any]:
        """Select ``document_id`` and ``score`` of what matches."""
        ...


class PlainSearch:
    """Substring search without an index: no half-width kana, no ranking, and slow on many articles."""

    def create(self, bind: Session | Connection) -> None:
        """Nothing to create."""

    def index(
        self, bind: Session | Connection, document_id: int, *, title: str | None, body: str | None = None
    ) -> None:
        """Nothing to keep."""

    def matching(self, bind: Session | Connection, query: str) -> Select[Any]:
        """Articles that hold every word of the query somewhere."""
        del bind
        columns = (Article.id.label("document_id"), literal(0).label("score"))
        found = cast("Select[Any]", select(*columns))
        for word in query.split()[:10]:
            texts = (Article.title, Article.summary, Article.body)
            found = found.where(or_(*(text.contains(word, autoescape=True) for text in texts)))
        return found
