"""What the linter says about locks and rewrites, against what a real PostgreSQL does."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from mks_check import MigrationLinter
from mks_check.migrations._sql_script import read_script
from mks_check.migrations._statement_reader import read_statement
from mks_check.migrations._table_locks import locks_of

pytestmark = pytest.mark.postgres

SCHEMA = """
CREATE TABLE u (id bigint PRIMARY KEY);
CREATE TABLE t (id bigint PRIMARY KEY, a int, b varchar(10), n numeric(10, 2), w timestamp, j json, x text,
    CONSTRAINT known CHECK (a > -1), CONSTRAINT proven CHECK (a IS NOT NULL));
INSERT INTO u SELECT generate_series(1, 50);
INSERT INTO t SELECT g, 1, 'b', 1, now(), '{}', 'x' FROM generate_series(1, 50) g;
ALTER TABLE t ADD CONSTRAINT waiting CHECK (a > 0) NOT VALID;
ALTER TABLE t ADD CONSTRAINT refers FOREIGN KEY (a) REFERENCES u NOT VALID;
CREATE INDEX by_a ON t (a);
CREATE UNIQUE INDEX by_id ON t (id);
CREATE TABLE parts (id bigint, a int) PARTITION BY RANGE (id);
CREATE TABLE part (id bigint, a int);
CREATE TABLE attached PARTITION OF parts FOR VALUES FROM (100) TO (200);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE FUNCTION nothing() RETURNS trigger AS 'BEGIN RETURN NEW; END' LANGUAGE plpgsql;
CREATE MATERIALIZED VIEW seen AS SELECT id FROM u;
CREATE VIEW shown AS SELECT id FROM t;
CREATE SEQUENCE numbers;
SET timezone = 'Asia/Tokyo';
"""

# Statement, and whether the server rewrites the table.
STATEMENTS: list[tuple[str, bool]] = [
    ("ALTER TABLE t ADD c int", False),
    ("ALTER TABLE t ADD c int DEFAULT 7 NOT NULL", False),
    ("ALTER TABLE t ADD c timestamptz DEFAULT now() NOT NULL", False),
    ("ALTER TABLE t ADD c timestamptz DEFAULT clock_timestamp()", True),
    ("ALTER TABLE t ADD c uuid DEFAULT gen_random_uuid()", True),
    ("ALTER TABLE t ADD c bigint DEFAULT nextval('numbers')", True),
    ("ALTER TABLE t ADD c serial", True),
    ("ALTER TABLE t ADD c bigint GENERATED ALWAYS AS IDENTITY", True),
    ("ALTER TABLE t ADD c int GENERATED ALWAYS AS (a + 1) STORED", True),
    ("ALTER TABLE t ADD c positive", True),
    ("ALTER TABLE t ADD c int CHECK (c > 0)", False),
    ("ALTER TABLE t ADD c int UNIQUE", False),
    ("ALTER TABLE t ADD c bigint REFERENCES u", False),
    ("ALTER TABLE t DROP x", False),
    ("ALTER TABLE t RENAME x TO y", False),
    ("ALTER TABLE t RENAME TO z", False),
    ("ALTER TABLE t ALTER a SET DEFAULT 1", False),
    ("ALTER TABLE t ALTER a DROP DEFAULT", False),
    ("ALTER TABLE t ALTER a DROP NOT NULL", False),
    ("ALTER TABLE t ALTER a SET NOT NULL", False),
    ("ALTER TABLE t ALTER a SET STATISTICS 50", False),
    ("ALTER TABLE t ALTER x SET STORAGE EXTERNAL", False),
    ("ALTER TABLE t SET (fillfactor = 80)", False),
    ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", False),
    ("ALTER TABLE t DISABLE TRIGGER ALL", False),
    ("ALTER TABLE t SET UNLOGGED", True),
    ("ALTER TABLE t ALTER b TYPE varchar(20)", False),
    ("ALTER TABLE t ALTER b TYPE text", False),
    ("ALTER TABLE t ALTER b TYPE varchar(5)", True),
    ("ALTER TABLE t ALTER x TYPE varchar", False),
    ("ALTER TABLE t ALTER x TYPE varchar(10)", True),
    ("ALTER TABLE t ALTER n TYPE numeric(12, 2)", False),
    ("ALTER TABLE t ALTER n TYPE numeric(12, 4)", True),
    ("ALTER TABLE t ALTER n TYPE numeric", False),
    ("ALTER TABLE t ALTER j TYPE jsonb", True),
    ("ALTER TABLE t ALTER w TYPE timestamptz", True),
    ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)", False),
    ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID", False),
    ("ALTER TABLE t VALIDATE CONSTRAINT waiting", False),
    ("ALTER TABLE t VALIDATE CONSTRAINT refers", False),
    ("ALTER TABLE t DROP CONSTRAINT known", False),
    ("ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES u", False),
    ("ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES u NOT VALID", False),
    ("ALTER TABLE t ADD UNIQUE (id, a)", False),
    ("ALTER TABLE t ADD CONSTRAINT c UNIQUE USING INDEX by_id", False),
    ("CREATE INDEX c ON t (a)", False),
    ("REINDEX TABLE t", False),
    ("CREATE TRIGGER c BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing()", False),
    ("CREATE TABLE c (id bigint REFERENCES u)", False),
    ("CREATE TABLE c PARTITION OF parts FOR VALUES FROM (1) TO (9)", False),
    ("ALTER TABLE parts ATTACH PARTITION part FOR VALUES FROM (1) TO (9)", False),
    ("ALTER TABLE parts DETACH PARTITION attached", False),
    ("TRUNCATE t", True),
    ("CLUSTER t USING by_a", True),
    ("LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE", False),
    ("UPDATE t SET a = 1 WHERE id = 1", False),
    ("DELETE FROM t WHERE id = 1", False),
    ("INSERT INTO t (id, a) VALUES (99, 1)", False),
    ("COMMENT ON TABLE t IS 'x'", False),
    ("REFRESH MATERIALIZED VIEW seen", True),
    ("CREATE OR REPLACE VIEW shown AS SELECT id FROM t", False),
    ("DROP VIEW shown", False),
    ("DROP TABLE part", False),
]

STRENGTH = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
]
# The linter knows the catalogue as far as migrations tell; these rewrites depend on what it says about the table.
REWRITES = {"MG201", "MG202", "MG203", "MG207", "MG208", "MG214", "MG501", "MG502", "MG506"}


@pytest.fixture
def connection(postgres_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_dsn) as opened:
        opened.execute(SCHEMA)
        opened.commit()
        yield opened


def _relations(connection: psycopg.Connection) -> dict[str, tuple[int, int]]:
    rows = connection.execute(
        "SELECT relname, oid::bigint, relfilenode::bigint FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
    )
    return {name: (oid, file) for name, oid, file in rows}


def _held(connection: psycopg.Connection, relations: dict[str, tuple[int, int]]) -> dict[str, str]:
    """The strongest lock that this transaction holds on each relation."""
    names = {oid: name for name, (oid, _) in relations.items()}
    rows = connection.execute(
        "SELECT relation::bigint, mode FROM pg_locks "
        "WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted"
    )
    held: dict[str, str] = {}
    for oid, mode in rows:
        if oid in names:
            held[names[oid]] = max(held.get(names[oid], mode), mode, key=STRENGTH.index)
    return held


@pytest.mark.parametrize(("sql", "is_rewritten"), STATEMENTS)
def test_locks_and_rewrites_are_what_the_server_does(
    connection: psycopg.Connection, sql: str, is_rewritten: bool
) -> None:
    before = _relations(connection)
    connection.rollback()
    connection.execute(sql)  # type: ignore[arg-type] # from a table of texts, which is no literal
    held, after = _held(connection, before), _relations(connection)
    connection.rollback()
    by_oid = dict(after.values())
    files = {name: file for name, (oid, file) in before.items() if by_oid.get(oid, file) != file}
    assert bool(files) is is_rewritten

    expected: dict[str, str] = {}
    for statement in read_script(sql).statements:
        for operation in read_statement(statement):
            expected |= locks_of(operation)
    strong = {
        name: mode for name, mode in held.items() if STRENGTH.index(mode) >= STRENGTH.index("ShareLock")
    }
    assert expected == {name: held.get(name) for name in expected}
    assert strong.keys() <= expected.keys()

    linter = MigrationLinter(server_version=connection.info.server_version // 10000, has_lock_timeout=True)
    linter.lint_sql(SCHEMA)
    found = {finding.rule_id for finding in linter.lint_sql(sql).findings}
    assert bool(found & REWRITES) is (is_rewritten or bool(found & {"MG501"}))


def test_a_proven_column_is_made_not_null_without_reading_the_table(connection: psycopg.Connection) -> None:
    linter = MigrationLinter(server_version=15, has_lock_timeout=True)
    linter.lint_sql(SCHEMA)
    assert linter.lint_sql("ALTER TABLE t ALTER a SET NOT NULL").findings == ()
    assert [one.rule_id for one in linter.lint_sql("ALTER TABLE t ALTER b SET NOT NULL").findings] == [
        "MG205"
    ]
    for column, read in (("a", False), ("b", True)):
        notices: list[str] = []
        connection.add_notice_handler(lambda notice, to=notices: to.append(str(notice.message_primary)))
        connection.execute("SET client_min_messages = debug1")
        connection.execute(f"ALTER TABLE t ALTER {column} SET NOT NULL")  # type: ignore[arg-type] # from a table
        assert any("verifying table" in notice for notice in notices) is read
        connection.rollback()
