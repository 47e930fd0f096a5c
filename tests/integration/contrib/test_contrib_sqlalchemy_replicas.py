"""Sessions that read from a real standby: their own writes, its lag and its death, in tasks and in children."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from mks_hardening.contrib.sqlalchemy_replicas import AsyncReplicaSession, ReplicaSession
from mks_hardening.db import ReadReplicas, ReadToken, hardened_async_engine, hardened_engine
from testbed.forked import in_child
from testbed.pgbouncer_server import PgBouncer
from testbed.polling import wait_until
from testbed.postgres_server import PostgresStandby
from testbed.run_python import run_python

pytestmark = pytest.mark.postgres

ON_REPLICA = text("SELECT pg_is_in_recovery()")
SET = text("UPDATE counters SET n = :n")


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counters"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


@pytest.fixture
def primary(postgres_url: str) -> Iterator[Engine]:
    made = hardened_engine(postgres_url)
    Base.metadata.create_all(made)
    with Session(made) as session, session.begin():
        session.add(Counter(id=1, n=0))
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


def _sessions(primary: Engine, replica: Engine, **options: Any) -> sessionmaker[ReplicaSession]:
    return sessionmaker(class_=ReplicaSession, replicas=ReadReplicas(primary, [replica], **options))


def _read(session: Session) -> tuple[bool, int]:
    """Whether a replica was read, and what."""
    return session.scalar(ON_REPLICA) is True, session.scalars(select(Counter.n)).one()


def _on_replica(session: ReplicaSession) -> tuple[bool, int]:
    with session.on_replica() as reading:
        return _read(reading)


def test_a_session_sees_what_it_has_committed(primary: Engine, replica: Engine) -> None:
    sessions = _sessions(primary, replica, max_wait=5)
    with sessions() as session:
        assert session.read_token() is None
        for number in range(1, 20):
            session.execute(SET, {"n": number})
            session.commit()
            assert _on_replica(session) == (True, number)
        token = str(session.read_token())
        assert str(session.read_token()) == token
        with session.begin():
            session.execute(SET, {"n": 99})
    with sessions(after=ReadToken.parse(token)) as later:
        assert _on_replica(later)[0]
        assert str(later.read_token()) == token


def test_what_is_not_committed_is_read_where_it_was_written(primary: Engine, replica: Engine) -> None:
    with _sessions(primary, replica)() as session:
        assert session.scalar(select(Counter.n)) == 0
        assert _on_replica(session)[0]  # the transaction has only read
        session.execute(SET, {"n": 5})
        with session.on_replica() as reading:
            assert reading is session
        assert _on_replica(session) == (False, 5)
        session.rollback()
        assert _on_replica(session) == (True, 0)
        session.get_one(Counter, 1).n = 6  # not sent yet
        with session.on_replica() as reading:
            assert reading is session
        session.rollback()
        session.add(Counter(id=2, n=0))
        with session.on_replica() as reading:
            assert reading is session


def test_a_replica_that_lags_or_dies_is_replaced_by_the_primary(
    primary: Engine, replica: Engine, standby: PostgresStandby
) -> None:
    sessions = _sessions(primary, replica, max_wait=0.02, retry_after=0.1)
    with sessions() as session:
        wait_until(lambda: _on_replica(session)[0], what="the standby to catch up")
        standby.pause_replay()
        session.execute(SET, {"n": 7})
        session.commit()
        assert _on_replica(session) == (False, 7)
        with sessions() as other:
            assert _on_replica(other) == (True, 0)  # it has written nothing
        standby.resume_replay()
        wait_until(lambda: _on_replica(session) == (True, 7), what="the standby to catch up")
        standby.kill()
        assert _on_replica(session) == (False, 7)
        standby.start()
        wait_until(lambda: _on_replica(session) == (True, 7), what="the standby to return")


@pytest.mark.parametrize("is_broken", [False, True], ids=["replica", "fall-back"])
def test_nothing_is_written_in_the_block(primary: Engine, replica: Engine, is_broken: bool) -> None:
    """Neither on a replica nor on the primary that stands in for it."""
    replicas = ReadReplicas(primary, [] if is_broken else [replica])
    with ReplicaSession(replicas=replicas) as session:
        with session.on_replica() as reading, pytest.raises(DBAPIError, match="read-only"):
            reading.execute(SET, {"n": 3})
        with primary.begin() as connection:  # the connection is in the pool again, and writes
            connection.execute(SET, {"n": 4})


def test_a_promoted_standby_serves_no_reads_that_must_see_a_write(
    primary: Engine, replica: Engine, standby: PostgresStandby
) -> None:
    with _sessions(primary, replica)() as session:
        standby.promote()
        session.execute(SET, {"n": 7})
        session.commit()
        assert _on_replica(session) == (False, 7)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_tasks_see_what_they_have_committed(primary: Engine, replica: Engine, driver: str) -> None:
    urls = [
        one.url.set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)
        for one in (primary, replica)
    ]

    async def on_replica(session: AsyncReplicaSession) -> tuple[bool, int]:
        async with session.on_replica() as reading:
            return await reading.run_sync(_read)

    async def run() -> None:
        writing, reading = (hardened_async_engine(url) for url in urls)
        replicas = ReadReplicas(writing, [reading], max_wait=5)
        sessions = async_sessionmaker(class_=AsyncReplicaSession, replicas=replicas)
        async with sessions() as session:
            for number in range(1, 10):
                await session.execute(SET, {"n": number})
                assert await on_replica(session) == (False, number)
                await session.commit()
                assert await on_replica(session) == (True, number)
            token = await session.read_token()
        async with sessions(after=token) as session:
            assert await on_replica(session) == (True, 9)
            session.add(Counter(id=3, n=0))
            async with session.on_replica() as own:
                assert own is session
            await session.rollback()
            async with session.on_replica() as own:
                with pytest.raises(DBAPIError, match="read-only"):
                    await own.execute(SET, {"n": 3})
        await writing.dispose()
        await reading.dispose()

    asyncio.run(run())


def test_a_child_and_its_parent_read_and_write_on(primary: Engine, replica: Engine) -> None:
    sessions = _sessions(primary, replica, max_wait=5)

    def work(number: int) -> tuple[bool, int]:
        with sessions() as session:
            session.execute(SET, {"n": number})
            session.commit()
            return _on_replica(session)

    assert work(1) == (True, 1)
    for number in range(2, 5):
        assert in_child(partial(work, number)) == f"(True, {number})"
    assert work(9) == (True, 9)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_primary_may_be_behind_a_pooler(
    primary: Engine, replica: Engine, make_pgbouncer: Callable[..., PgBouncer], driver: str
) -> None:
    url = primary.url.set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)
    pooled = hardened_engine(make_pgbouncer().through(url), transaction_pooling=True)
    sessions = _sessions(pooled, replica, max_wait=5)
    with sessions() as session:
        for number in range(1, 10):
            session.execute(SET, {"n": number})
            session.commit()
            assert _on_replica(session) == (True, number)
    with ReplicaSession(replicas=ReadReplicas(pooled, [])) as session:
        with session.on_replica() as reading, pytest.raises(DBAPIError, match="read-only"):
            reading.execute(SET, {"n": 3})
        session.execute(SET, {"n": 4})  # the same server connection, for the next client
        session.commit()
        assert _on_replica(session) == (False, 4)
    pooled.dispose()


def test_green_threads_see_what_they_have_committed(primary: Engine, replica: Engine) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    urls = [one.url.render_as_string(hide_password=False) for one in (primary, replica)]
    program = """
from gevent import monkey, spawn, joinall
monkey.patch_all()
import sys
from sqlalchemy import text
from sqlalchemy.orm import sessionmaker
from mks_hardening.contrib.sqlalchemy_replicas import ReplicaSession
from mks_hardening.db import ReadReplicas, hardened_engine

engines = [hardened_engine(url, threads=8) for url in sys.argv[1:]]
sessions = sessionmaker(class_=ReplicaSession, replicas=ReadReplicas(engines[0], engines[1:], max_wait=10))


def work(number):
    for _ in range(5):
        with sessions() as session:
            session.execute(text("INSERT INTO counters VALUES (:id, 0) ON CONFLICT (id) DO UPDATE SET n = "
                                 "counters.n + 1"), {"id": number})
            session.commit()
            with session.on_replica() as reading:
                found.append(reading.scalar(text("SELECT pg_is_in_recovery()")))
                count[number] = reading.scalar(text("SELECT n FROM counters WHERE id = :id"), {"id": number})


found, count = [], {}
joinall([spawn(work, number) for number in range(10, 18)], raise_error=True)
print(len(found), all(found), sorted(count.values()))
"""
    assert run_python(program, *urls).stdout.split("\n")[0] == "40 True [4, 4, 4, 4, 4, 4, 4, 4]"
