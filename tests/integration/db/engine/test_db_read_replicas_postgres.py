"""Read replicas with a real streaming standby that lags, dies, returns and is promoted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from mks_hardening.db import (
    ReadReplicas,
    ReadToken,
    hardened_async_engine,
    hardened_engine,
    retry_on_serialization_failure,
)
from testbed.polling import wait_until
from testbed.postgres_server import PostgresServer, PostgresStandby

pytestmark = pytest.mark.postgres

WRITE = text("UPDATE counter SET n = :n")
READ = text("SELECT n FROM counter")


@pytest.fixture
def primary(postgres_url: str) -> Iterator[Engine]:
    made = hardened_engine(postgres_url)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE counter AS SELECT 0 AS n"))
    yield made
    made.dispose()


@pytest.fixture
def standby(primary: Engine, make_standby: Callable[[], PostgresStandby]) -> PostgresStandby:
    del primary  # its table is in the copy
    return make_standby()


@pytest.fixture
def replica(standby: PostgresStandby, postgres_database: str) -> Iterator[Engine]:
    made = hardened_engine(standby.url(postgres_database))
    yield made
    made.dispose()


def _write(engine: Engine, number: int, *, synchronous_commit: str = "on") -> None:
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL synchronous_commit = {synchronous_commit}"))
        connection.execute(WRITE, {"n": number})


def _read(engine: Engine) -> int:
    with Session(engine) as session:
        found: int = session.execute(READ).scalar_one()
        return found


def _catch_up(replicas: ReadReplicas[Engine], replica: Engine) -> None:
    token = replicas.token()
    wait_until(lambda: replicas.engine(after=token) is replica, what="the standby to catch up")


@pytest.mark.parametrize(("synchronous_commit", "writes"), [("on", 100), ("off", 5)])
def test_every_read_sees_the_write_before_it(
    primary: Engine, replica: Engine, synchronous_commit: str, writes: int
) -> None:
    replicas = ReadReplicas(primary, [replica], max_wait=5)
    for number in range(1, writes + 1):
        _write(primary, number, synchronous_commit=synchronous_commit)
        chosen = replicas.engine(after=replicas.token())
        assert chosen is replica
        assert _read(chosen) == number


def test_an_idle_primary_has_been_replayed(
    primary: Engine, replica: Engine, postgres_server: PostgresServer
) -> None:
    replicas = ReadReplicas(primary, [replica], max_wait=5)
    for _ in range(2):
        _write(primary, 1)
        postgres_server.execute("SELECT pg_switch_wal()")  # the next position is that of an empty segment
        assert replicas.engine(after=replicas.token()) is replica


def test_a_standby_that_lags_is_not_read(primary: Engine, replica: Engine, standby: PostgresStandby) -> None:
    replicas = ReadReplicas(primary, [replica], max_wait=0.02)
    _catch_up(replicas, replica)
    before = replicas.token()
    standby.pause_replay()
    _write(primary, 7)
    token = ReadToken.parse(str(replicas.token()))  # as it is kept in a session
    assert replicas.engine(after=token) is primary
    assert _read(replicas.engine(after=token)) == 7
    assert replicas.engine(after=before) is replica  # what it has seen may still be read from it
    assert _read(replicas.engine()) == 0
    standby.resume_replay()
    _catch_up(replicas, replica)
    assert _read(replicas.engine(after=token)) == 7


def test_a_standby_that_dies_is_replaced_by_the_primary(
    primary: Engine, replica: Engine, standby: PostgresStandby
) -> None:
    replicas = ReadReplicas(primary, [replica], retry_after=0.1)
    _catch_up(replicas, replica)
    token = replicas.token()
    used: list[Engine] = []

    @retry_on_serialization_failure(backoff=0.001)
    def read() -> int:
        used.append(replicas.engine(after=token))
        with used[-1].connect() as connection:
            connection.execute(text("SELECT 1"))
            if len(used) == 1:
                standby.kill()
            return int(connection.execute(READ).scalar_one())

    assert read() == 0
    assert used == [replica, primary]
    standby.start()
    wait_until(lambda: replicas.engine(after=token) is replica, what="the standby to return")


def test_a_promoted_standby_is_not_a_replica(
    primary: Engine, replica: Engine, standby: PostgresStandby
) -> None:
    replicas = ReadReplicas(primary, [replica])
    _catch_up(replicas, replica)
    token = replicas.token()
    standby.promote()
    for number in range(3):
        _write(replica, number)  # the positions of both go on
    assert replicas.engine(after=token) is primary
    assert replicas.engine() is primary
    reversed_roles = ReadReplicas(replica, [primary])
    new = reversed_roles.token()
    assert (new.system, new.timeline) == (token.system, token.timeline + 1)
    assert reversed_roles.engine(after=new) is replica
    assert reversed_roles.engine(after=token) is replica


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_tasks_see_the_writes_before_them(primary: Engine, replica: Engine, driver: str) -> None:
    urls = [
        one.url.set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)
        for one in (primary, replica)
    ]

    async def run() -> None:
        writing, reading = (hardened_async_engine(url) for url in urls)
        replicas = ReadReplicas(writing, [reading], max_wait=5)
        for number in range(20):
            async with writing.begin() as connection:
                await connection.execute(WRITE, {"n": number})
            chosen = await replicas.aengine(after=await replicas.atoken())
            assert chosen is reading
            async with chosen.connect() as connection:
                assert (await connection.execute(READ)).scalar_one() == number
        await writing.dispose()
        await reading.dispose()

    asyncio.run(run())
