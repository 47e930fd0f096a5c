"""Full-text search for Japanese that finds words of one or two characters, on SQLite and PostgreSQL.

Trigram indexes cannot match two-character words, and most Japanese technical words have two characters. The
application therefore generates the grams itself, from text normalized with NFKC and case folding: every pair of
adjacent characters in a run of letters or digits, and the last character alone. SQLite stores them in an FTS5
table, PostgreSQL in an array with a GIN index. User input only becomes grams and bound parameters, never operators.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mks_hardening._core.checks import function
from mks_hardening._core.optional_imports import optional
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Select
    from sqlalchemy.orm import Session

__all__ = ["JapaneseSearch", "SearchHit"]

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_RUN: Final = re.compile(r"[^\W_]+")
# Limits of user input; each term adds a condition.
_LONGEST_QUERY: Final = 200
_MOST_TERMS: Final = 10
_MOST_SYNONYMS: Final = 32
_LONGEST_GRAM: Final = 2
_Term: TypeAlias = tuple[tuple[str, ...], ...]
"""A query word in all its spellings; a document must contain every run of one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """One search result; ``score`` is 1 if the title contains every word of the query, otherwise 0."""

    document_id: int
    score: int


def normalize_text(text: str | None) -> str:
    """Runs of letters and digits, normalized (NFKC, case folded) and separated by single spaces."""
    # Case folding can undo the normal form (Unicode 3.13, D147), so the text is normalized again.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text or "").casefold())
    return " ".join(_RUN.findall(folded))


def _grams(run: str) -> list[str]:
    return [*_pairs(run), run[-1]]


def _terms(query: str) -> list[str]:
    """Distinct runs of a query; a document must contain all of them."""
    return list(dict.fromkeys(normalize_text(query[:_LONGEST_QUERY]).split()))[:_MOST_TERMS]


class JapaneseSearch:
    """Search index next to the application's table, updated by the application in its own transactions.

    Args:
        name: name of the index table: lower-case ASCII letters, digits and underscores, at most 40.
        synonyms: function that returns alternative spellings of a query word, which is already normalized. A
            document that contains one of them matches like one that contains the word itself; the first 32 are
            used. It is called for each search, so changing the synonyms does not require reindexing.

    Raises:
        ConfigurationError: the name is invalid, or ``synonyms`` is not callable.
        MissingDependencyError: SQLAlchemy is not installed.
    """

    def __init__(self, name: str, *, synonyms: Callable[[str], Iterable[str]] | None = None) -> None:
        with optional("sqlalchemy", extra="db"):
            import sqlalchemy  # noqa: F401 - fail early if it is missing
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                "name must be at most 40 lower-case ASCII letters, digits and underscores", parameter="name"
            )
        if synonyms is not None:
            function(synonyms, parameter="synonyms")
        self._name = name
        self._synonyms = synonyms

    def create(self, bind: Session | Connection) -> None:
        """Create the table and its index unless they exist, in the caller's transaction."""
        from sqlalchemy import text

        for statement in self._form(bind).ddl():
            bind.execute(text(statement))

    def drop(self, bind: Session | Connection) -> None:
        """Drop the table if it exists, in the caller's transaction."""
        from sqlalchemy import text

        bind.execute(text(f"DROP TABLE IF EXISTS {self._name}"))

    def index(
        self, bind: Session | Connection, document_id: int, *, title: str | None, body: str | None = None
    ) -> None:
        """Add a document to the index, or replace its entry, in the caller's transaction."""
        from sqlalchemy import text

        form = self._form(bind)
        row = form.row(normalize_text(title), normalize_text(body))
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        insert = f"INSERT INTO {self._name} ({form.key}, {names}) VALUES (:id, {values}) {form.replacing}"  # noqa: S608 - our own names
        if not form.replacing:
            self.remove(bind, document_id)
        bind.execute(text(insert), {"id": document_id, **row})

    def remove(self, bind: Session | Connection, document_id: int) -> None:
        """Remove a document from the index; does nothing if it is not indexed."""
        from sqlalchemy import text

        delete = f"DELETE FROM {self._name} WHERE {self._form(bind).key} = :id"  # noqa: S608 - our own names
        bind.execute(text(delete), {"id": document_id})

    def search(self, bind: Session | Connection, query: str, *, limit: int = 50) -> list[SearchHit]:
        """Return the best documents that contain every word of ``query``: title matches first, then the newest id.

        A query without letters or digits returns no documents.
        """
        from sqlalchemy import desc

        ordered = self.matching(bind, query).order_by(desc("score"), desc("document_id")).limit(limit)
        return [SearchHit(document_id=row.document_id, score=row.score) for row in bind.execute(ordered)]

    def matching(self, bind: Session | Connection, query: str) -> Select[tuple[int, int]]:
        """Return a select of ``document_id`` and ``score`` to join with the caller's own select."""
        from sqlalchemy import Integer, case, column, false, select, table

        form = self._form(bind)
        terms = [self._spellings(term) for term in _terms(query)]
        document_id = column(form.key, Integer).label("document_id")
        source = table(self._name)
        if not terms:
            return _typed(select(document_id, document_id.label("score")).select_from(source).where(false()))
        score = case((form.in_title(terms), 1), else_=0).label("score")
        return _typed(select(document_id, score).select_from(source).where(form.everywhere(terms)))

    def _spellings(self, term: str) -> _Term:
        others = islice(self._synonyms(term), _MOST_SYNONYMS) if self._synonyms else ()
        spelled = (tuple(_terms(other)) for other in others)
        return tuple(dict.fromkeys([(term,), *filter(None, spelled)]))

    def _form(self, bind: Session | Connection) -> _Fts5 | _BigramArray:
        from sqlalchemy import Connection

        dialect = (bind if isinstance(bind, Connection) else bind.get_bind()).dialect.name
        if dialect not in {"sqlite", "postgresql"}:
            raise ConfigurationError(f"bind must be of SQLite or PostgreSQL, not {dialect}", parameter="bind")
        return _Fts5(self._name) if dialect == "sqlite" else _BigramArray(self._name)


class _Fts5:
    """SQLite: an FTS5 table of grams, in which a word is matched as a phrase."""

    key = "rowid"
    replacing = ""

    def __init__(self, name: str) -> None:
        self._name = name

    def ddl(self) -> list[str]:
        # The ascii tokenizer treats every non-ASCII character as a letter, whatever Unicode version SQLite
        # supports.
        columns = "title, whole, tokenize = 'ascii', columnsize = 0"
        return [f"CREATE VIRTUAL TABLE IF NOT EXISTS {self._name} USING fts5({columns})"]

    def row(self, title: str, body: str) -> dict[str, object]:
        return {"title": self._grams(title), "whole": self._grams(f"{title} {body}")}

    def _grams(self, text: str) -> str:
        return " ".join(gram for run in text.split() for gram in _grams(run))

    def everywhere(self, terms: Sequence[_Term]) -> ColumnElement[bool]:
        return self._match("whole", terms)

    def in_title(self, terms: Sequence[_Term]) -> ColumnElement[bool]:
        from sqlalchemy import Integer, column, select, table

        # A second index lookup is faster than reading the title of each matching document.
        key: ColumnElement[int] = column(self.key, Integer)
        rows = select(key).select_from(table(self._name)).where(self._match("title", terms))
        return key.in_(rows.scalar_subquery())

    def _match(self, where: str, terms: Sequence[_Term]) -> ColumnElement[bool]:
        from sqlalchemy import column

        matches: ColumnElement[bool] = column(self._name).op("MATCH")(
            f"{{{where}}} : ({' AND '.join(map(_fts5_term, terms))})"
        )
        return matches


def _fts5_term(term: _Term) -> str:
    return f"({' OR '.join(' AND '.join(map(_fts5_phrase, runs)) for runs in term)})"


def _fts5_phrase(run: str) -> str:
    """A run as a phrase of its pairs; a single character becomes a prefix query."""
    return f'"{run}" *' if len(run) == 1 else f'"{" ".join(_pairs(run))}"'


class _BigramArray:
    """PostgreSQL: a GIN index on an array of grams finds candidates; longer words are verified in the text."""

    key = "document_id"
    # One statement: between a DELETE and an INSERT another transaction could insert the same document.
    replacing = "ON CONFLICT (document_id) DO UPDATE SET " + ", ".join(
        f"{name} = excluded.{name}" for name in ("title", "whole", "grams")
    )

    def __init__(self, name: str) -> None:
        self._name = name

    def ddl(self) -> list[str]:
        columns = "title text NOT NULL, whole text NOT NULL, grams text[] NOT NULL"
        return [
            f"SELECT pg_advisory_xact_lock(hashtext('{self._name}'))",  # IF NOT EXISTS alone fails in a race
            f"CREATE TABLE IF NOT EXISTS {self._name} (document_id bigint PRIMARY KEY, {columns})",
            f"CREATE INDEX IF NOT EXISTS {self._name}_grams ON {self._name} USING gin (grams)",
            # The planner ignores that a scan has to detoast every array and chose a parallel scan: a word that
            # occurs in a tenth of 10,000 documents took 455 ms instead of 36.
            f"ALTER TABLE {self._name} SET (parallel_workers = 0)",
            # For the same reason the planner must assume that every word is rare: with statistics that a word
            # occurs in a third of the documents, it read all arrays in 350 to 700 ms instead of using the index in
            # 4 to 20.
            f"ALTER TABLE {self._name} ALTER COLUMN grams SET STATISTICS 0",
            self._forget_statistics(),
        ]

    def _forget_statistics(self) -> str:
        """Discard statistics of an earlier ANALYZE: an ALTER to the same type rewrites nothing, but drops them."""
        learned = f"tablename = '{self._name}' AND attname = 'grams' AND schemaname = current_schema()"
        drop = f"ALTER TABLE {self._name} ALTER COLUMN grams TYPE text[]"
        return f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_stats WHERE {learned}) THEN {drop}; END IF; END $$"

    def row(self, title: str, body: str) -> dict[str, object]:
        whole = f"{title} {body}".strip()
        pairs = {pair for run in whole.split() for pair in _pairs(run)}
        return {"title": title, "whole": whole, "grams": sorted({*pairs, *whole} - {" "})}

    def everywhere(self, terms: Sequence[_Term]) -> ColumnElement[bool]:
        from sqlalchemy import Integer, column, intersect

        plain = [run for term in terms if len(term) == 1 for run in term[0]]
        several = [self._any(term, plain) for term in terms if len(term) > 1]
        if not several:
            return self._candidates(plain)
        key: ColumnElement[int] = column(self.key, Integer)
        return key.in_(intersect(*several) if len(several) > 1 else several[0])

    def _any(self, term: _Term, plain: list[str]) -> Select[Any]:
        """Select one index lookup per spelling, each combined with the words that have a single spelling.

        With OR, each condition would detoast the array of every document that another condition found: a word with
        ten spellings took 1,300 ms among 5,000 documents.
        """
        from sqlalchemy import Integer, column, select, table, union_all

        key: ColumnElement[int] = column(self.key, Integer)
        rows = select(key).select_from(table(self._name))
        found = union_all(*(rows.where(self._candidates([*plain, *runs])) for runs in term)).subquery()
        return select(found.c[self.key])

    def _candidates(self, runs: Sequence[str]) -> ColumnElement[bool]:
        from sqlalchemy import Text, and_, bindparam, column
        from sqlalchemy.dialects.postgresql import ARRAY

        grams = sorted({gram for run in runs for gram in (_pairs(run) or [run])})
        candidates = column("grams", ARRAY(Text)).contains(bindparam(None, grams, type_=ARRAY(Text)))
        # The index matches grams exactly; checking them in the text again would detoast every matching text.
        return and_(candidates, self._hold("whole", [run for run in runs if len(run) > _LONGEST_GRAM]))

    def in_title(self, terms: Sequence[_Term]) -> ColumnElement[bool]:
        from sqlalchemy import and_, or_

        return and_(*(or_(*(self._hold("title", runs) for runs in term)) for term in terms))

    def _hold(self, where: str, runs: Sequence[str]) -> ColumnElement[bool]:
        from sqlalchemy import and_, column, func, true

        return and_(true(), *(func.strpos(column(where), run) > 0 for run in runs))


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]


def _typed(select: object) -> Select[tuple[int, int]]:
    """Cast a select whose type SQLAlchemy 2.0 and 2.1 write differently."""
    return cast("Select[tuple[int, int]]", select)
