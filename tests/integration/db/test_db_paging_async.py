"""Keyset pages with asyncio: the same pages through every driver, from connections and sessions."""

from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, DateTime, Float, Integer, MetaData, Numeric, Table, insert, select
from sqlalchemy.dialects.postgresql import REAL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped

from mks_hardening.db import hardened_async_engine, keyset_page, watch_queries
from mks_hardening.exceptions import ConfigurationError

SIZES = Table(
    "sizes",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("width", Float().with_variant(REAL(), "postgresql"), nullable=False),
    Column("price", Numeric(12, 4), nullable=False),
    Column("made", DateTime(), nullable=False),
)


class Base(DeclarativeBase):
    pass


class Size(Base):
    __table__ = SIZES
    id: Mapped[int]


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


async def _filled(url: str) -> AsyncEngine:
    engine = hardened_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(SIZES.metadata.create_all)
        rows = [
            {
                "id": number,
                "width": 0.1 * (number % 3),
                "price": Decimal(number % 5) / 7,
                "made": datetime(2026, 1, 1 + number % 2, microsecond=number % 4),  # noqa: DTZ001 - a column without zone
            }
            for number in range(40)
        ]
        await connection.execute(insert(SIZES), rows)
    return engine


async def _ids(bind: AsyncConnection | AsyncSession, order: list[Any]) -> list[int]:
    found: list[int] = []
    after: str | None = None
    while True:
        page = await keyset_page(select(SIZES.c.id), order_by=order, after=after, limit=7).afetch(bind)
        found += page.items
        after = page.next_cursor
        if after is None:
            return found


@pytest.mark.parametrize("kind", ["connection", "session"])
def test_all_rows_come_once_in_order(url: str, kind: str) -> None:
    async def run() -> None:
        engine = await _filled(url)
        order = [SIZES.c.width.desc(), SIZES.c.price, SIZES.c.made.desc(), SIZES.c.id]
        async with AsyncSession(engine) as session, engine.connect() as connection:
            bind = session if kind == "session" else connection
            with watch_queries(engine) as log:
                found = await _ids(bind, order)
            assert found == list((await bind.execute(select(SIZES.c.id).order_by(*order))).scalars())
        assert sorted(found) == list(range(40))
        assert log.n_plus_one == ()
        await engine.dispose()

    asyncio.run(run())


def test_entities_come_from_an_asynchronous_session(url: str) -> None:
    async def run() -> None:
        engine = await _filled(url)
        async with AsyncSession(engine) as session:
            page = await keyset_page(select(Size), order_by=[Size.id], limit=3).afetch(session)
            assert [size.id for size in page.items] == [0, 1, 2]
            assert all(size in session for size in page.items)
        await engine.dispose()

    asyncio.run(run())


def test_a_synchronous_bind_is_refused() -> None:
    page = keyset_page(select(SIZES.c.id), order_by=[SIZES.c.id])
    for bind in (None, "x", object()):
        with pytest.raises(ConfigurationError) as caught:
            asyncio.run(page.afetch(bind))  # type: ignore[arg-type] # that is the test
        assert caught.value.parameter == "bind"
