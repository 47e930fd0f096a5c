"""What ``ReplicaSession`` accepts, and what it decides without a database; a real standby serves the rest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from mks_hardening.contrib.sqlalchemy_replicas import AsyncReplicaSession, ReplicaSession
from mks_hardening.db import ReadReplicas, ReadToken, hardened_async_engine, hardened_engine
from mks_hardening.exceptions import ConfigurationError

pytest.importorskip("psycopg")

NOWHERE = "postgresql+psycopg://app:secret@127.0.0.1:1/app"
TOKEN = ReadToken.parse("7-1-9")


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counters"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


def _replicas(*, is_async: bool = False) -> ReadReplicas[Any]:
    make: Any = hardened_async_engine if is_async else hardened_engine
    return ReadReplicas(make(NOWHERE), [make(NOWHERE)])


def test_what_is_not_sent_yet_is_read_by_the_session_itself() -> None:
    with sessionmaker(class_=ReplicaSession, replicas=_replicas())() as session:
        session.add(Counter(id=1, n=0))
        with session.on_replica() as reading:
            assert reading is session
        session.expunge_all()


def test_what_is_not_sent_yet_is_read_by_the_asynchronous_session_itself() -> None:
    async def read() -> bool:
        sessions = async_sessionmaker(class_=AsyncReplicaSession, replicas=_replicas(is_async=True))
        async with sessions() as session:
            session.add(Counter(id=1, n=0))
            async with session.on_replica() as reading:
                same = reading is session
            session.expunge_all()
        return same

    assert asyncio.run(read())


@pytest.mark.parametrize("after", [None, TOKEN])
def test_the_token_of_a_session_without_commits_is_what_it_was_given(after: ReadToken | None) -> None:
    with ReplicaSession(replicas=_replicas(), after=after) as session:
        assert session.read_token() is after

    async def read() -> ReadToken | None:
        async with AsyncReplicaSession(replicas=_replicas(is_async=True), after=after) as session:
            return await session.read_token()

    assert asyncio.run(read()) is after


def test_engines_of_the_other_kind_are_refused() -> None:
    asynchronous = hardened_async_engine(NOWHERE)
    engine = hardened_engine(NOWHERE)
    wrong: Any = [
        lambda: ReplicaSession(replicas=ReadReplicas(asynchronous, [])),  # type: ignore[arg-type] # the test
        lambda: AsyncReplicaSession(replicas=ReadReplicas(engine, [])),  # type: ignore[arg-type] # the test
        lambda: ReplicaSession(replicas=engine),  # type: ignore[arg-type] # the test
        lambda: AsyncReplicaSession(replicas=None),  # type: ignore[arg-type] # the test
    ]
    for make in wrong:
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert caught.value.parameter == "replicas"
    with pytest.raises(ConfigurationError) as caught:
        ReplicaSession(replicas=ReadReplicas(engine, []), bind=hardened_engine("sqlite://"))
    assert caught.value.parameter == "bind"
    with pytest.raises(ConfigurationError) as caught:
        ReplicaSession(replicas=ReadReplicas(engine, []), after="7-1-9")  # type: ignore[arg-type] # the test
    assert caught.value.parameter == "after"
