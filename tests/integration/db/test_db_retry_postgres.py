"""Retry on PostgreSQL: connections that are lost before, during and instead of COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine  # noqa: TC002 - readers of the annotations
from sqlalchemy.orm import Session

from mks_hardening.db import (
    hardened_async_engine,
    hardened_engine,
    query_budget,
    retry_on_serialization_failure,
    watch_queries,
)
from testbed import services
from testbed.fault_proxy import FaultProxy
from testbed.postgres_server import PostgresServer

pytestmark = pytest.mark.postgres

INSERT = text("INSERT INTO orders VALUES (:number)")
retried = retry_on_serialization_failure(backoff=0.001)


@pytest.fixture
def url(
    postgres_server: PostgresServer, postgres_url: str, make_fault_proxy: Callable[..., FaultProxy]
) -> Iterator[tuple[str, FaultProxy, Engine]]:
    """A URL through a proxy, the proxy, and an engine past it on which the results are looked at."""
    proxy = make_fault_proxy(postgres_server.host, postgres_server.port)
    direct = create_engine(postgres_url)
    with direct.begin() as connection:
        connection.execute(text("CREATE TABLE orders (number int)"))
    yield proxy.through(postgres_url), proxy, direct
    direct.dispose()


Setting = tuple[str, FaultProxy, Engine]


def _count(direct: Engine) -> int:
    with direct.connect() as connection:
        count: int = connection.execute(text("SELECT count(*) FROM orders")).scalar_one()
        return count


def _run(url: str, driver: str, work: Callable[[Connection], None], **options: Any) -> int:
    """Run ``work`` in a retried transaction of the driver; return the number of calls."""
    calls: list[int] = []
    name, _, kind = driver.partition(" ")
    url = url.replace("+psycopg", f"+{name}")
    decorate = retry_on_serialization_failure(backoff=0.001, **options)

    if kind == "async":

        async def run() -> int:
            engine = hardened_async_engine(url)

            @decorate
            async def place() -> None:
                calls.append(1)
                async with engine.begin() as connection:
                    await connection.run_sync(work)

            try:
                await place()
            finally:
                await engine.dispose()
            return len(calls)

        return asyncio.run(run())

    engine = hardened_engine(url)

    @decorate
    def place() -> None:
        calls.append(1)
        with engine.begin() as connection:
            work(connection)

    try:
        place()
    finally:
        engine.dispose()
    return len(calls)


def _insert(connection: Connection) -> None:
    connection.execute(INSERT, {"number": 1})


DRIVERS = ["psycopg", "psycopg2", "psycopg async", "asyncpg async"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connection_lost_before_commit_costs_nothing(url: Setting, driver: str) -> None:
    through, proxy, direct = url
    proxy.lose_reply(matching=b"INSERT")
    assert _run(through, driver, _insert) == 2
    assert _count(direct) == 1


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connection_lost_at_commit_is_left_to_the_application(url: Setting, driver: str) -> None:
    through, proxy, direct = url
    proxy.lose_reply(matching=b"COMMIT")
    with pytest.raises(DBAPIError) as caught:
        _run(through, driver, _insert)
    assert any("idempotent=True" in note for note in caught.value.__notes__)
    assert _count(direct) == 1  # it was committed; another call would have inserted again


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_declared_function_runs_again_after_commit(url: Setting, driver: str) -> None:
    through, proxy, direct = url

    def insert_once(connection: Connection) -> None:
        connection.execute(
            text("INSERT INTO orders SELECT 1 WHERE NOT EXISTS (SELECT FROM orders WHERE number = 1)")
        )

    proxy.lose_reply(matching=b"COMMIT")
    assert _run(through, driver, insert_once, idempotent=True) == 2
    assert _count(direct) == 1


@pytest.mark.parametrize("engine_kind", ["autocommit", "text", "not hardened"])
def test_a_connection_lost_where_nothing_is_known_is_not_repeated(url: Setting, engine_kind: str) -> None:
    through, proxy, direct = url
    engine = (create_engine if engine_kind == "not hardened" else hardened_engine)(through)
    if engine_kind == "autocommit":
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    calls: list[int] = []

    @retried
    def place() -> None:
        calls.append(1)
        with engine.begin() as connection:
            connection.execute(INSERT, {"number": 1})
            if engine_kind == "text":
                connection.execute(text("/* by hand */ COMMIT"))

    with engine.connect():  # whatever a first connection needs
        pass
    proxy.lose_reply(matching=b"COMMIT" if engine_kind == "text" else b"INSERT")
    with pytest.raises(DBAPIError):
        place()
    assert len(calls) == 1
    assert _count(direct) == (0 if engine_kind == "not hardened" else 1)
    engine.dispose()


def test_the_lost_connection_is_found_behind_the_errors_of_tasks(url: Setting) -> None:
    through, proxy, direct = url
    calls: list[int] = []

    async def run() -> None:
        engine: AsyncEngine = hardened_async_engine(through)

        @retried
        async def place() -> None:
            calls.append(1)

            async def insert(connection: AsyncConnection) -> None:
                try:
                    await connection.execute(INSERT, {"number": 1})
                except DBAPIError as error:
                    raise RuntimeError("of the application") from error

            async with engine.begin() as connection, asyncio.TaskGroup() as tasks:
                tasks.create_task(insert(connection))

        await place()
        await engine.dispose()

    proxy.lose_reply(matching=b"INSERT")
    asyncio.run(run())
    assert len(calls) == 2
    assert _count(direct) == 1


def test_each_call_is_counted_apart(url: Setting) -> None:
    through, proxy, _ = url
    engine = hardened_engine(through)

    @retried
    def place() -> None:
        with engine.begin() as connection:
            for number in range(2):
                connection.execute(INSERT, {"number": number})

    proxy.lose_reply(matching=b"INSERT", number=2)
    with watch_queries(engine) as log, query_budget(2, engine):
        place()
    assert len(log.statements) == 2
    engine.dispose()


# --- conflicts and savepoints ----------------------------------------------------------------


def _conflicting(engine: Engine, bump: Callable[[Session], None]) -> list[int]:
    """Let two threads read, wait for each other and then write, under REPEATABLE READ."""
    both = Barrier(2)
    calls: list[int] = []

    @retried
    def transfer(_: int) -> None:
        calls.append(1)
        with Session(engine) as session, session.begin():
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            session.execute(text("SELECT number FROM orders")).all()
            if len(calls) <= 2:
                both.wait()
            bump(session)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(transfer, range(2)))
    return calls


def _bump(session: Session) -> None:
    session.execute(text("UPDATE orders SET number = number + 1"))


def _bump_in_savepoint(session: Session) -> None:
    with session.begin_nested():
        _bump(session)


def _bump_with_own_decorator(session: Session) -> None:
    retried(_bump)(session)


def _bump_with_own_decorator_and_savepoint(session: Session) -> None:
    retry_on_serialization_failure(attempts=2, backoff=0.001)(_bump_in_savepoint)(session)


@pytest.mark.parametrize(
    "bump", [_bump, _bump_in_savepoint, _bump_with_own_decorator, _bump_with_own_decorator_and_savepoint]
)
def test_the_whole_transaction_runs_again(url: Setting, bump: Callable[[Session], None]) -> None:
    through, _, direct = url
    with direct.begin() as connection:
        connection.execute(INSERT, {"number": 0})
    engine = hardened_engine(through, threads=2)
    calls = _conflicting(engine, bump)
    with direct.connect() as connection:
        assert connection.execute(text("SELECT number FROM orders")).scalar() == 2
    assert len(calls) == 3
    engine.dispose()


@pytest.mark.parametrize("in_savepoint", [False, True])
def test_an_inner_decorator_leaves_a_lost_connection_to_the_outer_one(
    url: Setting, in_savepoint: bool
) -> None:
    through, proxy, direct = url
    engine = hardened_engine(through)
    calls: list[int] = []

    @retried
    def insert(session: Session) -> None:
        if in_savepoint:
            with session.begin_nested():
                session.execute(INSERT, {"number": 1})
        else:
            session.execute(INSERT, {"number": 1})

    @retried
    def place() -> None:
        calls.append(1)
        with Session(engine) as session, session.begin():
            insert(session)

    proxy.lose_reply(matching=b"INSERT")
    place()
    assert len(calls) == 2
    assert _count(direct) == 1
    engine.dispose()


# --- two-phase commit ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def preparing_server() -> Iterator[PostgresServer]:
    services.program("postgres")
    server = PostgresServer(max_prepared_transactions="5")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("lost", "is_repeated"), [("INSERT", True), ("PREPARE", False), ("COMMIT PREPARED", False), ("", True)]
)
def test_a_two_phase_commit_is_only_repeated_before_it_was_prepared(
    preparing_server: PostgresServer,
    make_fault_proxy: Callable[..., FaultProxy],
    lost: str,
    is_repeated: bool,
) -> None:
    direct = create_engine(preparing_server.url("postgres"))
    with direct.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS orders"))
        connection.execute(text("CREATE TABLE orders (number int)"))
    proxy = make_fault_proxy(preparing_server.host, preparing_server.port)
    engine = hardened_engine(proxy.through(preparing_server.url("postgres")))
    calls: list[int] = []

    @retried
    def place() -> None:
        calls.append(1)
        with Session(engine, twophase=True) as session, session.begin():
            session.execute(INSERT, {"number": 1})
            if not lost and len(calls) == 1:
                session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    if lost:
        proxy.lose_reply(matching=lost.encode())
    if is_repeated:
        place()
        assert _count(direct) == 1
    else:
        # SQLAlchemy 2.0 cannot roll back from within PREPARE, and raises an error of its own instead.
        with pytest.raises(SQLAlchemyError) as caught:
            place()
        assert any("idempotent=True" in note for note in caught.value.__notes__)
    assert len(calls) == 1 + is_repeated
    with direct.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        left = list(connection.execute(text("SELECT gid FROM pg_prepared_xacts")).scalars())
        # What was prepared is for whoever coordinates the transactions.
        assert len(left) == (lost == "PREPARE")
        for gid in left:
            connection.exec_driver_sql(f"ROLLBACK PREPARED '{gid}'")
    engine.dispose()
    direct.dispose()
