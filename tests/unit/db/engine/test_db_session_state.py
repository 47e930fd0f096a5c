"""Which statements leave something in the session, and how they look without doing so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening.db.engine._session_state import session_state_of

LEAVING = {
    "a setting of the session": [
        "SET statement_timeout = 0",
        "set session statement_timeout = 0",
        "SET search_path TO tenant, public",
        "SET ROLE admin",
        "SET SESSION AUTHORIZATION 'x'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET TIME ZONE 'Asia/Tokyo'",
        "  -- a comment\n SET x.y = 1",
        "/* SET LOCAL /* nested */ */ SET a = 1",
        "SELECT 1; SET a = 1",
        "RESET ALL",
        "DISCARD ALL",
        "SELECT set_config('a', 'b', false)",
        "SELECT set_config('a', %(value)s, %(local)s)",
        "SELECT set_config('true', coalesce(x, true), false)",
        "SELECT pg_catalog.\"set_config\"('a', 'b', false)",
        "SELECT set_config('a', 'b', true), set_config('a', 'b', false)",
        "SELECT set_config('a', 'b', 'true",
    ],
    "an advisory lock of the session": [
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(1, 2)",
        "SELECT x FROM t WHERE PG_TRY_ADVISORY_LOCK (id)",
        "WITH l AS (SELECT pg_catalog.pg_advisory_lock(%(key)s)) SELECT * FROM l",
    ],
    "a LISTEN": ["LISTEN channel", "listen channel"],
    "a prepared statement": ["PREPARE p AS SELECT 1", "PREPARE p (int) AS SELECT $1"],
    "a loaded library": ["LOAD 'auto_explain'"],
    "a cursor WITH HOLD": ["DECLARE c CURSOR WITH HOLD FOR SELECT 1"],
    "a temporary table": [
        "CREATE TEMP TABLE t (a int)",
        "CREATE LOCAL TEMPORARY TABLE t AS SELECT 1",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
        "CREATE TEMP TABLE t (a int) ON COMMIT DELETE ROWS",
        "SELECT * INTO TEMP t FROM u",
    ],
}
HARMLESS = [
    "",
    ";;",
    "SELECT 1",
    "SET LOCAL statement_timeout = 0",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET CONSTRAINTS ALL DEFERRED",
    "UPDATE t SET a = 1",
    "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2",
    "ALTER TABLE t ALTER a SET DEFAULT 1",
    "ALTER ROLE app SET statement_timeout = 0",
    "SELECT set_config('a', 'b', true)",
    "SELECT set_config('a', concat('(', %(value)s), true)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_advisory_unlock(1)",
    "SELECT 'SET a = 1; LISTEN b', $$ SET a = 1 $$, \"set\" FROM t -- SET a = 1",
    "SELECT pg_advisory_lock FROM t",
    "SELECT temp FROM t",
    "CREATE TABLE temp (hold int, set_config int)",
    "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
    "CREATE INDEX temp ON t (a)",
    "PREPARE TRANSACTION 'x'",
    "DECLARE c CURSOR FOR SELECT hold FROM t",
    "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
    "NOTIFY channel",
]


@pytest.mark.parametrize(("name", "statements"), LEAVING.items())
def test_what_stays_is_named(name: str, statements: list[str]) -> None:
    found = {statement: session_state_of(statement) for statement in statements}
    assert {statement: state and state.name for statement, state in found.items()} == dict.fromkeys(
        statements, name
    )


def test_what_ends_with_its_transaction_is_allowed() -> None:
    assert {statement: state for statement in HARMLESS if (state := session_state_of(statement))} == {}


@given(
    before=st.lists(st.sampled_from(HARMLESS), max_size=3),
    leaving=st.sampled_from([one for some in LEAVING.values() for one in some]),
    space=st.sampled_from([" ", "\n", "/* x */", "-- y\n"]),
    length=st.sampled_from([0, 1, 2100]),
)
def test_statements_before_it_hide_nothing(before: list[str], leaving: str, space: str, length: int) -> None:
    text = ";".join((*(f"{one}\n" for one in before), space * length + leaving))
    assert session_state_of(text) == session_state_of(leaving) is not None


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    session_state_of(text)
    session_state_of(f"SET {text}")


PIECES = [
    *("set", "SET a = 1", "SET LOCAL a = 1", "update t set a = 1", "reset all", "listen x", "discard all"),
    *("prepare x as", "prepare transaction 'x'", "load 'x'", "declare c cursor", "with hold", "threshold"),
    *("create temp table t (a int)", "on commit drop", "set_config('a', 'b', true)", "pg_advisory_lock(1)"),
    *(" ", "\n", ";", "--x\n", "/* set */", "/* /* */ */", "'", "$$", "(", "\u3000"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=6), st.sampled_from(["", " "]))
def test_what_looks_harmless_is_harmless(pieces: list[str], space: str) -> None:
    """The words in the comment make it look suspicious, so that it is read token by token."""
    text = space.join(pieces)
    assert session_state_of(text) == session_state_of(f"{text}\n/* listen; hold */")
