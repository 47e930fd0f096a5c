"""The engine behind a real PgBouncer in transaction mode: what works, what is set again, and what is rejected."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from mks_hardening.db import hardened_async_engine, hardened_engine
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.tasks import Tasks, TaskWorker
from testbed.forked import in_child
from testbed.pgbouncer_server import PgBouncer
from testbed.polling import wait_until
from testbed.run_python import run_python

pytestmark = pytest.mark.postgres

DRIVERS = ["psycopg", "psycopg2", "psycopg async", "asyncpg async"]
LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
MakePooler = Callable[..., PgBouncer]


@pytest.fixture(params=["0", "200"], ids=["unprepared", "prepared"])
def url(request: pytest.FixtureRequest, postgres_url: str, make_pgbouncer: MakePooler) -> str:
    return make_pgbouncer(max_prepared_statements=request.param).through(postgres_url)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    made = hardened_engine(url, threads=4, transaction_pooling=True)
    yield made
    made.dispose()


def _run(url: str, driver: str, work: Callable[[Connection], Any], **options: Any) -> Any:
    """Run ``work`` on a connection of the driver."""
    name, _, kind = driver.partition(" ")
    url = url.replace("+psycopg", f"+{name}")
    options = {"transaction_pooling": True, **options}
    if kind != "async":
        engine = hardened_engine(url, **options)
        try:
            with engine.connect() as connection:
                return work(connection)
        finally:
            engine.dispose()

    async def run() -> Any:
        made = hardened_async_engine(url, **options)
        try:
            async with made.connect() as connection:
                return await connection.run_sync(work)
        finally:
            await made.dispose()

    return asyncio.run(run())


def _limits(connection: Connection) -> list[object]:
    return [connection.execute(text(f"SHOW {name}")).scalar() for name in LIMITS]


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_transaction_has_its_limits(url: str, driver: str) -> None:
    def work(connection: Connection) -> list[list[object]]:
        found: list[list[object]] = []
        for end in (connection.commit, connection.rollback, connection.commit):
            found.append(_limits(connection))
            end()
        return found

    given = {"statement_timeout": 0.5, "lock_timeout": 0.25, "idle_in_transaction_timeout": 7}
    assert _run(url, driver, work, **given) == [["500ms", "250ms", "7s"]] * 3


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_long_statement_is_cancelled(url: str, driver: str) -> None:
    def work(connection: Connection) -> str:
        with pytest.raises(DBAPIError) as caught:
            connection.execute(text("SELECT pg_sleep(30)"))
        connection.rollback()
        assert connection.execute(text("SELECT 1")).scalar() == 1
        return str(caught.value)

    assert "statement timeout" in _run(url, driver, work, statement_timeout=0.3)


def test_other_clients_of_the_server_are_not_limited(engine: Engine, url: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
    plain = hardened_engine(url, transaction_pooling=True, statement_timeout=0)
    with plain.connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "0"
    plain.dispose()


@pytest.mark.parametrize("isolation_level", ["READ COMMITTED", "AUTOCOMMIT"])
def test_statements_are_known_in_every_session(engine: Engine, isolation_level: str) -> None:
    # More clients than server connections: consecutive transactions run in different sessions.
    statements = [text(f"SELECT {number} + :value") for number in range(3)]
    for _ in range(12):
        with ExitStack() as stack:
            clients = [
                stack.enter_context(engine.connect()).execution_options(isolation_level=isolation_level)
                for _ in range(4)
            ]
            for client in clients:
                for number, statement in enumerate(statements):
                    assert client.execute(statement, {"value": 1}).scalar() == number + 1
                client.commit()


@pytest.mark.parametrize("isolation_level", ["READ COMMITTED", "AUTOCOMMIT"])
def test_tasks_share_the_sessions(url: str, isolation_level: str) -> None:
    async def run() -> list[object]:
        engine = hardened_async_engine(
            url.replace("+psycopg", "+asyncpg"), threads=4, transaction_pooling=True
        ).execution_options(isolation_level=isolation_level)

        async def client(number: int) -> object:
            total = 0
            for _ in range(25):
                async with engine.begin() as connection:
                    found = await connection.execute(text("SELECT CAST(:a AS int)"), {"a": number})
                    total += found.scalar_one()
            return total

        totals = await asyncio.gather(*(client(number) for number in range(4)))
        await engine.dispose()
        return totals

    assert asyncio.run(run()) == [0, 25, 50, 75]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    "statement",
    ["SET statement_timeout = 0", "SELECT pg_advisory_lock(1)", "LISTEN news", "CREATE TEMP TABLE t (a int)"],
)
def test_what_would_reach_other_clients_is_rejected(url: str, driver: str, statement: str) -> None:
    def work(connection: Connection) -> None:
        with pytest.raises(ConfigurationError) as caught:
            connection.execute(text(statement))
        assert caught.value.parameter == "transaction_pooling"
        with pytest.raises(ConfigurationError):
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        with pytest.raises(ConfigurationError):
            connection.execute(text(f"{statement} -- :a"), [{"a": 1}, {"a": 2}])
        assert (
            connection.execute(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")).scalar()
            == 0
        )

    _run(url, driver, work)


def test_what_ends_with_the_transaction_works(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL statement_timeout = '9s'"))
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "9s"
        connection.execute(text("SELECT pg_advisory_xact_lock(7)"))
        connection.execute(text("CREATE TEMP TABLE scratch (a int) ON COMMIT DROP"))
        with connection.begin_nested() as savepoint:
            savepoint.rollback()
        connection.commit()
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "30s"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_pooler_that_rejects_the_limits_is_named(url: str, driver: str) -> None:
    with pytest.raises(ConfigurationError, match="transaction_pooling=True") as caught:
        _run(url, driver, _limits, transaction_pooling=False)
    assert caught.value.parameter == "transaction_pooling"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_pooler_that_drops_the_limits_is_reported_once(
    postgres_url: str, make_pgbouncer: MakePooler, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    dropped = ",".join(("options", *LIMITS))
    pooler = make_pgbouncer(ignore_startup_parameters=dropped)
    with caplog.at_level(logging.WARNING, logger="mks_hardening.db"):
        _run(pooler.through(postgres_url), driver, _limits, transaction_pooling=False)
        assert "transaction_pooling=True" in caplog.text
        caplog.clear()
        _run(postgres_url, driver, _limits, transaction_pooling=False)
        _run(pooler.through(postgres_url), driver, _limits)
    assert not caplog.records


def test_children_and_their_parent_have_their_limits(engine: Engine) -> None:
    def limits() -> list[object]:
        with engine.connect() as connection:
            return _limits(connection)

    expected = limits()
    for _ in range(3):
        assert in_child(limits) == repr(expected)
    assert limits() == expected == ["30s", "2s", "1min"]


def test_green_threads_have_their_limits(url: str) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    program = """
from gevent import monkey, spawn, joinall
monkey.patch_all()
import sys
from sqlalchemy import text
from mks_hardening.db import hardened_engine

engine = hardened_engine(sys.argv[1], threads=8, transaction_pooling=True)


def work(number):
    for _ in range(5):
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_sleep(0.01)"))
            found.append((connection.execute(text("SHOW lock_timeout")).scalar(),
                          connection.execute(text("SELECT CAST(:n AS int)"), {"n": number}).scalar() == number))


found = []
joinall([spawn(work, number) for number in range(8)], raise_error=True)
print(len(found), set(found))
"""
    assert run_python(program, url).stdout.split("\n")[0] == "40 {('2s', True)}"


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_tasks_run_and_listen_where_the_pooler_allows_it(
    postgres_url: str, make_pgbouncer: MakePooler, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    is_transaction = mode == "transaction"
    session = {
        "pool_mode": "session",
        "ignore_startup_parameters": "options",
        "default_pool_size": "20",  # one for each connection of the engine, and one for LISTEN
    }
    given = {} if is_transaction else session
    engine = hardened_engine(
        make_pgbouncer(**given).through(postgres_url), threads=6, transaction_pooling=is_transaction
    )
    tasks = Tasks(engine)
    tasks.create_table()
    done: list[int] = []

    @tasks.task("note")
    def note(_run: object, number: int) -> None:
        done.append(number)

    # Without notifications, a task is found at the next poll.
    worker = TaskWorker(tasks, poll=0.05 if is_transaction else 60)
    with caplog.at_level(logging.WARNING, logger="mks_hardening.tasks"), worker:
        if is_transaction:
            wait_until(
                lambda: all(thread.name != "mks-task-listen" for thread in threading.enumerate()),
                what="the end of the thread that would listen",
            )
        with tasks.begin() as connection:
            note.enqueue(connection, number=1)
        wait_until(lambda: done == [1], what="the task")
    messages = [
        record.getMessage() for record in caplog.records if record.name.startswith("mks_hardening.tasks")
    ]
    assert len(messages) == is_transaction
    assert all("transaction_pooling" in each and "found by polling" in each for each in messages)
    engine.dispose()
