"""Properties of fingerprints, pages, search and statistics."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, insert, select
from sqlalchemy.pool import StaticPool

from mks_hardening._core.database.known_messages import FORMS
from mks_hardening.db import (
    InvalidCursorError,
    SearchIndex,
    fingerprint,
    keyset_page,
    normalize_sql,
    slow_query_record,
)
from mks_hardening.db._search_text import normalize_text
from mks_hardening.db.statement._lexer import tokens_of
from mks_hardening.db.statement._lists import shorten
from mks_hardening.db.statement._quick_tokens import quick_tokens
from mks_hardening.db.watch._stats_table import StatsTable

DIALECTS = st.sampled_from(["postgresql", "sqlite", "mysql"])

# --- fingerprints ----------------------------------------------------------------------------

SECRET = "S3CRET"
LITERALS = st.one_of(
    st.integers(0, 10**12).map(str),
    st.floats(0, 1e6).map(repr),
    st.text(max_size=20).map(
        lambda text: "'" + text.replace("\\", "").replace("'", "''").replace("\0", "") + "'"
    ),
    st.just("%s"),
    st.sampled_from(["%(a)s", ":a"]),
)
BLANKS = st.sampled_from([" ", "\n", "\t  ", " /* note */ ", " -- note\n"])


@given(
    dialect=DIALECTS,
    values=st.tuples(LITERALS, LITERALS, LITERALS),
    blanks=st.lists(BLANKS, min_size=16, max_size=16),
)
def test_values_blanks_and_case_do_not_matter(
    dialect: Any, values: tuple[str, str, str], blanks: list[str]
) -> None:
    b, c, d = values
    words = ["SELECT", "a", "From", "T", "where", "b", "=", b, "AND", "c", "in", "(", c, ",", d, ")"]
    varied = "".join(word + blank for word, blank in zip(words, blanks, strict=True))
    assert normalize_sql(varied, dialect=dialect) == "select a from t where b = ? and c in (?)"


@given(dialect=DIALECTS, sql=st.text(max_size=200))
@example(dialect="postgresql", sql='" ')
@example(dialect="sqlite", sql="[ ")
@example(dialect="mysql", sql="` ")
def test_any_text_is_read_and_reading_twice_changes_nothing(dialect: Any, sql: str) -> None:
    once = normalize_sql(sql, dialect=dialect)
    assert len(fingerprint(sql, dialect=dialect)) == 16
    assert once == once.strip()


@given(
    dialect=DIALECTS,
    pieces=st.lists(
        st.sampled_from([*"'\"$-/*#\\;()[]`%?:,.=+", " ", "\n", "a", "1", "''", "/*", "*/", "--", "$$"])
    ),
)
def test_fragments_of_sql_are_read_to_the_end(dialect: Any, pieces: list[str]) -> None:
    assert isinstance(normalize_sql("".join(pieces), dialect=dialect), str)


# Parts that mean something else beside others: values, signs, comments, quotes, operators and words.
PARTS = st.sampled_from(
    "select from in ( ) [ ] , ; . .. :: : :a %s %(a)s %% ? ?1 ?| $1 $12 $$ $tag$ $a @x @> || - + -1 -- # /* */ "  # noqa: SIM905 - a word list is easier to read as one string
    "/*a*/ 'x' 'it''s' 'a\\'b' ' \" \"a\" ` `a` [x] E'a\\'b' N'n' U&'a' U&\"b\" null TRUE is savepoint release to "
    "x1 0b12 .5 1. 1e5 1..2 42 a$b = <> >= =- =-1 ~- 日 1,2 1,'b' (1,2) in(1,-2) in(%s,%s) [1,2] in(1,2]".split()
)


@settings(max_examples=300)
@given(
    dialect=DIALECTS,
    parts=st.lists(st.tuples(PARTS, st.sampled_from(["", " ", "\n"])), max_size=12),
)
def test_remembered_words_are_read_as_the_lexer_reads_them(
    dialect: Any, parts: list[tuple[str, str]]
) -> None:
    sql = "".join(part + blank for part, blank in parts)
    assert shorten(quick_tokens(sql, dialect)) == shorten(tokens_of(sql, dialect))


@given(
    dialect=DIALECTS,
    before=st.text(alphabet="ab ,=(", max_size=20),
    inside=st.text(alphabet="ab '\"-/*;$", max_size=20),
)
def test_what_stands_in_a_string_never_shows(dialect: Any, before: str, inside: str) -> None:
    literal = "'" + (inside + SECRET + inside).replace("'", "''") + "'"
    assert SECRET.lower() not in normalize_sql(f"select {before} {literal}", dialect=dialect).lower()


@given(
    dialect=DIALECTS,
    opening=st.sampled_from(['"', "`", "[", "'", "/*"]),
    inside=st.text(alphabet="ab -;(,", max_size=20),
)
def test_what_has_no_end_never_shows(dialect: Any, opening: str, inside: str) -> None:
    opens = {"postgresql": "\"'/", "sqlite": "\"`['/", "mysql": "\"`'/"}[dialect]
    assume(opening[0] in opens)
    assert SECRET not in normalize_sql(f"select {opening}{inside}{SECRET}", dialect=dialect)


class _Counted(str):
    """A token that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def __eq__(self, other: object) -> bool:
        _Counted.looks += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        _Counted.looks += 1
        return str.__hash__(self)


PIECES = st.sampled_from(["(", ")", "[", "]", ",", "?", "in", "a"])
REPEATED = st.tuples(
    st.lists(PIECES, min_size=1, max_size=6), st.integers(1, 200), st.lists(PIECES, max_size=4)
)


@given(parts=st.lists(REPEATED, max_size=4), closing=st.integers(0, 500))
@example(parts=[(["(", "?", ","], 2000, [])], closing=2000)
@example(parts=[(["in", "(", "?", ","], 2000, [])], closing=2000)
@example(parts=[(["(", "?", ")", ","], 2000, [])], closing=0)
@example(parts=[(["[", "(", "a", ",", "a", ","], 2000, [])], closing=4000)
def test_lists_are_shortened_in_linear_steps(
    parts: list[tuple[list[str], int, list[str]]], closing: int
) -> None:
    texts = [text for repeated, times, after in parts for text in (*repeated * times, *after)]
    tokens: list[str] = [_Counted(text) for text in (*texts, *[")"] * closing)]
    _Counted.looks = 0
    out = shorten(tokens)
    assert len(out) <= len(tokens)
    assert _Counted.looks <= 20 * len(tokens)


# --- error texts -----------------------------------------------------------------------------


class _DriverError(Exception):
    sqlstate: object = None


@given(
    code=st.one_of(st.sampled_from(sorted(FORMS)), st.text(max_size=5), st.none(), st.integers()),
    message=st.one_of(
        st.text(),
        st.sampled_from([form for forms in FORMS.values() for form in forms]),
        st.sampled_from([form.replace("?", f"{SECRET}") for forms in FORMS.values() for form in forms]),
        st.sampled_from([form.replace("<type>", f"{SECRET}") for forms in FORMS.values() for form in forms]),
    ),
    where=st.integers(0, 60),
    first=st.one_of(st.none(), st.integers(), st.text()),
)
def test_no_message_of_any_kind_is_shown_but_a_known_form(
    code: object, message: str, where: int, first: object
) -> None:
    text = f"{message[:where]}{SECRET}{message[where:]}"
    for told_text in (message, text):
        error = _DriverError(told_text) if first is None else _DriverError(first, told_text)
        error.sqlstate = code
        result = slow_query_record("select 1", (), error=error)["error"]
        shown = result.pop("message", "")
        assert SECRET.lower() not in shown.lower()
        assert not shown or any(_is_form(shown, form) for forms in FORMS.values() for form in forms)
        assert result.pop("code", "") in {"", code, str(first)}
        assert result == {"type": "_DriverError"}


def _is_form(shown: str, form: str) -> bool:
    before, mark, after = form.partition("<type>")
    return shown == form or bool(mark and shown.startswith(before) and shown.endswith(after))


# --- pages -----------------------------------------------------------------------------------

ROWS = Table(
    "rows",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("a", Integer, nullable=False),
    Column("b", String, nullable=False),
)


def _memory() -> Engine:
    return create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.integers(-2, 2), st.sampled_from(["", "a", "A", "あ", "b'"])), max_size=25),
    directions=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    limit=st.integers(1, 7),
)
def test_pages_are_the_sorted_list(
    rows: list[tuple[int, str]], directions: tuple[bool, bool, bool], limit: int
) -> None:
    engine = _memory()
    columns = (ROWS.c.a, ROWS.c.b, ROWS.c.id)
    order = [column.desc() if down else column for column, down in zip(columns, directions, strict=True)]
    with engine.begin() as connection:
        ROWS.create(connection)
        if rows:
            connection.execute(insert(ROWS), [{"id": n, "a": a, "b": b} for n, (a, b) in enumerate(rows)])
        expected = list(connection.execute(select(ROWS.c.id).order_by(*order)).scalars())
        seen: list[int] = []
        after: str | None = None
        for _ in range(len(rows) + 1):
            page = keyset_page(select(ROWS.c.id), order_by=order, after=after, limit=limit).fetch(connection)
            seen += page.items
            after = page.next_cursor
            if after is None:
                break
    engine.dispose()
    assert seen == expected


@given(cursor=st.text(max_size=300))
def test_any_text_is_a_cursor_or_refused(cursor: str) -> None:
    try:
        keyset_page(select(ROWS.c.id), order_by=[ROWS.c.id], after=cursor)
    except InvalidCursorError:
        return
    raise AssertionError("no arbitrary text is a cursor")


# --- search ----------------------------------------------------------------------------------

JAPANESE = st.text(alphabet="技術資料杭打コンクこんﾘｰﾄ髙高PCpc12 ・-。%+_*'", max_size=12)
PHRASED = st.lists(st.tuples(st.booleans(), JAPANESE), max_size=3)


@settings(max_examples=60)
@given(
    documents=st.lists(st.tuples(JAPANESE, JAPANESE), max_size=8),
    queries=st.lists(PHRASED, min_size=1, max_size=6),
    rebuilt=st.booleans(),
)
def test_search_is_substring_search_of_normalised_words_and_phrases(
    documents: list[tuple[str, str]], queries: list[list[tuple[bool, str]]], *, rebuilt: bool
) -> None:
    engine = _memory()
    search = SearchIndex("s")
    with engine.begin() as connection:
        search.create(connection)
        if rebuilt:
            search.rebuild(connection, ((number, *texts) for number, texts in enumerate(documents)))
        else:
            for number, (title, body) in enumerate(documents):
                search.index(connection, number, title=title, body=body)
        for query in queries:
            terms = [
                term
                for quoted, text in query
                for term in ([normalize_text(text)] if quoted else normalize_text(text).split())
                if term
            ]
            expected = {
                number
                for number, texts in enumerate(documents)
                if terms and all(any(term in normalize_text(text) for text in texts) for term in terms)
            }
            typed = " ".join(f'"{text}"' if quoted else text for quoted, text in query)
            assert {hit.document_id for hit in search.search(connection, typed)} == expected
            for number, (title, body) in enumerate(documents):
                marked = [
                    piece
                    for text in (title, body)
                    for piece in search.excerpt(text, typed, length=None)
                    if piece.matches
                ]
                assert marked or number not in expected
    engine.dispose()


@given(text=st.text(max_size=60) | JAPANESE, query=st.text(max_size=30) | JAPANESE, length=st.integers(1, 20))
def test_excerpts_are_the_text_as_it_is_written(text: str, query: str, length: int) -> None:
    search = SearchIndex("s")
    whole = search.excerpt(text, query, length=None)
    assert "".join(piece.text for piece in whole) == text
    assert all(piece.text for piece in whole)
    cut = search.excerpt(text, query, length=length, before=3)
    assert "".join(piece.text for piece in cut).strip("…") in text
    assert sum(len(piece.text) for piece in cut) <= length + 2
    assert bool(cut) == any(piece.matches for piece in whole)


@settings(max_examples=60)
@given(
    documents=st.lists(st.tuples(JAPANESE, JAPANESE), max_size=8),
    query=JAPANESE,
    others=st.dictionaries(JAPANESE, st.lists(JAPANESE, max_size=4), max_size=4),
)
def test_a_word_is_found_in_any_of_its_spellings(
    documents: list[tuple[str, str]], query: str, others: dict[str, list[str]]
) -> None:
    synonyms = {term: spelled for word, spelled in others.items() for term in normalize_text(word).split()}

    def holds(text: str, term: str) -> bool:
        spellings = [term, *map(normalize_text, synonyms.get(term, ()))]
        return any(runs and all(run in text for run in runs) for runs in map(str.split, spellings))

    engine = _memory()
    search = SearchIndex("s", synonyms=lambda term: synonyms.get(term, ()))
    terms = normalize_text(query).split()
    expected = {
        (number, int(all(holds(normalize_text(title), term) for term in terms)))
        for number, (title, body) in enumerate(documents)
        if terms and all(holds(normalize_text(f"{title} {body}"), term) for term in terms)
    }
    with engine.begin() as connection:
        search.create(connection)
        for number, (title, body) in enumerate(documents):
            search.index(connection, number, title=title, body=body)
        assert {(hit.document_id, hit.score) for hit in search.search(connection, query)} == expected
    engine.dispose()


@given(text=st.text(max_size=50))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once


# --- statistics ------------------------------------------------------------------------------


@given(durations=st.lists(st.floats(0, 500), min_size=1, max_size=200))
def test_percentiles_are_close_upper_bounds(durations: list[float]) -> None:
    stats = StatsTable(lambda text: text, capacity=10)
    for duration in durations:
        stats.add("s", duration, 1, failed=False)
    (row,) = stats.snapshot()
    ordered = sorted(durations)
    assert (row.calls, row.rows, row.errors) == (len(durations), len(durations), 0)
    assert row.max_ms == 1000 * ordered[-1]
    assert math.isclose(row.total_ms, 1000 * math.fsum(durations), rel_tol=1e-9, abs_tol=1e-9)
    for share, value in ((0.5, row.p50_ms), (0.95, row.p95_ms), (0.99, row.p99_ms)):
        exact = 1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)]
        assert exact * (1 - 1e-9) <= value <= max(exact * 1.2, 0.0012)


@given(texts=st.lists(st.integers(0, 30).map(str), max_size=200), capacity=st.integers(1, 10))
def test_nothing_is_lost_when_the_table_is_full(texts: list[str], capacity: int) -> None:
    stats = StatsTable(lambda text: text, capacity=capacity)
    for text in texts:
        stats.add(text, 0.001, 2, failed=True)
    rows = stats.snapshot()
    assert len(rows) <= capacity + 1
    assert sum(row.calls for row in rows) == sum(row.errors for row in rows) == len(texts)
