"""Search index for Japanese text that finds words of one or two characters, on SQLite and PostgreSQL.

Trigram indexes cannot match two-character words, and most Japanese technical words have two characters. The
application therefore generates the grams itself: every pair of adjacent characters in a run of letters, digits and
symbols, and the last character alone. Text and query are folded alike: width and case (NFKC), hiragana and
katakana, old and new forms of a kanji. SQLite stores the grams in an FTS5 table, PostgreSQL in an array with a GIN
index. User input only becomes grams and bound parameters, never operators.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import add
from typing import TYPE_CHECKING, Any, Final, cast

from mks_hardening._core.checks import function, whole_number
from mks_hardening._core.optional_imports import optional
from mks_hardening.db._search_text import (
    BOUNDARY,
    SYMBOLS,
    ExcerptPiece,
    Spelling,
    Term,
    excerpt,
    grams,
    normalize_text,
    pairs,
    spellings,
)
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Select, Subquery
    from sqlalchemy.orm import Session

__all__ = ["SearchHit", "SearchIndex"]

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_LONGEST_GRAM: Final = 2
_CHUNK: Final = 1000
_MOST_READ: Final = 10_000
"""Documents that PostgreSQL reads from the newest on to find a frequent word, before it sorts all matches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """One search result; ``score`` is 1 if the title contains every word of the query, otherwise 0."""

    document_id: int
    score: int


class SearchIndex:
    """Search index next to the application's table, updated by the application in its own transactions.

    A query is words separated by spaces, of which a document must contain all, and phrases in double quotes, whose
    words must follow each other (``"JIS A 5308"``). The symbols ``%+#&_@$`` and signs of units and currencies
    belong to words (``C++``, ``50%``); all other punctuation separates words. Upper and lower case are equal, full
    and half width, katakana and hiragana, ``髙橋`` and ``高橋``, ``ヶ`` and ``ケ``.

    Args:
        name: name of the index table: lower-case ASCII letters, digits and underscores, at most 40.
        synonyms: function that returns alternative spellings of a query word, which is already folded: katakana
            arrives as hiragana. A document that contains one of them matches like one that contains the word
            itself. It is called for each search, so changing the synonyms does not require reindexing.

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

    @staticmethod
    def normalize(text: str | None) -> str:
        """Return the words of a text as they are compared: folded, and separated by single spaces."""
        return normalize_text(text)

    def create(self, bind: Session | Connection) -> None:
        """Create the table and its index unless they exist, in the caller's transaction."""
        _run(bind, self._form(bind).ddl())

    def drop(self, bind: Session | Connection) -> None:
        """Drop the table if it exists, in the caller's transaction."""
        _run(bind, [f"DROP TABLE IF EXISTS {self._name}"])

    def rebuild(
        self, bind: Session | Connection, documents: Iterable[tuple[int, str | None, str | None]]
    ) -> int:
        """Replace the whole index in the caller's transaction, which is much faster than indexing one by one.

        Other transactions search the old index until the commit, and wait to change it. On PostgreSQL the index
        is a new table afterwards: privileges of other roles on the old one need to be granted again.

        Args:
            bind: session or connection.
            documents: id, title and body of each document; read once, a thousand at a time.

        Returns:
            The number of documents.
        """
        form = self._form(bind)
        _run(bind, form.before_rebuilding())
        number = 0
        rows = (
            (document_id, normalize_text(title), normalize_text(body))
            for document_id, title, body in documents
        )
        while chunk := list(islice(rows, _CHUNK)):
            form.insert(bind, chunk)
            number += len(chunk)
        _run(bind, form.after_rebuilding())
        return number

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
        """Return the best documents that match ``query``: title matches first, then the newest id.

        A query without letters, digits or symbols returns no documents. At most about ten thousand documents are
        read, however frequent a word is, unless its documents are all old.

        Raises:
            SearchQueryError: the query has more than 200 characters or 32 words.
        """
        whole_number(limit, parameter="limit", minimum=0)
        terms = self._terms(query)
        if not terms or not limit:
            return []
        found = self._form(bind).best(bind, terms, limit)
        return [SearchHit(document_id=document_id, score=score) for document_id, score in found]

    def matching(
        self, bind: Session | Connection, query: str, *, title_only: bool = False
    ) -> Select[tuple[int, int]]:
        """Return a select of ``document_id`` and ``score`` to join with the caller's own select.

        Args:
            bind: session or connection whose database is searched.
            query: words and phrases.
            title_only: whether to select only documents whose title contains every word.

        Raises:
            SearchQueryError: the query has more than 200 characters or 32 words.
        """
        from sqlalchemy import Integer, case, column, false, select, table

        form = self._form(bind)
        terms = self._terms(query)
        document_id = column(form.key, Integer).label("document_id")
        source = table(self._name)
        if not terms:
            return _typed(select(document_id, document_id.label("score")).select_from(source).where(false()))
        score = case((form.in_title(terms), 1), else_=0).label("score")
        where = form.matches(terms, title_only=title_only)
        return _typed(select(document_id, score).select_from(source).where(where))

    def excerpt(
        self, text: str, query: str, *, length: int | None = 140, before: int = 40
    ) -> tuple[ExcerptPiece, ...]:
        """Return the part of a text around the first match in pieces, with the matches marked.

        The pieces are the text as it is written, with ``…`` where it is cut. There are none if nothing matches.

        Args:
            text: plain text, such as the body of a document; escape each piece where you display it.
            query: words and phrases.
            length: length of the part in characters. ``None`` returns the whole text, also if nothing matches.
            before: how many of these characters precede the first match.

        Raises:
            ConfigurationError: ``length`` or ``before`` is negative.
            SearchQueryError: the query has more than 200 characters or 32 words.
        """
        if length is not None:
            whole_number(length, parameter="length", minimum=1)
        whole_number(before, parameter="before", minimum=0)
        return excerpt(text, self._terms(query), length=length, before=before)

    def _terms(self, query: str) -> tuple[Term, ...]:
        return spellings(query, self._synonyms)

    def _form(self, bind: Session | Connection) -> _Fts5 | _BigramArray:
        from sqlalchemy import Connection

        dialect = (bind if isinstance(bind, Connection) else bind.get_bind()).dialect.name
        if dialect not in {"sqlite", "postgresql"}:
            raise ConfigurationError(f"bind must be of SQLite or PostgreSQL, not {dialect}", parameter="bind")
        return _Fts5(self._name) if dialect == "sqlite" else _BigramArray(self._name)


class _Fts5:
    """SQLite: an FTS5 table of grams; a phrase in the text is a phrase of its grams."""

    key = "rowid"
    replacing = ""

    def __init__(self, name: str) -> None:
        self._name = name

    def ddl(self) -> list[str]:
        # The ascii tokenizer treats every non-ASCII character as a letter, whatever Unicode version SQLite
        # supports.
        columns = f"title, whole, tokenize = \"ascii tokenchars '{SYMBOLS}'\", columnsize = 0"
        return [f"CREATE VIRTUAL TABLE IF NOT EXISTS {self._name} USING fts5({columns})"]

    def before_rebuilding(self) -> list[str]:
        return [f"DROP TABLE IF EXISTS {self._name}", *self.ddl()]

    def after_rebuilding(self) -> list[str]:
        return []

    def insert(self, bind: Session | Connection, rows: Sequence[tuple[int, str, str]]) -> None:
        from sqlalchemy import Connection

        connection = bind if isinstance(bind, Connection) else bind.connection()
        insert = f"INSERT INTO {self._name} (rowid, title, whole) VALUES (?, ?, ?)"  # noqa: S608 - our own names
        connection.exec_driver_sql(
            insert, [(number, *self.row(title, body).values()) for number, title, body in rows]
        )

    def row(self, title: str, body: str) -> dict[str, object]:
        titled = " ".join(grams(title))
        return {"title": titled, "whole": f"{titled} {BOUNDARY} {' '.join(grams(body))}"}

    def matches(self, terms: Sequence[Term], *, title_only: bool = False) -> ColumnElement[bool]:
        return self._match(_fts5_query("title" if title_only else "whole", terms))

    def in_title(self, terms: Sequence[Term]) -> ColumnElement[bool]:
        from sqlalchemy import Integer, column, select, table

        # A second index lookup is faster than reading the title of each matching document.
        key: ColumnElement[int] = column(self.key, Integer)
        rows = select(key).select_from(table(self._name)).where(self.matches(terms, title_only=True))
        return key.in_(rows.scalar_subquery())

    def best(
        self, bind: Session | Connection, terms: Sequence[Term], limit: int
    ) -> Iterator[tuple[int, int]]:
        """Yield ids and scores; FTS5 reads its index from the newest document and stops at the limit."""
        titled, whole = _fts5_query("title", terms), _fts5_query("whole", terms)
        found = self._newest(bind, titled, limit)
        yield from ((number, 1) for number in found)
        if len(found) < limit:
            rest = self._newest(bind, f"({whole}) NOT ({titled})", limit - len(found))
            yield from ((number, 0) for number in rest)

    def _newest(self, bind: Session | Connection, query: str, limit: int) -> Sequence[int]:
        from sqlalchemy import Integer, column, select, table

        key: ColumnElement[int] = column(self.key, Integer)
        rows = select(key).select_from(table(self._name)).where(self._match(query))
        return bind.scalars(rows.order_by(key.desc()).limit(limit)).all()

    def _match(self, query: str) -> ColumnElement[bool]:
        from sqlalchemy import column

        matches: ColumnElement[bool] = column(self._name).op("MATCH")(query)
        return matches


def _fts5_query(where: str, terms: Sequence[Term]) -> str:
    return f"{{{where}}} : ({' AND '.join(map(_fts5_term, terms))})"


def _fts5_term(term: Term) -> str:
    return f"({' OR '.join(' AND '.join(map(_fts5_phrase, spelling)) for spelling in term)})"


def _fts5_phrase(phrase: str) -> str:
    """A phrase as its grams without the last one; a single character at its end becomes a prefix query."""
    *_, last = phrase.split()
    if len(last) == 1:
        return f'"{" ".join(grams(phrase))}" *'
    return f'"{" ".join(grams(phrase)[:-1])}"'


class _BigramArray:
    """PostgreSQL: a GIN index on an array of grams finds candidates; longer words are verified in the text.

    The grams of the title are in the array a second time, marked with ``BOUNDARY``.
    """

    key = "document_id"
    # One statement: between a DELETE and an INSERT another transaction could insert the same document.
    replacing = "ON CONFLICT (document_id) DO UPDATE SET " + ", ".join(
        f"{name} = excluded.{name}" for name in ("title", "whole", "grams")
    )

    def __init__(self, name: str) -> None:
        self._name = name

    def ddl(self) -> list[str]:
        return [
            f"SELECT pg_advisory_xact_lock(hashtext('{self._name}'))",  # IF NOT EXISTS alone fails in a race
            *self._table(self._name),
            self._gin(self._name),
            self._forget_statistics(),
        ]

    def _table(self, name: str) -> list[str]:
        columns = "title text NOT NULL, whole text NOT NULL, grams text[] NOT NULL"
        return [
            f"CREATE TABLE IF NOT EXISTS {name} (document_id bigint PRIMARY KEY, {columns})",
            # The planner ignores that a scan has to detoast every array and chose a parallel scan: a word that
            # occurs in a tenth of 10,000 documents took 455 ms instead of 36.
            f"ALTER TABLE {name} SET (parallel_workers = 0)",
            # For the same reason the planner must assume that every word is rare: with statistics that a word
            # occurs in a third of the documents, it read all arrays in 350 to 700 ms instead of using the index in
            # 4 to 20.
            f"ALTER TABLE {name} ALTER COLUMN grams SET STATISTICS 0",
        ]

    def _gin(self, name: str) -> str:
        # In kB: after many changes, the planner took the list of pending entries (4 MB by default) for so
        # expensive that it read all arrays until the next autovacuum: 280 ms instead of 9 with 10,000 documents.
        options = "WITH (gin_pending_list_limit = 64)"
        return f"CREATE INDEX IF NOT EXISTS {name}_grams ON {name} USING gin (grams) {options}"

    def _forget_statistics(self) -> str:
        """Discard statistics of an earlier ANALYZE: an ALTER to the same type rewrites nothing, but drops them."""
        learned = f"tablename = '{self._name}' AND attname = 'grams' AND schemaname = current_schema()"
        drop = f"ALTER TABLE {self._name} ALTER COLUMN grams TYPE text[]"
        return f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_stats WHERE {learned}) THEN {drop}; END IF; END $$"

    def before_rebuilding(self) -> list[str]:
        new = f"{self._name}_new"
        return [
            *self.ddl(),
            f"LOCK TABLE {self._name} IN SHARE ROW EXCLUSIVE MODE",  # searches continue, changes wait
            *self._table(new),
        ]

    def after_rebuilding(self) -> list[str]:
        """Build the index from all rows at once, and put the new table in the place of the old one."""
        name, new = self._name, f"{self._name}_new"
        return [
            self._gin(new),
            f"DROP TABLE {name}",
            f"ALTER TABLE {new} RENAME TO {name}",
            f"ALTER INDEX {new}_grams RENAME TO {name}_grams",
            f"ALTER INDEX {new}_pkey RENAME TO {name}_pkey",
        ]

    def insert(self, bind: Session | Connection, rows: Sequence[tuple[int, str, str]]) -> None:
        from sqlalchemy import text

        insert = (
            f"INSERT INTO {self._name}_new (document_id, title, whole, grams) "  # noqa: S608 - our own names
            "SELECT i, t, w, string_to_array(g, ' ') "
            "FROM json_to_recordset(CAST(:rows AS json)) AS rows (i bigint, t text, w text, g text)"
        )
        made = ((number, self.row(title, body)) for number, title, body in rows)
        values = [
            {"i": number, "t": row["title"], "w": row["whole"], "g": " ".join(row["grams"])}
            for number, row in made
        ]
        bind.execute(text(insert), {"rows": json.dumps(values, ensure_ascii=False)})

    def row(self, title: str, body: str) -> dict[str, Any]:
        titled = _all_grams(title)
        found = [*(titled | _all_grams(body)), *map(BOUNDARY.__add__, titled)]
        return {"title": title, "whole": f"{title} {BOUNDARY} {body}", "grams": found}

    def matches(self, terms: Sequence[Term], *, title_only: bool = False) -> ColumnElement[bool]:
        from sqlalchemy import Integer, column, intersect

        plain = [phrase for term in terms if len(term) == 1 for phrase in term[0]]
        several = [self._any(term, plain, title_only=title_only) for term in terms if len(term) > 1]
        if not several:
            return self._candidates(plain, title_only=title_only)
        key: ColumnElement[int] = column(self.key, Integer)
        return key.in_(intersect(*several) if len(several) > 1 else several[0])

    def _any(self, term: Term, plain: list[str], *, title_only: bool) -> Select[Any]:
        """Select one index lookup per spelling, each combined with the words that have a single spelling.

        With OR, each condition would detoast the array of every document that another condition found: a word with
        ten spellings took 1,300 ms among 5,000 documents.
        """
        from sqlalchemy import Integer, column, select, table, union_all

        key: ColumnElement[int] = column(self.key, Integer)
        rows = select(key).select_from(table(self._name))
        lookups = (
            rows.where(self._candidates([*plain, *spelling], title_only=title_only)) for spelling in term
        )
        found = union_all(*lookups).subquery()
        return select(found.c[self.key])

    def _candidates(self, phrases: Sequence[str], *, title_only: bool) -> ColumnElement[bool]:
        from sqlalchemy import Text, and_, bindparam, column
        from sqlalchemy.dialects.postgresql import ARRAY

        mark = BOUNDARY if title_only else ""
        runs = {run for phrase in phrases for run in phrase.split()}
        wanted = sorted({mark + gram for run in runs for gram in (pairs(run) or [run])})
        candidates = column("grams", ARRAY(Text)).contains(bindparam(None, wanted, type_=ARRAY(Text)))
        # The index matches grams exactly; checking them in the text again would detoast every matching text.
        longer = [phrase for phrase in phrases if len(phrase) > _LONGEST_GRAM]
        return and_(candidates, self._hold("title" if title_only else "whole", longer))

    def in_title(self, terms: Sequence[Term]) -> ColumnElement[bool]:
        return self._holds_all("title", terms)

    def _holds_all(self, where: str, terms: Sequence[Term]) -> ColumnElement[bool]:
        from sqlalchemy import and_, or_

        return and_(*(or_(*(self._hold(where, spelling) for spelling in term)) for term in terms))

    def _hold(self, where: str, phrases: Spelling | Sequence[str]) -> ColumnElement[bool]:
        from sqlalchemy import and_, column, func, true

        return and_(true(), *(func.strpos(column(where), phrase) > 0 for phrase in phrases))

    def best(
        self, bind: Session | Connection, terms: Sequence[Term], limit: int
    ) -> Iterator[tuple[int, int]]:
        """Yield ids and scores.

        The index returns matches in no order, so a word that half of 100,000 documents contain would have all of
        them read and sorted. Such a word is found by reading from the newest document until there are enough.
        """
        from sqlalchemy import func, select

        def frequent(where: str, share: float, among: int) -> bool:
            counted = (
                select(func.count()).select_from(self._newest(among)).where(self._holds_all(where, terms))
            )
            return (bind.scalar(counted) or 0) > share * among

        if not frequent("whole", 0.1, among=100):
            yield from self._sorted(bind, terms, limit, title_only=False)
            return
        find = (
            self._reading if frequent("title", 0.02, among=1000) else self._sorted
        )  # titles are read faster
        titled = find(bind, terms, limit, title_only=True)
        yield from titled
        if len(titled) < limit:
            rest = self._reading(bind, terms, limit, title_only=False)
            yield from [hit for hit in rest if (hit[0], 1) not in titled][: limit - len(titled)]

    def _sorted(
        self, bind: Session | Connection, terms: Sequence[Term], limit: int, *, title_only: bool
    ) -> list[tuple[int, int]]:
        """Return the best of all matches in the index."""
        from sqlalchemy import Integer, column, desc, select, table

        key: ColumnElement[int] = column(self.key, Integer)
        score = self.in_title(terms).label("score")
        rows = (
            select(key, score)
            .select_from(table(self._name))
            .where(self.matches(terms, title_only=title_only))
        )
        return [
            (row[0], int(row[1])) for row in bind.execute(rows.order_by(desc(score), key.desc()).limit(limit))
        ]

    def _reading(
        self, bind: Session | Connection, terms: Sequence[Term], limit: int, *, title_only: bool
    ) -> list[tuple[int, int]]:
        """Return the newest matches, found by reading documents, or from the index if that takes too long."""
        from sqlalchemy import desc, select

        newest = self._newest(_MOST_READ)
        key = newest.c[self.key]
        rows = select(key).where(self._holds_all("title" if title_only else "whole", terms))
        found = bind.scalars(rows.order_by(desc(key)).limit(limit)).all()
        if len(found) < limit:
            return self._sorted(bind, terms, limit, title_only=title_only)
        return [(number, int(title_only)) for number in found]

    def _newest(self, number: int) -> Subquery:
        from sqlalchemy import Integer, Text, column, desc, select, table

        source = table(self._name, column(self.key, Integer), column("title", Text), column("whole", Text))
        return select(source).order_by(desc(source.c[self.key])).limit(number).subquery()


def _all_grams(text: str) -> set[str]:
    found = set(text)
    for run in text.split():
        found.update(map(add, run, run[1:]))
    found.discard(" ")
    return found


def _run(bind: Session | Connection, statements: Iterable[str]) -> None:
    from sqlalchemy import text

    for statement in statements:
        bind.execute(text(statement))


def _typed(select: object) -> Select[tuple[int, int]]:
    """Cast a select whose type SQLAlchemy 2.0 and 2.1 write differently."""
    return cast("Select[tuple[int, int]]", select)
