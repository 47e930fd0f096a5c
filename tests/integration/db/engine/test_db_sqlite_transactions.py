"""Transactions on SQLite hold everything between BEGIN and COMMIT: what was read, DDL, savepoints."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.exc import ArgumentError, InvalidRequestError, OperationalError
from sqlalchemy.orm import Session

from mks_hardening.db import hardened_async_engine, hardened_engine, retry_on_serialization_failure
from mks_hardening.exceptions import ConfigurationError

IMMEDIATE = {"sqlite_transaction_mode": "IMMEDIATE"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.sqlite'}"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    made = hardened_engine(url, threads=4, lock_timeout=5)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE counter (n INTEGER NOT NULL)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    yield made
    made.dispose()


def _add_one(connection: Connection) -> None:
    read = connection.execute(text("SELECT n FROM counter")).scalar_one()
    connection.execute(text("UPDATE counter SET n = :n"), {"n": read + 1})


def _count(engine: Engine) -> int:
    with engine.connect() as connection:
        count: int = connection.execute(text("SELECT n FROM counter")).scalar_one()
        return count


@pytest.mark.parametrize("options", [{}, IMMEDIATE], ids=["retried", "declared"])
def test_what_was_read_is_still_so_when_it_is_written(engine: Engine, options: dict[str, str]) -> None:
    used = engine.execution_options(**options)

    # Nothing is tried again where the transaction waits for its turn first.
    @retry_on_serialization_failure(attempts=1 if options else 50)
    def add_one(_: int) -> None:
        with used.begin() as connection:
            _add_one(connection)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add_one, range(100)))
    assert _count(engine) == 100


CHILD = """
import sys
from sqlalchemy import text
from mks_hardening.db import hardened_engine
engine = hardened_engine(sys.argv[1], lock_timeout=60).execution_options(sqlite_transaction_mode="IMMEDIATE")
for _ in range(50):
    with engine.begin() as connection:
        read = connection.execute(text("SELECT n FROM counter")).scalar_one()
        connection.execute(text("UPDATE counter SET n = :n"), {"n": read + 1})
"""


def test_processes_wait_for_their_turn(engine: Engine, url: str) -> None:
    running = [subprocess.Popen([sys.executable, "-c", CHILD, url]) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert _count(engine) == 100


def _on_aiosqlite(url: str, work: Callable[[Connection], None], **options: Any) -> None:
    async def run() -> None:
        engine = hardened_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"), **options)
        async with engine.connect() as connection:
            await connection.run_sync(work)
        await engine.dispose()

    asyncio.run(run())


@pytest.mark.parametrize("driver", ["sqlite3", "aiosqlite"])
def test_a_rolled_back_transaction_leaves_nothing(engine: Engine, url: str, driver: str) -> None:
    def work(connection: Connection) -> None:
        with connection.begin_nested():
            _add_one(connection)
        connection.rollback()
        connection.execute(text("CREATE TABLE left_over (n INTEGER)"))
        _add_one(connection)
        connection.rollback()
        with connection.begin_nested() as savepoint:
            _add_one(connection)
            savepoint.rollback()
        _add_one(connection)
        connection.commit()

    if driver == "sqlite3":
        with engine.connect() as connection:
            work(connection)
    else:
        _on_aiosqlite(url, work)
    assert _count(engine) == 1
    assert not inspect(engine).has_table("left_over")


def test_tasks_of_asyncio_add_up(engine: Engine, url: str) -> None:
    async def run() -> None:
        asynchronous = hardened_async_engine(
            url.replace("sqlite:", "sqlite+aiosqlite:"), threads=4, lock_timeout=30
        )
        declared = asynchronous.execution_options(**IMMEDIATE)

        async def add_one() -> None:
            async with declared.begin() as connection:
                await connection.run_sync(_add_one)

        await asyncio.gather(*(add_one() for _ in range(20)))
        await asynchronous.dispose()

    asyncio.run(run())
    assert _count(engine) == 20


def test_a_reader_and_a_writer_do_not_wait_for_each_other(engine: Engine) -> None:
    with engine.connect() as reader, engine.connect().execution_options(**IMMEDIATE) as writer:
        _add_one(writer)
        assert reader.execute(text("SELECT n FROM counter")).scalar() == 0
        writer.commit()
        assert reader.execute(text("SELECT n FROM counter")).scalar() == 0  # of one moment
        reader.rollback()
        assert reader.execute(text("SELECT n FROM counter")).scalar() == 1


def test_a_second_writer_is_told_to_try_again(url: str, engine: Engine) -> None:
    impatient = hardened_engine(url, lock_timeout=0.05, threads=2).execution_options(**IMMEDIATE)
    with engine.connect().execution_options(**IMMEDIATE) as first:
        first.begin()
        with impatient.connect() as second, pytest.raises(OperationalError) as caught:
            second.begin()
        assert isinstance(caught.value.orig, sqlite3.OperationalError)
        assert caught.value.orig.sqlite_errorname == "SQLITE_BUSY"
    with impatient.begin() as second:  # the connection is as good as new
        _add_one(second)
    impatient.dispose()
    assert _count(engine) == 1


@pytest.mark.parametrize("through", ["connection", "engine", "create_engine", "session", "connect_args"])
def test_the_mode_can_be_said_everywhere(url: str, engine: Engine, through: str) -> None:
    given: dict[str, Any] = {}
    if through == "create_engine":
        given = {"execution_options": IMMEDIATE}
    elif through == "connect_args":
        given = {"connect_args": {"isolation_level": "IMMEDIATE"}}
    made = hardened_engine(url, **given)
    used = made.execution_options(**IMMEDIATE) if through == "engine" else made

    def is_locked() -> bool:
        impatient = hardened_engine(url, lock_timeout=0)
        try:
            with impatient.begin() as other:
                _add_one(other)
        except OperationalError:
            return True
        finally:
            impatient.dispose()
        return False

    if through == "session":
        with Session(used) as session:
            session.connection(execution_options=IMMEDIATE)
            assert is_locked()
    else:
        options = IMMEDIATE if through == "connection" else {}
        with used.connect().execution_options(**options) as connection:
            connection.begin()
            assert is_locked()
    # The next one to use the connection has not asked for it.
    if through in {"connection", "engine", "session"}:
        with made.connect() as connection:
            connection.begin()
            assert not is_locked()
    made.dispose()


def test_autocommit_begins_nothing(engine: Engine, url: str) -> None:
    for used in (
        engine.execution_options(isolation_level="AUTOCOMMIT"),
        engine.execution_options(isolation_level="AUTOCOMMIT", **IMMEDIATE),
        engine.execution_options(**IMMEDIATE).execution_options(isolation_level="AUTOCOMMIT"),
        hardened_engine(url, isolation_level="AUTOCOMMIT"),
    ):
        with used.connect() as connection:
            _add_one(connection)
            connection.exec_driver_sql("VACUUM")
        used.dispose()
    assert _count(engine) == 4
    with engine.connect() as connection:  # which was AUTOCOMMIT before
        _add_one(connection)
        connection.rollback()
    assert _count(engine) == 4


def test_an_application_that_begins_by_itself_still_does(url: str, engine: Engine) -> None:
    own = hardened_engine(url, connect_args={"isolation_level": None})

    @event.listens_for(own, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")

    with own.connect() as connection:
        _add_one(connection)
        connection.rollback()
    own.dispose()
    assert _count(engine) == 0


def test_a_wrong_mode_or_one_that_comes_late_is_refused(engine: Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(ConfigurationError, match="sqlite_transaction_mode"):
            connection.execution_options(sqlite_transaction_mode="SERIALIZABLE")
        connection.begin()
        with pytest.raises(InvalidRequestError, match="sqlite_transaction_mode"):
            connection.execution_options(**IMMEDIATE)


LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@pytest.mark.parametrize("driver", ["sqlite3", "aiosqlite"])
@pytest.mark.parametrize("level", LEVELS)
def test_an_isolation_level_of_postgresql_holds(engine: Engine, url: str, level: str, driver: str) -> None:
    writing = engine.execution_options(**IMMEDIATE)

    def work(connection: Connection) -> None:
        assert _read(connection) == 0
        with writing.begin() as other:
            _add_one(other)
        assert _read(connection) == 0  # of one moment
        with pytest.raises(OperationalError):  # a lost update is refused
            _add_one(connection)
        connection.rollback()
        assert _read(connection) == 1

    if driver == "sqlite3":
        chosen = hardened_engine(url, isolation_level=level)
        with chosen.connect() as connection:
            work(connection)
        chosen.dispose()
    else:
        _on_aiosqlite(url, work, isolation_level=level)


def _read(connection: Connection) -> int:
    found: int = connection.execute(text("SELECT n FROM counter")).scalar_one()
    return found


@pytest.mark.parametrize("level", LEVELS)
def test_an_isolation_level_keeps_the_transaction_mode(engine: Engine, url: str, level: str) -> None:
    chosen = hardened_engine(url, lock_timeout=0.05)
    together = chosen.execution_options(isolation_level=level, **IMMEDIATE)
    with together.connect() as one, engine.connect().execution_options(**IMMEDIATE) as holder:
        holder.begin()
        with pytest.raises(OperationalError):  # BEGIN IMMEDIATE waits for the lock
            one.begin()
        holder.rollback()
    with chosen.connect().execution_options(**IMMEDIATE) as one, engine.connect() as holder:
        one.execution_options(isolation_level=level)
        holder.execution_options(**IMMEDIATE).begin()
        with pytest.raises(OperationalError):
            one.begin()
        holder.rollback()
    chosen.dispose()


def test_an_unknown_isolation_level_is_refused(url: str) -> None:
    chosen = hardened_engine(url, isolation_level="SNAPSHOT")
    with pytest.raises(ArgumentError, match="REPEATABLE READ"):
        chosen.connect()
    chosen.dispose()
