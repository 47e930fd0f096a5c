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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mks_hardening._core.optional_imports import optional
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Select
    from sqlalchemy.orm import Session

__all__ = ["JapaneseSearch", "SearchHit"]

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_RUN: Final = re.compile(r"[^\W_]+")
# What a person types; each term is another condition.
_LONGEST_QUERY: Final = 200
_MOST_TERMS: Final = 10
_MOST_SYNONYMS: Final = 32
_LONGEST_GRAM: Final = 2
_Term: TypeAlias = tuple[tuple[str, ...], ...]
"""A word of a query in all its spellings; each consists of runs that a document must hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """One document found; ``score`` is 1 when every word of the query stands in its title, otherwise 0."""

    document_id: int
    score: int


def normalize_text(text: str | None) -> str:
    """Runs of letters and digits, separated by single blanks, in one spelling (NFKC, case folded)."""
    # Folding can undo the normal form (Unicode 3.13, D147), so it is made again.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text or "").casefold())
    return " ".join(_RUN.findall(folded))


def _grams(run: str) -> list[str]:
    return [*_pairs(run), run[-1]]


def _terms(query: str) -> list[str]:
    """The runs of a query, each once; a document must hold all of them."""
    return list(dict.fromkeys(normalize_text(query[:_LONGEST_QUERY]).split()))[:_MOST_TERMS]


class JapaneseSearch:
    """An index beside the application's own table, kept by the application in its own transaction.

    Args:
        name: name of the index table: lower-case ASCII letters, digits and underscores, at most 40.
        synonyms: returns other spellings of one word of a query, which is already normalised. A document matches
            with any of them as with the word itself, and the first 32 count. It is called for each search: a change
            of the synonyms needs no new index.

    Raises:
        ConfigurationError: the name is not such a name, or ``synonyms`` cannot be called.
        MissingDependencyError: SQLAlchemy is not installed.
    """

    def __init__(self, name: str, *, synonyms: Callable[[str], Iterable[str]] | None = None) -> None:
        with optional("sqlalchemy", extra="db"):
            import sqlalchemy  # noqa: F401 - only to fail early
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                "name must be at most 40 lower-case ASCII letters, digits and underscores", parameter="name"
            )
        if synonyms is not None and not callable(synonyms):
            raise ConfigurationError(
                f"synonyms must be a function, not {type(synonyms).__name__}", parameter="synonyms"
            )
        self._name = name
        self._synonyms = synonyms

    def create(self, bind: Session | Connection) -> None:
        """Create table and index unless they exist, in the caller's transaction."""
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
        """Put a document into the index, or replace what it holds of it, in the caller's transaction."""
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
        """Take a document out of the index; harmless when it is not in it."""
        from sqlalchemy import text

        delete = f"DELETE FROM {self._name} WHERE {self._form(bind).key} = :id"  # noqa: S608 - our own names
        bind.execute(text(delete), {"id": document_id})

    def search(self, bind: Session | Connection, query: str, *, limit: int = 50) -> list[SearchHit]:
        """The best documents that hold every word of ``query``: all words in the title first, then newest id.

        A query without a letter or digit finds nothing.
        """
        from sqlalchemy import desc

        ordered = self.matching(bind, query).order_by(desc("score"), desc("document_id")).limit(limit)
        return [SearchHit(document_id=row.document_id, score=row.score) for row in bind.execute(ordered)]

    def matching(self, bind: Session | Connection, query: str) -> Select[tuple[int, int]]:
        """A select of ``document_id`` and ``score``, to be joined to the caller's own select."""
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
    """SQLite: an FTS5 table of grams, in which a word is a phrase."""

    key = "rowid"
    replacing = ""

    def __init__(self, name: str) -> None:
        self._name = name

    def ddl(self) -> list[str]:
        # The ascii tokenizer takes every other character as a letter, whatever SQLite knows of Unicode.
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

        # A second look into the index is quicker than reading the title of each document found.
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
    """A run as a phrase of its pairs; one character is the beginning of a pair."""
    return f'"{run}" *' if len(run) == 1 else f'"{" ".join(_pairs(run))}"'


class _BigramArray:
    """PostgreSQL: an array of grams with a GIN index finds candidates, of longer words the text itself decides."""

    key = "document_id"
    # In one statement: between a DELETE and an INSERT another transaction could insert the same document.
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
            # The planner does not see that a scan has to unpack every array, and took workers for one: a word that
            # a tenth of 10,000 documents hold was found in 455 ms instead of 36.
            f"ALTER TABLE {self._name} SET (parallel_workers = 0)",
            # For the same reason it has to take every word for a rare one: from statistics it knew that a word
            # stands in a third of the documents, and read all arrays in 350 to 700 ms instead of the index in 4
            # to 20.
            f"ALTER TABLE {self._name} ALTER COLUMN grams SET STATISTICS 0",
            self._forget_statistics(),
        ]

    def _forget_statistics(self) -> str:
        """What ANALYZE learned before; a type that stays as it is rewrites nothing and drops them."""
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
        """A look into the index for each spelling, together with the words that have one only.

        Joined by OR, each condition would unpack the array of every document that another one has found: a word
        with ten spellings took 1,300 ms among 5,000 documents.
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
        # A gram is found exactly; to look for it in the text again would unpack every text that holds it.
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
    """SQLAlchemy 2.0 and 2.1 write this type differently."""
    return cast("Select[tuple[int, int]]", select)
