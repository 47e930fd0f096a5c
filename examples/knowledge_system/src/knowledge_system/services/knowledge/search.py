"""Article search: the library's full-text search, or ``LIKE`` if the area "db" is disabled."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import ColumnElement, Select, func, literal, or_, select, union_all

from knowledge_system.domain.search_variants import spelling_variants, split_compounds
from knowledge_system.models import Article

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = ["PlainSearch", "SearchIndex", "literal_conditions", "matching"]

_SYMBOLS = "%_+#&"
_WIDE = str.maketrans({symbol: chr(ord(symbol) + 0xFEE0) for symbol in _SYMBOLS})
_MOST_WORDS = 10


def literal_conditions(query: str) -> list[ColumnElement[bool]]:
    """Return conditions for words with ``%``, ``_``, ``+``, ``#`` or ``&``, which the index does not contain.

    Symbols match in half width and full width.
    """
    narrow = (unicodedata.normalize("NFKC", word) for word in query.split()[:_MOST_WORDS])
    texts = (Article.title, Article.summary, Article.body)
    return [
        or_(
            *(
                text.icontains(form, autoescape=True)
                for text in texts
                for form in (word, word.translate(_WIDE))
            )
        )
        for word in narrow
        if any(symbol in word for symbol in _SYMBOLS)
    ]


def matching(index: SearchIndex, bind: Session | Connection, query: str) -> Select[Any]:
    """Select ``document_id`` and ``score`` of the matches; matches of a split compound rank last."""
    compounds = split_compounds(query)
    if not compounds:
        return index.matching(bind, query)
    asked = ((query, 0), *((text, -2) for text in compounds))
    rows = union_all(*(_lowered(index.matching(bind, text), by) for text, by in asked)).subquery()
    columns = (rows.c.document_id, func.max(rows.c.score).label("score"))
    return cast("Select[Any]", select(*columns).group_by(rows.c.document_id))


def _lowered(found: Select[Any], by: int) -> Select[Any]:
    rows = found.subquery()
    columns = (rows.c.document_id, (rows.c.score + by).label("score"))
    return cast("Select[Any]", select(*columns))


class SearchIndex(Protocol):
    """The part of ``mks_hardening.db.JapaneseSearch`` that the application uses."""

    def index(
        self, bind: Session | Connection, document_id: int, *, title: str | None, body: str | None = None
    ) -> None:
        """Add a document to the index, or replace it."""
        ...

    def remove(self, bind: Session | Connection, document_id: int) -> None:
        """Remove a document from the index."""
        ...

    def matching(self, bind: Session | Connection, query: str) -> Select[Any]:
        """Select ``document_id`` and ``score`` of the documents that match each word in any spelling."""
        ...


class PlainSearch:
    """Substring search without an index: no half-width kana, no ranking, slow with many articles."""

    def index(
        self, bind: Session | Connection, document_id: int, *, title: str | None, body: str | None = None
    ) -> None:
        """Do nothing."""

    def remove(self, bind: Session | Connection, document_id: int) -> None:
        """Do nothing."""

    def matching(self, bind: Session | Connection, query: str) -> Select[Any]:
        """Select the articles that contain every word of the query in any spelling."""
        del bind
        columns = (Article.id.label("document_id"), literal(0).label("score"))
        found = cast("Select[Any]", select(*columns))
        for word in query.split()[:_MOST_WORDS]:
            texts = (Article.title, Article.summary, Article.body)
            spellings = spelling_variants(word)
            found = found.where(
                or_(*(text.contains(other, autoescape=True) for text in texts for other in spellings))
            )
        return found
