"""What a statement leaves in its session is gone when the next user gets the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, event, text

from mks_hardening.db import hardened_async_engine, hardened_engine
from testbed.postgres_server import PostgresServer

pytestmark = pytest.mark.postgres

LEAVING = [
    "SET statement_timeout = '77s'",
    "SELECT set_config('application_name', 'other', false)",
    "SELECT pg_advisory_lock(7)",
    "SELECT pg_try_advisory_lock_shared(8)",
    "SET ROLE pg_read_all_data",
    "CREATE TEMP TABLE scratch (a int)",
    "DECLARE held CURSOR WITH HOLD FOR SELECT 1",
    "LISTEN news",
]
STATE = text(
    "SELECT current_user, current_setting('statement_timeout'), current_setting('application_name'), "
    "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), "
    "(SELECT count(*) FROM pg_class WHERE relname = 'scratch'), "
    "(SELECT count(*) FROM pg_cursors WHERE name = 'held'), "
    "(SELECT count(*) FROM pg_listening_channels())"
)


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Engine]:
    made = hardened_engine(postgres_url.replace("+psycopg", f"+{request.param}"), pool_size=1, max_overflow=0)
    yield made
    made.dispose()


def _state(connection: Connection) -> tuple[object, ...]:
    return tuple(connection.execute(STATE).one())


def _session(engine: Engine) -> object:
    with engine.connect() as connection:
        return connection.execute(text("SELECT pg_backend_pid()")).scalar()


@pytest.mark.parametrize("statement", LEAVING)
@pytest.mark.parametrize("ended", ["committed", "rolled back", "left open", "failed"])
def test_the_next_user_finds_nothing(engine: Engine, statement: str, ended: str) -> None:
    with engine.connect() as connection:
        before = _state(connection)
    session = _session(engine)
    with engine.connect() as connection:
        connection.execute(text(statement))
        changed = _state(connection)
        if ended == "committed":
            connection.commit()
        elif ended == "rolled back":
            connection.rollback()
        elif ended == "failed":
            connection.commit()
            with pytest.raises(Exception, match="division"):
                connection.execute(text("SELECT 1 / 0"))
    with engine.connect() as connection:
        assert _state(connection) == before
    assert changed != before or statement == "LISTEN news"  # LISTEN takes effect at COMMIT
    assert _session(engine) == session  # the connection was reset, not replaced


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_tasks_find_nothing(postgres_url: str, driver: str) -> None:
    async def run() -> None:
        engine = hardened_async_engine(
            postgres_url.replace("+psycopg", f"+{driver}"), pool_size=1, max_overflow=0
        )
        async with engine.connect() as connection:
            before = await connection.run_sync(_state)
        for statement in LEAVING:
            async with engine.connect() as connection:
                await connection.execute(text(statement))
                await connection.commit()
            async with engine.connect() as connection:
                assert await connection.run_sync(_state) == before, statement
        await engine.dispose()

    asyncio.run(run())


def test_what_the_application_sets_for_each_connection_is_set_again(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined] # a connection of the driver
        cursor.execute("SET TIME ZONE 'Asia/Tokyo'")
        connection.commit()  # type: ignore[attr-defined] # as above

    zone = text("SHOW TIME ZONE")
    with engine.connect() as connection:
        connection.execute(text("SET TIME ZONE 'UTC'"))
        connection.commit()
    with engine.connect() as connection:
        assert connection.execute(zone).scalar() == "Asia/Tokyo"


def test_a_connection_that_cannot_be_reset_is_not_used_again(
    engine: Engine, postgres_server: PostgresServer, postgres_database: str
) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(7)"))
        connection.commit()
        postgres_server.disconnect_all(postgres_database)
    with engine.connect() as connection:
        assert _state(connection)[3] == 0


def test_other_connections_cost_no_round_trip(engine: Engine, postgres_server: PostgresServer) -> None:
    def last_statement(*statements: str) -> str:
        with engine.connect() as connection:
            session = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            for statement in statements:
                connection.execute(text(statement))
            connection.commit()
        [[query]] = postgres_server.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", session)
        return str(query)

    assert last_statement("SET LOCAL statement_timeout = 0", "SELECT pg_advisory_xact_lock(1)") == "COMMIT"
