"""Explain with asyncio: the same plans and refusals, on engines, connections and sessions of every driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from mks_hardening.db import aexplain, hardened_async_engine, hardened_engine
from mks_hardening.exceptions import ConfigurationError

PARTS = Table(
    "parts", MetaData(), Column("id", Integer, primary_key=True), Column("name", String, index=True)
)


@pytest.fixture(
    params=[
        "sqlite+aiosqlite",
        pytest.param("postgresql+psycopg", marks=pytest.mark.postgres),
        pytest.param("postgresql+asyncpg", marks=pytest.mark.postgres),
    ]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param.startswith("sqlite"):
        return f"{request.param}:///{tmp_path / 'test.sqlite'}"
    found: str = request.getfixturevalue("postgres_url")
    return found.replace("postgresql+psycopg", request.param)


def _run(url: str, work: Callable[[AsyncEngine], Awaitable[None]]) -> None:
    async def run() -> None:
        engine = hardened_async_engine(url, threads=4)
        async with engine.begin() as connection:
            await connection.run_sync(PARTS.metadata.create_all)
            await connection.execute(insert(PARTS), [{"id": n, "name": f"part {n}"} for n in range(50)])
        await work(engine)
        async with engine.connect() as connection:
            assert len((await connection.execute(select(PARTS.c.id))).all()) == 50
        await engine.dispose()

    asyncio.run(run())


def test_a_plan_changes_nothing(url: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        statement = select(PARTS).where(PARTS.c.name.like("%9"))
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with (
            engine.connect() as connection,
            autocommit.connect() as of_one,
            AsyncSession(engine) as session,
        ):
            for bind in (engine, autocommit, connection, of_one, session):
                assert (await aexplain(bind, statement)).full_scans == ("parts",)
                await aexplain(bind, delete(PARTS))
                assert "parts" in str(await aexplain(bind, "SELECT * FROM parts WHERE id = 3"))
            await connection.execute(insert(PARTS).values(id=700))
            await aexplain(connection, delete(PARTS))
            assert len((await connection.execute(select(PARTS.c.id))).all()) == 51

    _run(url, work)


def test_analyze_measures_and_does_not_write(url: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        if engine.dialect.name == "sqlite":
            with pytest.raises(ConfigurationError, match="analyze"):
                await aexplain(engine, select(PARTS), analyze=True)
            return
        assert (await aexplain(engine, select(PARTS), analyze=True)).execution_ms is not None
        for bind in (engine, engine.execution_options(isolation_level="AUTOCOMMIT")):
            with pytest.raises(DBAPIError, match="read-only"):
                await aexplain(bind, delete(PARTS), analyze=True)
            with pytest.raises(ConfigurationError, match="VOLATILE"):
                await aexplain(bind, text("SELECT pg_try_advisory_lock(7)"), analyze=True)

    _run(url, work)


def test_several_statements_are_refused(url: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        with pytest.raises(ConfigurationError, match="statement"):
            await aexplain(engine, "SELECT 1; DELETE FROM parts")

    _run(url, work)


def test_a_synchronous_bind_is_refused() -> None:
    engine = hardened_engine("sqlite://")
    for bind in (engine, None, "x"):
        wrong: Any = bind
        with pytest.raises(ConfigurationError, match="Async") as caught:
            asyncio.run(aexplain(wrong, "SELECT 1"))
        assert caught.value.parameter == "bind"
