"""Safe steps on a real PostgreSQL: nobody waits long, what was interrupted is completed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool

from mks_hardening.db import (
    BackfillProgress,
    LockRetry,
    MigrationBlockedError,
    SafeOperations,
    migration_lock,
)
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError

pytestmark = pytest.mark.postgres

QUICK = LockRetry(first=0.02, most=0.1, total=0.5)


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    made = create_engine(postgres_url, poolclass=NullPool)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE u (id bigint PRIMARY KEY)"))
        connection.execute(text("CREATE TABLE t (id bigint PRIMARY KEY, a int, b text)"))
        connection.execute(text("INSERT INTO u SELECT generate_series(1, 5000)"))
        connection.execute(text("INSERT INTO t SELECT g, g, NULL FROM generate_series(1, 5000) g"))
    yield made
    made.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as opened:
        yield opened


def _schema(engine: Engine) -> list[Any]:
    """Columns, constraints and indexes, with their state."""
    columns = (
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
        "WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1"
    )
    constraints = (
        "SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint "
        "WHERE conrelid = 't'::regclass AND contype <> 'n' ORDER BY 1"
    )
    indexes = (
        "SELECT indexrelid::regclass::text, indisvalid, pg_get_indexdef(indexrelid) FROM pg_index "
        "WHERE indrelid = 't'::regclass ORDER BY 1"
    )
    queries = (columns, constraints, indexes)
    with engine.connect() as connection:
        return [tuple(row) for query in queries for row in connection.execute(text(query))]


def _count(engine: Engine, condition: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM t WHERE {condition}")) or 0)  # noqa: S608 - conditions of the tests


def _index(operations: SafeOperations) -> None:
    operations.add_index("by_a", "t", ["a", "(lower(b))"], where="a > 0")


def _not_null(operations: SafeOperations) -> None:
    operations.set_not_null("t", "a")


def _unique(operations: SafeOperations) -> None:
    operations.add_unique("one_a", "t", ["a"])


def _foreign_key(operations: SafeOperations) -> None:
    operations.add_foreign_key("refers", "t", ["a"], "u", ["id"], on_delete="CASCADE")


def _check(operations: SafeOperations) -> None:
    operations.add_check("positive", "public.t", "a > 0 AND b IS DISTINCT FROM '100%: {}'")


def _column(operations: SafeOperations) -> None:
    operations.add_column("t", "c", "uuid", default="gen_random_uuid()", not_null=True, batch=200)


STEPS = [_index, _not_null, _unique, _foreign_key, _check, _column]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_whole_and_repeatable(
    engine: Engine, connection: Connection, step: Callable[[SafeOperations], None]
) -> None:
    before = _schema(engine)
    connection.execute(text("SET lock_timeout = '3s'"))
    connection.execute(text("SET statement_timeout = '4s'"))
    step(SafeOperations(connection))
    after = _schema(engine)
    assert after != before
    step(SafeOperations(connection))
    assert _schema(engine) == after
    assert not [row for row in after if row[0].startswith("mks_")]
    assert connection.scalar(text("SHOW lock_timeout")) == "3s"
    assert connection.scalar(text("SHOW statement_timeout")) == "4s"


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_statement_it_ends_in_the_same_schema(
    engine: Engine, postgres_url: str, step: Callable[[SafeOperations], None]
) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        step(SafeOperations(connection))
    wanted = _schema(engine)
    undo = (
        "DROP TABLE t; CREATE TABLE t (id bigint PRIMARY KEY, a int, b text); "
        "INSERT INTO t SELECT g, g, NULL FROM generate_series(1, 600) g"
    )
    for survived in range(100):
        with engine.begin() as connection:
            connection.execute(text(undo))
        victim = create_engine(postgres_url, poolclass=NullPool)
        executed: list[str] = []

        @event.listens_for(victim, "after_cursor_execute")
        def kill(
            connection: Connection,
            cursor: Any,
            statement: str,
            *_: Any,
            executed: list[str] = executed,
            limit: int = survived,
        ) -> None:
            if statement.startswith(("SET", "SHOW")):
                return
            executed.append(statement)
            if len(executed) > limit:
                connection.invalidate()  # the server rolls back what is open, as after the end of the process
                raise KilledError

        was_killed = False
        try:
            with victim.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                step(SafeOperations(connection))
        except Exception:  # noqa: BLE001 - the connection is gone, in whatever way that shows
            was_killed = True
        victim.dispose()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            step(SafeOperations(connection))
        assert _schema(engine) == wanted, executed
        assert _count(engine, "true") == 600
        if not was_killed:
            break
    else:
        pytest.fail("it never came to its end")
    assert survived > 2


@pytest.mark.parametrize("duplicates", [False, True])
def test_an_invalid_index_is_replaced(engine: Engine, connection: Connection, duplicates: bool) -> None:
    connection.execute(text("INSERT INTO t VALUES (9001, 1, 'double')"))
    with pytest.raises(IntegrityError):
        connection.execute(text("CREATE UNIQUE INDEX CONCURRENTLY one_a ON t (a)"))
    assert [row[1] for row in _schema(engine) if row[0] == "one_a"] == [False]
    operations = SafeOperations(connection)
    if duplicates:
        with pytest.raises(IntegrityError):
            operations.add_index("one_a", "t", ["a"], unique=True)
        assert [row for row in _schema(engine) if row[0] == "one_a"] == []
        return
    connection.execute(text("DELETE FROM t WHERE id = 9001"))
    operations.add_index("one_a", "t", ["a"], unique=True)
    assert [row[1] for row in _schema(engine) if row[0] == "one_a"] == [True]


@pytest.mark.parametrize(
    "existing",
    [
        "CREATE INDEX by_a ON t (a)",
        "CREATE UNIQUE INDEX by_a ON t (a, lower(b)) WHERE a > 0",
        "CREATE INDEX by_a ON t (a, lower(b)) WHERE a > 1",
        "CREATE INDEX by_a ON t (a DESC, lower(b)) WHERE a > 0",
        "CREATE INDEX by_a ON t (a, upper(b)) WHERE a > 0",
    ],
)
def test_another_index_of_the_name_is_refused(engine: Engine, connection: Connection, existing: str) -> None:
    connection.execute(text(existing))
    before = _schema(engine)
    with pytest.raises(ConfigurationError, match="by_a"):
        _index(SafeOperations(connection))
    assert _schema(engine) == before


def test_another_object_of_the_name_is_refused(connection: Connection) -> None:
    operations = SafeOperations(connection)
    operations.add_check("rule", "t", "a > 0")
    for call in (
        lambda: operations.add_check("rule", "t", "a > 1"),
        lambda: operations.add_foreign_key("rule", "t", ["a"], "u", ["id"]),
        lambda: operations.add_unique("rule", "t", ["a"]),
        lambda: operations.add_column("t", "a", "text"),
    ):
        with pytest.raises(ConfigurationError):
            call()


def test_a_backfill_changes_every_row_once_and_reports_progress(
    engine: Engine, connection: Connection
) -> None:
    seen: list[BackfillProgress] = []
    operations = SafeOperations(connection, progress=seen.append)
    assert operations.backfill("t", {"b": "'100%' || ':x' || a"}, where="b IS NULL", batch=999) == 5000
    assert [one.done for one in seen] == [999, 1998, 2997, 3996, 4995, 5000]
    assert seen[-1].last == seen[-1].upper == 5000
    assert _count(engine, "b = '100%\\:x' || a") == 5000
    assert operations.backfill("t", {"b": "'again'"}, where="b IS NULL") == 0


def test_a_killed_backfill_continues_where_it_stopped(engine: Engine) -> None:
    def kill(progress: BackfillProgress) -> None:
        if progress.done >= 2000:
            raise KilledError

    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        suppress(KilledError),
    ):
        SafeOperations(connection, progress=kill).backfill("t", {"b": "'first'"}, where="b IS NULL")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert SafeOperations(connection).backfill("t", {"b": "'second'"}, where="b IS NULL") == 3000
    assert (_count(engine, "b = 'first'"), _count(engine, "b = 'second'")) == (2000, 3000)


def test_a_blocked_change_lets_queries_pass_and_names_who_blocks(
    engine: Engine, connection: Connection
) -> None:
    started, stop = threading.Event(), threading.Event()
    failures: list[str] = []

    def read() -> None:
        """Readers that would wait behind the change for ever without its limit."""
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as reader:
            reader.execute(text("SET statement_timeout = '3s'"))
            started.set()
            while not stop.is_set():
                try:
                    reader.execute(text("SELECT count(*) FROM t WHERE id = 1"))
                except DBAPIError as error:
                    failures.append(str(error.orig))

    with engine.connect() as blocker:
        pid = blocker.scalar(text("SELECT pg_backend_pid()"))
        blocker.execute(text("SELECT * FROM t LIMIT 1"))
        thread = threading.Thread(target=read)
        thread.start()
        started.wait(30)
        try:
            with pytest.raises(MigrationBlockedError) as caught:
                SafeOperations(connection, retry=QUICK).add_column("t", "c", "int")
        finally:
            stop.set()
            thread.join(30)
    assert failures == []
    assert caught.value.attempts > 2
    assert [blocked for blocked, *_ in caught.value.blockers if blocked == pid]
    assert "SELECT" not in str(caught.value)
    SafeOperations(connection, retry=QUICK).add_column("t", "c", "int")


def test_the_limit_grows_until_it_succeeds(connection: Connection, engine: Engine) -> None:
    waits: list[float] = []
    with engine.connect() as blocker:
        blocker.execute(text("SELECT * FROM t LIMIT 1"))

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                blocker.rollback()

        attempts = LockRetry(first=0.01).run(connection, "ALTER TABLE t ADD c int", table="t", sleep=sleep)
    assert attempts == 4
    assert all(0.5 * 0.01 * 1.5**n <= wait <= 1.5 * 0.01 * 1.5**n for n, wait in enumerate(waits))


def test_a_build_that_waits_too_long_for_a_transaction_leaves_nothing(
    engine: Engine, connection: Connection
) -> None:
    before = _schema(engine)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as blocker:
        blocker.execute(text("UPDATE t SET b = 'x' WHERE id = 1"))
        with pytest.raises(MigrationBlockedError, match="idle in transaction"):
            SafeOperations(connection, retry=LockRetry(total=0.2)).add_index("by_a", "t", ["a"])
        blocker.rollback()
    SafeOperations(connection).add_index("by_a", "t", ["a"])
    assert {row[0] for row in _schema(engine)} - {row[0] for row in before} == {"by_a"}


def test_other_errors_are_raised_at_once(connection: Connection) -> None:
    with pytest.raises(DBAPIError, match="does not exist"):
        LockRetry().run(connection, "ALTER TABLE none ADD c int")
    assert connection.scalar(text("SHOW lock_timeout")) == "0"


def test_a_transaction_is_refused(engine: Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(ConfigurationError, match="autocommit"):
            SafeOperations(connection)
        with pytest.raises(ConfigurationError, match="autocommit"):
            LockRetry().run(connection, "SELECT 1")


def test_one_migrator_at_a_time(engine: Engine, connection: Connection) -> None:
    with migration_lock(engine):
        with pytest.raises(BackendUnavailableError), migration_lock(engine, wait=0):
            pass
        with migration_lock(engine, "others", wait=0):
            # The lock holds no transaction open, which a concurrent build would wait for.
            SafeOperations(connection).add_index("by_a", "t", ["a"])
    with migration_lock(engine, wait=0):
        pass


def test_a_second_migrator_waits_for_the_first(engine: Engine) -> None:
    first = migration_lock(engine)
    first.__enter__()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            first.__exit__(None, None, None)

    with migration_lock(engine, sleep=sleep):
        assert len(waits) == 2


def test_the_lock_of_a_lost_connection_is_free(engine: Engine, connection: Connection) -> None:
    with migration_lock(engine):
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))
        with migration_lock(engine, wait=30):
            pass


def test_other_databases_are_refused() -> None:
    sqlite = create_engine("sqlite://")
    with pytest.raises(ConfigurationError, match="PostgreSQL"), migration_lock(sqlite):
        pass
    with sqlite.connect() as connection, pytest.raises(ConfigurationError, match="PostgreSQL"):
        SafeOperations(connection)
    sqlite.dispose()
