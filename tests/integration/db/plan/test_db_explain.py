"""Explain: plans of everything that has one, and nothing changed by asking."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    DateTime,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db_engines import engine  # noqa: F401 - a fixture
from mks_hardening.db import explain, hardened_engine
from mks_hardening.exceptions import ConfigurationError

METADATA = MetaData()
PARTS = Table(
    "parts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), index=True),
    Column("price", Numeric(10, 2)),
    Column("made", DateTime(timezone=True)),
    Column("data", LargeBinary),
)
RICH = Table(
    "rich",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("doc", JSONB),
    Column("tags", ARRAY(String)),
)


@pytest.fixture
def parts(engine: Engine) -> Iterator[Engine]:  # noqa: F811 - the fixture
    METADATA.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(PARTS), [{"id": n, "name": f"part {n}"} for n in range(50)])
    yield engine
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(PARTS)).scalar() == 50
        assert (
            connection.execute(select(func.count()).select_from(PARTS).where(PARTS.c.name == "x")).scalar()
            == 0
        )


HARMLESS = {
    "select": select(PARTS).where(PARTS.c.name == "part 7"),
    "list": select(PARTS).where(PARTS.c.id.in_([1, 2, 3])),
    "empty list": select(PARTS).where(PARTS.c.id.in_([])),
    "like": select(PARTS).where(PARTS.c.name.like("100%")),
    "percent": text("SELECT * FROM parts WHERE name = '100%'"),
    "typed": select(PARTS).where(
        PARTS.c.price > Decimal("1.5"),
        PARTS.c.made < datetime(2024, 1, 1, tzinfo=UTC),
        PARTS.c.data == b"\x00'\xff",
    ),
    "text": "SELECT * FROM parts",
    "text with binds": text("SELECT * FROM parts WHERE id = :id").bindparams(id=3),
    "in brackets": "(SELECT id FROM parts) UNION (SELECT id FROM parts)",
    "values": "VALUES (1), (2)",
    "with": "WITH a AS (SELECT 1 AS b) SELECT b FROM a",
    "insert": insert(PARTS).values(id=999, name="x"),
    "insert text": "INSERT INTO parts (id, name) VALUES (999, 'x')",
    "update": update(PARTS).values(name="x"),
    "delete": delete(PARTS),
    "delete text": "DELETE FROM parts",
    "comment": "/* DELETE */ SELECT 1 -- ; DELETE FROM parts",
    "semicolon in a string": "SELECT ';' FROM parts",
    "semicolon at the end": "SELECT 1;",
}


@pytest.mark.parametrize("statement", HARMLESS.values(), ids=HARMLESS)
def test_everything_with_a_plan_has_one_and_nothing_changes(parts: Engine, statement: Any) -> None:
    if parts.dialect.name == "sqlite" and isinstance(statement, str) and statement.startswith("("):
        return
    plan = explain(parts, statement)
    assert plan.execution_ms is None
    assert str(plan) == plan.text


REFUSED = [
    "SELECT 1; DELETE FROM parts",
    "SELECT 1; COMMIT; DELETE FROM parts",
    "ANALYZE DELETE FROM parts",
    "(ANALYZE) DELETE FROM parts",
    "(DELETE FROM parts)",
    "VERBOSE DELETE FROM parts",
    "EXPLAIN ANALYZE DELETE FROM parts",
    "DROP TABLE parts",
    "TRUNCATE parts",
    "COMMIT",
    "VACUUM",
    "PRAGMA user_version = 7",
    "CREATE TABLE x (a int)",
    "CREATE TABLE x AS SELECT 1",
    "DO $$ BEGIN DELETE FROM parts; END $$",
    "COPY parts TO '/tmp/x'",
    "CALL something()",
    "EXECUTE x",
    "",
    ";",
    "/* only a comment */",
    "SELECT $$ ; $$; DELETE FROM parts",
    17,
    None,
]


@pytest.mark.parametrize("statement", REFUSED, ids=repr)
def test_anything_else_is_refused(parts: Engine, statement: Any) -> None:
    with pytest.raises(ConfigurationError, match="statement"):
        explain(parts, statement)


def test_a_full_scan_and_an_index_are_told_apart(parts: Engine) -> None:
    assert explain(parts, select(PARTS).where(PARTS.c.price == 1)).full_scans == ("parts",)
    with parts.begin() as connection:
        if parts.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = explain(connection, select(PARTS.c.id, PARTS.c.price).where(PARTS.c.name == "part 7"))
    assert plan.full_scans == ()
    assert plan.indexes == ("ix_parts_name",)
    assert "ix_parts_name" in plan.text


def test_the_callers_transaction_stays_as_it_was(parts: Engine) -> None:
    with parts.connect() as connection:
        connection.execute(insert(PARTS).values(id=700, name="mine"))
        explain(connection, delete(PARTS))
        with pytest.raises(DBAPIError):
            explain(connection, "SELECT * FROM nowhere")
        connection.execute(insert(PARTS).values(id=701, name="mine"))
        assert connection.execute(select(func.count()).select_from(PARTS)).scalar() == 52
        connection.rollback()
        explain(connection, select(PARTS))
        assert not connection.in_transaction()


def test_sessions_are_binds_too(parts: Engine) -> None:
    with Session(parts) as session:
        session.execute(insert(PARTS).values(id=700, name="mine"))
        assert explain(session, select(PARTS)).full_scans == ("parts",)
        assert session.execute(select(func.count()).select_from(PARTS)).scalar() == 51


def test_other_databases_are_refused(parts: Engine) -> None:
    if parts.dialect.name == "sqlite":
        with pytest.raises(ConfigurationError, match="analyze"):
            explain(parts, select(PARTS), analyze=True)


# --- PostgreSQL only -------------------------------------------------------------------------


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Engine]:
    made = hardened_engine(postgres_url)
    METADATA.create_all(made)
    RICH.create(made)
    with made.begin() as connection:
        connection.execute(text("CREATE SEQUENCE counter"))
        connection.execute(
            text(
                "CREATE FUNCTION sneaky() RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS "
                "$$ BEGIN RETURN nextval('counter'); END $$"
            )
        )
        connection.execute(insert(PARTS), [{"id": n, "name": f"part {n}"} for n in range(50)])
    yield made
    with made.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM parts")).scalar() == 50
        assert connection.execute(text("SELECT is_called FROM counter")).scalar() is False
    made.dispose()


@pytest.mark.postgres
@pytest.mark.parametrize(
    "statement",
    [
        "WITH gone AS (DELETE FROM parts RETURNING id) SELECT * FROM gone",
        "DELETE FROM parts",
        "UPDATE parts SET name = 'x'",
        "INSERT INTO parts (id) VALUES (999)",
        "SELECT * FROM parts FOR UPDATE",
        "SELECT nextval('counter')",
        "SELECT sneaky()",
        insert(PARTS).values(id=999),
    ],
    ids=str,
)
def test_analyze_cannot_write(postgres: Engine, statement: Any) -> None:
    with postgres.connect() as connection:
        with pytest.raises(DBAPIError) as caught:
            explain(connection, statement, analyze=True)
        assert getattr(caught.value.orig, "sqlstate", None) == "25006"
        connection.execute(insert(PARTS).values(id=800))
        connection.rollback()


BEYOND_A_ROLLBACK = [
    "SELECT pg_advisory_lock(7)",
    "SELECT PG_CATALOG . Pg_Try_Advisory_Lock ( 7 )",
    'SELECT "pg_advisory_lock"(7)',
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE false",
    "SELECT pg_cancel_backend(0)",
    "SELECT pg_reload_conf()",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SELECT pg_stat_reset()",
    "SELECT * FROM pg_advisory_lock(7)",
    "SELECT 1 FROM parts WHERE id = 1 OR pg_advisory_lock(7) IS NULL",
    "SELECT * FROM (VALUES (1), ((SELECT 1 FROM pg_advisory_lock(7)))) AS v",
    "VALUES (1, NULL), (2, pg_advisory_lock(7)::text)",
    "SELECT 1 LIMIT CASE WHEN pg_try_advisory_lock(7) THEN 1 END",
    "SELECT * FROM locking",
    "SELECT * FROM locking_rows",
    "SELECT * FROM over_locking_rows",
    "SELECT id FROM locking_limit",
    "VALUES (locks_by_default()), (1)",
    "SELECT locks_each(id) FROM parts",
    "SELECT setseed(0.5)",
    "SELECT locks(7)",
    "WITH a AS MATERIALIZED (SELECT pg_advisory_lock(7)) SELECT * FROM a",
]


# What neither the statement nor its plan shows.
BEHIND_A_NAME = [
    "CREATE VIEW locking_rows AS VALUES (pg_try_advisory_lock(7)), (false)",
    "CREATE VIEW over_locking_rows AS SELECT * FROM locking_rows",
    "CREATE VIEW locking_limit AS SELECT id FROM parts LIMIT CASE WHEN pg_try_advisory_lock(7) THEN 1 END",
    (
        "CREATE FUNCTION locks_by_default(a bool DEFAULT pg_try_advisory_lock(7)) RETURNS int LANGUAGE sql "
        "IMMUTABLE AS 'SELECT 1'"
    ),
    "CREATE FUNCTION lock_one(a boolean, b int) RETURNS boolean LANGUAGE sql AS 'SELECT pg_try_advisory_lock(7)'",
    "CREATE AGGREGATE locks_each(int) (sfunc = lock_one, stype = boolean)",
]


@pytest.mark.postgres
@pytest.mark.parametrize("statement", BEYOND_A_ROLLBACK, ids=str)
def test_analyze_does_not_run_what_no_rollback_undoes(postgres: Engine, statement: str) -> None:
    with postgres.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW locking AS SELECT pg_try_advisory_lock(7)")
        connection.exec_driver_sql(
            "CREATE FUNCTION locks(n int) RETURNS int LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_advisory_lock(n); RETURN n; END'"
        )
        for made in BEHIND_A_NAME:
            connection.exec_driver_sql(made)
    with postgres.connect() as connection:
        with pytest.raises(ConfigurationError, match="VOLATILE"):
            explain(connection, statement, analyze=True)
        held = connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert held.scalar() == 0
    assert explain(postgres, statement).execution_ms is None


@pytest.mark.postgres
@pytest.mark.parametrize(
    "statement",
    [
        r'VALUES (U&"pg_try_advisory\005flock"(7))',
        """SELECT 1 LIMIT CASE WHEN u&"pg_try_advisory!005flock" UESCAPE '!' (7) THEN 1 END""",
    ],
)
def test_analyze_runs_no_names_that_it_cannot_read(postgres: Engine, statement: str) -> None:
    with postgres.connect() as connection:
        with pytest.raises(ConfigurationError, match="U&"):
            explain(connection, statement, analyze=True)
        held = connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert held.scalar() == 0


@pytest.mark.postgres
@pytest.mark.parametrize("analyze", [False, True])
@pytest.mark.parametrize(
    "rule",
    [
        "DO ALSO SELECT pg_try_advisory_lock(7)",
        "DO INSTEAD NOTHING",
        "DO ALSO NOTIFY somebody",
    ],
)
def test_what_rules_make_of_a_statement_must_be_one(postgres: Engine, rule: str, analyze: bool) -> None:
    with postgres.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE ruled (id int)")
        connection.exec_driver_sql(f"CREATE RULE more AS ON UPDATE TO ruled {rule}")
    with postgres.connect() as connection:
        with pytest.raises(ConfigurationError, match="rules"):
            explain(connection, "UPDATE ruled SET id = 1", analyze=analyze)
        held = connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert held.scalar() == 0


@pytest.mark.postgres
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT random(), clock_timestamp(), gen_random_uuid() FROM parts",
        "SELECT 'pg_advisory_lock(7)' AS quoted, count(*), coalesce(max(name), '') FROM parts",
        "SELECT pg_advisory_xact_lock(7)",
    ],
)
def test_analyze_runs_what_is_harmless(postgres: Engine, statement: str) -> None:
    with postgres.connect() as connection:
        assert explain(connection, statement, analyze=True).execution_ms is not None
        held = connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert held.scalar() == 0


@pytest.mark.postgres
@pytest.mark.parametrize("analyze", [False, True])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * INTO copied FROM parts",
        "SELECT id INTO TEMP copied FROM parts",
        "WITH a AS (SELECT 1 AS b) SELECT b INTO UNLOGGED copied FROM a",
        "(SELECT id INTO copied FROM parts)",
        "SELECT id into copied FROM parts UNION SELECT 1",
    ],
)
def test_select_into_is_refused(postgres: Engine, statement: str, analyze: bool) -> None:
    with postgres.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises(ConfigurationError, match="INTO") as caught:
            explain(connection, statement, analyze=analyze)
        assert caught.value.parameter == "statement"
        assert connection.exec_driver_sql("SELECT to_regclass('copied')").scalar() is None


@pytest.mark.postgres
def test_plain_explain_cannot_write_through_a_mislabelled_function(postgres: Engine) -> None:
    with pytest.raises(DBAPIError):
        explain(postgres, "SELECT sneaky()")


@pytest.mark.postgres
def test_analyze_measures(postgres: Engine) -> None:
    plan = explain(postgres, select(PARTS).where(PARTS.c.id < 10), analyze=True)
    assert plan.execution_ms is not None
    assert plan.cost is not None
    assert plan.tree["Plan"]["Actual Rows"] == 10
    assert "actual rows=10" in plan.text


@pytest.mark.postgres
def test_rich_types_are_bound_as_always(postgres: Engine) -> None:
    explain(
        postgres, select(RICH).where(RICH.c.doc.contains({"a": [1, "%"]}), RICH.c.tags.contains(["x", "y'"]))
    )
    explain(postgres, insert(RICH).values(id=1, doc={"a": None}, tags=["%s", "%(x)s"]))


@pytest.mark.postgres
def test_autocommit_connections_are_protected_too(postgres: Engine) -> None:
    with postgres.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises(DBAPIError):
            explain(connection, "DELETE FROM parts", analyze=True)
        assert explain(connection, select(PARTS), analyze=True).full_scans == ("parts",)
