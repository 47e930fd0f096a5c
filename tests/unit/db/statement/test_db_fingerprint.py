"""Fingerprints against the corpus, and what the corpus cannot say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.db import fingerprint, normalize_sql
from mks_hardening.db.statement import _quick_tokens, fingerprints
from mks_hardening.db.statement._quick_tokens import quick_tokens
from mks_hardening.db.watch._stats_table import StatsTable
from mks_hardening.exceptions import ConfigurationError

_FOLDER = Path(__file__).parents[3] / "corpus" / "db"
CORPUS: dict[str, Any] = json.loads((_FOLDER / "fingerprints.json").read_text(encoding="utf-8"))
STABLE: list[Any] = json.loads((_FOLDER / "stable_fingerprints.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CORPUS["same"], ids=lambda case: f"{case['dialect']}-{case['name']}")
def test_statements_that_differ_in_values_share(case: dict[str, Any]) -> None:
    texts = {normalize_sql(statement, dialect=case["dialect"]) for statement in case["statements"]}
    assert len(texts) == 1
    assert len({fingerprint(statement, dialect=case["dialect"]) for statement in case["statements"]}) == 1


@pytest.mark.parametrize("case", CORPUS["different"], ids=lambda case: case["statements"][0])
def test_statements_that_do_different_things_do_not(case: dict[str, Any]) -> None:
    one, other = case["statements"]
    assert fingerprint(one, dialect=case["dialect"]) != fingerprint(other, dialect=case["dialect"])


@pytest.mark.parametrize("case", CORPUS["secrets"], ids=lambda case: case["statement"])
def test_no_literal_is_left(case: dict[str, Any]) -> None:
    assert "s3cret" not in normalize_sql(case["statement"], dialect=case["dialect"]).lower()


def test_the_groups_of_the_corpus_are_distinct() -> None:
    for dialect in ("postgresql", "sqlite", "mysql"):
        firsts = [case["statements"][0] for case in CORPUS["same"] if case["dialect"] == dialect]
        assert len({fingerprint(first, dialect=dialect) for first in firsts}) == len(firsts)


@pytest.mark.parametrize(
    ("sql", "readable"),
    [
        (
            "SELECT count(*), a.b FROM t AS a WHERE x IN (1,2)",
            "select count(*), a.b from t as a where x in (?)",
        ),
        ("select data ? 'k'", "select data ? ?"),
        ("select x::int, a[1:2]", "select x::int, a[? : ?]"),
        ("", ""),
        (";", ""),
    ],
)
def test_the_text_stays_readable(sql: str, readable: str) -> None:
    assert normalize_sql(sql) == readable


def test_fingerprints_do_not_change_between_versions() -> None:
    # Dashboards and baselines name statements by them.
    changed = [
        (dialect, statement)
        for dialect, statement, expected in STABLE
        if fingerprint(statement, dialect=dialect) != expected
    ]
    assert changed == []


def test_a_fingerprint_is_short_and_stable() -> None:
    assert fingerprint("select 1") == fingerprint("SELECT  2")
    assert len(fingerprint("select 1")) == 16
    long = "select " + "x" * 20_000
    assert fingerprint(long) == fingerprint(long.upper())


@pytest.mark.parametrize("rest", ["", " " * 3000])
def test_text_that_is_no_unicode_has_a_fingerprint(rest: str) -> None:
    statements = ["select \ud800" + rest, "select \ud801" + rest, "select a" + rest]
    assert len({fingerprint(sql) for sql in statements}) == len(statements)


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="dialect"):
        normalize_sql("select 1", dialect="oracle")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "hostile",
    [
        "'" * 100_001,
        "/*" * 50_000,
        "(" * 100_000,
        "$a$" * 50_001,
        "-" * 100_000,
        '"' * 99_999,
        "((1)," * 30_000,
    ],
)
@pytest.mark.parametrize("dialect", ["postgresql", "sqlite", "mysql"])
def test_hostile_text_is_read_to_the_end(hostile: str, dialect: Any) -> None:
    assert isinstance(normalize_sql(hostile, dialect=dialect), str)


def test_a_long_statement_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counting(sql: str, dialect: str) -> list[str]:
        read.append(len(sql))
        return quick_tokens(sql, dialect)

    monkeypatch.setattr(fingerprints, "quick_tokens", counting)
    stats = StatsTable(fingerprint, capacity=10)
    statement = "call p(" + ", ".join(f"%(id_{n})s" for n in range(5000)) + ")"
    for _ in range(5):
        stats.add(
            "".join(list(statement)), 0.001, 1, failed=False
        )  # the driver's text is a new one every time
        fingerprint("".join(list(statement)))
    assert read == [len(statement)]
    assert sum(row.calls for row in stats.snapshot()) == 5


def test_what_is_remembered_of_words_is_bounded_and_no_literal() -> None:
    lexer = _quick_tokens._lexers["postgresql"]
    for n in range(10_000):
        normalize_sql(f"call c{n}('S3CRET {n}', {n}.5, E'S3CRET' /* S3CRET {n} */) -- S3CRET")
    assert len(lexer._known) <= 4096
    assert not [part for part in lexer._known if "S3CRET" in part or part[0].isdigit()]
    normalize_sql(f"select {'x' * 1000}")
    assert max(map(len, lexer._known)) <= 64


def test_what_is_kept_of_long_statements_is_bounded() -> None:
    for n in range(3000):
        fingerprint(f"select {n} {' ' * 2048}")
    assert len(fingerprints._long_digests) <= 2048
    assert all(len(key) <= 16 for key, _ in fingerprints._long_digests)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ('select * from t where a = "s3cret"', "select * from t where a = ?"),
        (
            'select * from t where a in ("s3cret", "b") and "s3cret" like b',
            "select * from t where a in (?) and ? like b",
        ),
        ('update t set "A" = "s3cret"', 'update t set "A" = ?'),
        (
            'insert into main."T" ("A", "B") values ("s3cret", -1)',
            'insert into main."T"("A", "B") values (?, ?)',
        ),
        ('select lower("s3cret") from t order by "A"', 'select lower(?) from t order by "A"'),
        ('select "T"."A" from "T" where "T"."A" = "s3cret"', 'select "T"."A" from "T" where "T"."A" = ?'),
        ('create table "T" ("A" text, "B" text)', 'create table "T"("A" text, "B" text)'),
        ('create table "T" ("A b" text, "B" text)', 'create table "T"("A b" text, "B" text)'),
        # Characters that names rarely have, wherever it stands.
        ('select "s3cret!", "A" from t', 'select ?, "A" from t'),
        ('select "tanaka@example.com" from t', "select ? from t"),
        ('select "A", "correct horse", b from t', 'select "A", ?, b from t'),
        ('select a from t order by "A", "b c"', 'select a from t order by "A", ?'),
        ('insert into t (a) values (?) returning "b-c"', "insert into t(a) values (?) returning ?"),
        # … but where only a name can stand.
        (
            'select a as "First name" from "my table" as "T 1"',
            'select a as "First name" from "my table" as "T 1"',
        ),
        ('select "T 1"."First name" from "T 1"', 'select "T 1"."First name" from "T 1"'),
        ('select 1 from a join "b c" on 1', 'select ? from a join "b c" on ?'),
        ('update "my table" set "a b" = "b c"', 'update "my table" set "a b" = ?'),
        (
            'insert into "my table" ("First name") values ("b c") on conflict ("First name") do nothing',
            'insert into "my table"("First name") values (?) on conflict("First name") do nothing',
        ),
        # Everything among VALUES, and in a list, whatever stands before the bracket.
        ('insert into t values ("s3cret", "b"), ("c", "d")', "insert into t values (?, ?)"),
        ('insert into key values ("s3cret")', "insert into key values (?)"),
        ('select 1 from t where key in ("s3cret", "b")', "select ? from t where key in (?)"),
        ('select 1 from a join b on lower("s3cret") = c', "select ? from a join b on lower(?) = c"),
        # The limit: a word in the list of a SELECT is taken for a column.
        ('select "secret" from t', 'select "secret" from t'),
    ],
)
def test_sqlite_takes_double_quotes_for_values_where_one_is_expected(sql: str, expected: str) -> None:
    assert normalize_sql(sql, dialect="sqlite") == expected
    assert normalize_sql(expected, dialect="sqlite") == expected
