"""The hardened engine on PostgreSQL: limits that bind, and forks that disturb nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from mks_hardening.db import guard_fork, hardened_async_engine, hardened_engine
from testbed.forked import in_child
from testbed.postgres_server import PostgresServer

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings(
        "ignore:This process:DeprecationWarning"
    ),  # fork with threads is what is tested
]


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    made = hardened_engine(
        postgres_url,
        threads=3,
        statement_timeout=0.5,
        lock_timeout=0.2,
        idle_in_transaction_timeout=7,
        client_deadline=3,
        application_name="knowledge",
    )
    yield made
    made.dispose()


def test_every_limit_arrives_at_the_server(engine: Engine) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "application_name")
    with engine.connect() as connection:
        values = [connection.execute(text(f"SHOW {name}")).scalar() for name in names]
        info: Any = connection.connection.driver_connection
        wire = info.info.get_parameters()
    assert values == ["500ms", "200ms", "7s", "knowledge"]
    assert (wire["connect_timeout"], wire["tcp_user_timeout"], wire["keepalives_idle"]) == ("3", "3000", "3")


def test_what_the_caller_says_wins(postgres_url: str) -> None:
    engine = hardened_engine(
        f"{postgres_url}?application_name=from_url",
        connect_args={"options": "-c statement_timeout=1234", "connect_timeout": 9},
    )
    with engine.connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "1234ms"
        assert connection.execute(text("SHOW lock_timeout")).scalar() == "2s"
        assert connection.execute(text("SHOW application_name")).scalar() == "from_url"
    engine.dispose()


def test_a_long_statement_is_cancelled_and_the_connection_lives(engine: Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(OperationalError) as caught:
            connection.execute(text("SELECT pg_sleep(30)"))
        assert getattr(caught.value.orig, "sqlstate", None) == "57014"
        connection.rollback()
        assert connection.execute(text("SELECT 1")).scalar() == 1


def test_a_lock_is_waited_for_no_longer_than_asked(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a int)"))
    with engine.connect() as holder, engine.connect() as waiter:
        holder.execute(text("LOCK TABLE t"))
        with pytest.raises(DBAPIError) as caught:
            waiter.execute(text("SELECT * FROM t"))
        assert getattr(caught.value.orig, "sqlstate", None) == "55P03"
        waiter.rollback()
        holder.rollback()


def test_a_restarted_server_costs_nobody_an_error(engine: Engine, postgres_server: PostgresServer) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    postgres_server.restart()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1


def test_a_driver_that_is_not_libpq_is_not_half_protected(postgres_url: str) -> None:
    with pytest.raises(ValueError, match="psycopg"):
        hardened_engine(postgres_url.replace("+psycopg", "+pg8000"))


# --- forks -----------------------------------------------------------------------------------


def _backend(engine: Engine) -> int:
    with engine.connect() as connection:
        pid: int = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        return pid


def test_a_child_has_connections_of_its_own(engine: Engine) -> None:
    parent = _backend(engine)
    assert in_child(lambda: _backend(engine) != parent) == "True"
    assert _backend(engine) == parent


def test_a_child_that_closes_everything_disturbs_nobody(engine: Engine) -> None:
    parent = _backend(engine)
    assert in_child(engine.dispose) == "None"

    def use_and_close() -> None:
        _backend(engine)
        engine.dispose()

    assert in_child(use_and_close) == "None"
    assert _backend(engine) == parent


def test_a_transaction_of_the_parent_survives_the_child_that_inherits_it(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a int)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))

        def meddle() -> object:
            try:
                return connection.execute(text("SELECT count(*) FROM t")).scalar()
            except DBAPIError:
                return "refused"

        assert in_child(meddle) == "'refused'"
        in_child(connection.close)
        connection.execute(text("INSERT INTO t VALUES (2)"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 2


def test_children_forked_while_threads_use_the_pool_all_work(engine: Engine) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def use() -> None:
        try:
            while not stop.is_set():
                _backend(engine)
        except BaseException as error:  # noqa: BLE001 - is looked at below
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        answers = {in_child(lambda: _backend(engine) > 0) for _ in range(15)}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert answers == {"True"}
    assert errors == []


def test_a_grandchild_works_too(engine: Engine) -> None:
    parent = _backend(engine)

    def child() -> object:
        own = _backend(engine)
        return in_child(lambda: _backend(engine) not in {own, parent}), _backend(engine) == own

    assert in_child(child) == "('True', True)"
    assert _backend(engine) == parent


def test_a_foreign_engine_can_be_guarded_after_it_was_used(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    parent = _backend(engine)
    guard_fork(engine)
    guard_fork(engine)
    assert in_child(lambda: _backend(engine) != parent) == "True"
    assert _backend(engine) == parent
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_child_of_an_asynchronous_parent_has_connections_of_its_own(postgres_url: str, driver: str) -> None:
    engine = hardened_async_engine(postgres_url.replace("+psycopg", f"+{driver}"), threads=2)
    ask = text("SELECT pg_backend_pid()")

    async def backend() -> object:
        async with engine.connect() as connection:
            return (await connection.execute(ask)).scalar()

    async def parent() -> None:
        own = await backend()

        def child() -> bool:
            asyncio.events._set_running_loop(None)
            return asyncio.new_event_loop().run_until_complete(backend()) not in {None, own}

        assert in_child(child) == "True"
        assert await backend() == own
        await engine.dispose()

    asyncio.run(parent())


def test_a_disposed_engine_is_still_guarded(engine: Engine) -> None:
    _backend(engine)
    engine.dispose()
    parent = _backend(engine)
    assert in_child(lambda: _backend(engine) != parent) == "True"
    assert _backend(engine) == parent
