"""Full-text search that finds Japanese words of one and two characters, on SQLite and PostgreSQL alike.

Trigram indexes cannot see a two-character word, and most Japanese technical words have two. So the
application makes the grams itself, from text normalised by NFKC and case folding: every pair of neighbouring
characters of a run of letters or digits, and the last character alone. SQLite keeps them in an FTS5 table,
PostgreSQL in an array with a GIN index. What a user types only ever becomes grams and bound parameters, never an
operator.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mks_hardening._core.lazy import optional
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select, TextClause
    from sqlalchemy.orm import Session

__all__ = ["JapaneseSearch", "SearchHit", "normalize_text"]

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_RUN: Final = re.compile(r"[^\W_]+")
_LONGEST_QUERY: Final = 200
_MOST_TERMS: Final = 10


class SearchHit(NamedTuple):
    """One document found; ``score`` is the number of terms that stand in its title."""

    document_id: int
    score: int


def normalize_text(text: str | None) -> str:
    """Runs of letters and digits, separated by single blanks, in one spelling (NFKC, case folded)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text or "").casefold())
    return " ".join(_RUN.findall(folded))


def _grams(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run))]


def _terms(query: str) -> list[str]:
    """The runs of a query, each once; a document must hold all of them."""
    return list(dict.fromkeys(normalize_text(query[:_LONGEST_QUERY]).split()))[:_MOST_TERMS]


class JapaneseSearch:
    """An index beside the application's own table, kept by the application in its own transaction.

    Args:
        name: name of the index table: lower-case ASCII letters, digits and underscores, at most 40.

    Raises:
        ConfigurationError: the name is not such a name.
        MissingDependencyError: SQLAlchemy is not installed.
    """

    def __init__(self, name: str) -> None:
        with optional("sqlalchemy", extra="db"):
            import sqlalchemy  # noqa: F401 - only to fail early
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                "name must be at most 40 lower-case ASCII letters, digits and underscores", parameter="name"
            )
        self._name = name

    def create(self, bind: Session | Connection) -> None:
        """Create table and index unless they exist, in the caller's transaction."""
        from sqlalchemy import text

        for statement in self._ddl(_dialect(bind)):
            bind.execute(text(statement))

    def drop(self, bind: Session | Connection) -> None:
        """Drop the table if it exists, in the caller's transaction."""
        from sqlalchemy import text

        bind.execute(text(f"DROP TABLE IF EXISTS {self._name}"))

    def index(
        self, bind: Session | Connection, document_id: int, *, title: str | None, body: str | None = None
    ) -> None:
        """Put a document into the index, or replace what it holds of it, in the caller's transaction."""
        dialect = _dialect(bind)
        title, body = normalize_text(title), normalize_text(body)
        whole = f"{title} {body}".strip()
        grams = [gram for run in whole.split() for gram in _grams(run)]
        stored = " ".join(grams) if dialect == "sqlite" else sorted({*grams, *whole} - {" "})
        self.remove(bind, document_id)
        bind.execute(
            self._insert(dialect), {"id": document_id, "title": title, "whole": whole, "grams": stored}
        )

    def remove(self, bind: Session | Connection, document_id: int) -> None:
        """Take a document out of the index; harmless when it is not in it."""
        from sqlalchemy import text

        id_column = "rowid" if _dialect(bind) == "sqlite" else "document_id"
        bind.execute(text(f"DELETE FROM {self._name} WHERE {id_column} = :id"), {"id": document_id})  # noqa: S608 - checked name

    def search(self, bind: Session | Connection, query: str, *, limit: int = 50) -> list[SearchHit]:
        """The best documents that hold every word of ``query``: most words in the title first, then newest id.

        A query without a letter or digit finds nothing.
        """
        from sqlalchemy import desc

        found = self.matching(bind, query)
        ordered = found.order_by(desc("score"), desc("document_id")).limit(limit)
        return [SearchHit(row.document_id, row.score) for row in bind.execute(ordered)]

    def matching(self, bind: Session | Connection, query: str) -> Select[tuple[int, int]]:
        """A select of ``document_id`` and ``score``, to be joined to the caller's own select."""
        from sqlalchemy import Integer, case, cast, column, false, func, literal, select, table

        sqlite = _dialect(bind) == "sqlite"
        document_id = column("rowid" if sqlite else "document_id", Integer).label("document_id")
        source = table(self._name, column("title"), column("whole"))
        terms = _terms(query)
        position = func.instr if sqlite else func.strpos
        in_title = (case((position(source.c.title, term) > 0, 1), else_=0) for term in terms)
        score = cast(sum(in_title, literal(0)), Integer).label("score")
        found: Select[tuple[int, int]] = select(document_id, score).select_from(source)  # type: ignore[assignment]  # 2.0 and 2.1 type it differently
        if not terms:
            return found.where(false())
        if sqlite:
            return found.where(column(self._name).op("MATCH")(_fts5_query(terms)))
        return found.where(_array_contains(terms), *(func.strpos(source.c.whole, term) > 0 for term in terms))

    def _ddl(self, dialect: str) -> list[str]:
        if dialect == "sqlite":
            # The ascii tokenizer takes every other character as a letter, whatever SQLite knows of Unicode.
            columns = "grams, title UNINDEXED, whole UNINDEXED, tokenize = 'ascii', columnsize = 0"
            return [f"CREATE VIRTUAL TABLE IF NOT EXISTS {self._name} USING fts5({columns})"]
        columns = (
            "document_id bigint PRIMARY KEY, title text NOT NULL, whole text NOT NULL, grams text[] NOT NULL"
        )
        return [
            f"CREATE TABLE IF NOT EXISTS {self._name} ({columns})",
            f"CREATE INDEX IF NOT EXISTS {self._name}_grams ON {self._name} USING gin (grams)",
        ]

    def _insert(self, dialect: str) -> TextClause:
        from sqlalchemy import text

        id_column = "rowid" if dialect == "sqlite" else "document_id"
        insert = f"INSERT INTO {self._name} ({id_column}, title, whole, grams) VALUES (:id, :title, :whole, :grams)"  # noqa: S608 - checked name
        return text(insert)


def _fts5_query(terms: Iterable[str]) -> str:
    """Each term as a phrase of its pairs; the last character alone is a prefix of whatever follows it."""
    return " AND ".join(
        f'"{term}" *' if len(term) == 1 else f'"{" ".join(_grams(term)[:-1])}"' for term in terms
    )


def _array_contains(terms: Iterable[str]) -> Any:
    from sqlalchemy import Text, bindparam, column
    from sqlalchemy.dialects.postgresql import ARRAY

    grams = sorted({gram for term in terms for gram in (_grams(term)[:-1] or [term])})
    return column("grams", ARRAY(Text)).contains(bindparam(None, grams, type_=ARRAY(Text)))


def _dialect(bind: Any) -> str:
    name: str = (bind.get_bind() if hasattr(bind, "get_bind") else bind).dialect.name
    if name not in {"sqlite", "postgresql"}:
        raise ConfigurationError(f"bind must be of SQLite or PostgreSQL, not {name}", parameter="bind")
    return name
