"""Keyset pages over values that the database holds in another form than the column is declared with.

Each form is a declared type, the type that the database really has, and values as the database was given them. The
pages together must be the list that the database itself sorts, whatever the directions and the length of a page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.numeric import FloatLoader
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Time,
    Uuid,
    extract,
    func,
    select,
)
from sqlalchemy.types import NullType, TypeEngine

from mks_hardening.db import hardened_async_engine, hardened_engine, keyset_page
from mks_hardening.exceptions import ConfigurationError

Form = tuple[TypeEngine[Any], str, Sequence[str]]
GRADES = Enum("low", "high", "middle", name="grade")
UUIDS = [f"'{n}0000000-0000-0000-0000-00000000000{n}'" for n in (1, 9, 4)]
FLOATS = ["0.1", "0.3", "1.0/3", "1e30", "-0.1", "16777217", "5", "0"]

SQLITE: dict[str, Form] = {
    "times by the server": (DateTime(), "DATETIME", ["'2026-01-02 03:04:05'", "CURRENT_TIMESTAMP"]),
    "times of both forms": (
        DateTime(),
        "DATETIME",
        ["'2026-01-02 03:04:05'", "'2026-01-02 03:04:05.000000'", "'2026-01-02 03:04:05.25'", "'2026-01-02'"],
    ),
    "times as ISO writes them": (DateTime(), "DATETIME", ["'2026-01-02T03:04:05'", "'2026-01-02 03:04:06'"]),
    "dates with a time": (Date(), "DATE", ["'2026-01-02'", "'2026-01-03'"]),
    "clock times": (Time(), "TIME", ["'03:04:05'", "'03:04:05.000000'", "'03:04'"]),
    "durations": (Interval(), "DATETIME", ["'1970-01-02 00:00:00.000000'", "'1970-01-01 00:00:01'"]),
    "more digits than the scale": (
        Numeric(10, 2),
        "NUMERIC(10, 2)",
        ["0.005", "0.001", "0.015", "1.00000000001", "1", "'x'"],
    ),
    "numbers as text": (Numeric(10, 2), "TEXT", ["'1.5'", "'1.50'", "'10'", "'9'"]),
    "integers that are none": (
        Integer(),
        "INTEGER",
        ["1", "1.5", "2", "-9007199254740993", "9007199254740993"],
    ),
    "floats": (Float(), "FLOAT", FLOATS),
    "all storage classes": (NullType(), "", ["1", "1.5", "'1'", "x'00ff'", "'あ'", "''", "x''"]),
    "another collation": (String(), "TEXT COLLATE NOCASE", ["'a'", "'A'", "'b'", "'B'"]),
    "truth": (Boolean(), "BOOLEAN", ["0", "1"]),
    "an enumeration": (GRADES, "VARCHAR(6)", ["'low'", "'high'", "'middle'"]),
    "bytes": (LargeBinary(), "BLOB", ["x'00'", "x'ff'", "x''"]),
    "identifiers": (Uuid(), "CHAR(32)", [value.replace("-", "") for value in UUIDS]),
}
POSTGRESQL: dict[str, Form] = {
    "real called Float": (Float(), "real", FLOATS),
    "real called Numeric": (Numeric(10, 2), "real", FLOATS),
    "numeric called Float": (
        Float(),
        "numeric",
        ["0.1", "1.00000000000000000001", "1.00000000000000000002", "1", "1e200"],
    ),
    "numeric called Integer": (Integer(), "numeric", ["1", "1.5", "99999999999999999999"]),
    "more digits than the scale": (
        Numeric(10, 2),
        "numeric",
        ["0.005", "0.001", "0.015", "1.0", "1.00", "'NaN'"],
    ),
    "double called Integer": (Integer(), "double precision", ["1", "1.5", "1e20"]),
    "small integers": (Integer(), "smallint", ["1", "-1"]),
    "times": (DateTime(), "timestamp", ["'2026-01-02 03:04:05'", "'2026-01-02 03:04:05.000001'"]),
    "times with zone": (
        DateTime(timezone=True),
        "timestamptz",
        # One hour twice, as clocks are put back in Berlin.
        ["'2026-10-25 02:30:00+02'", "'2026-10-25 02:30:00+01'", "'2026-10-25 00:30:00.000001Z'"],
    ),
    "times with zone called without": (
        DateTime(),
        "timestamptz",
        ["'2026-10-25 02:30+02'", "'2026-10-25 02:30+01'"],
    ),
    "times without zone called with": (
        DateTime(timezone=True),
        "timestamp",
        ["'2026-10-25 02:30'", "'2026-10-25'"],
    ),
    "dates called times": (DateTime(), "date", ["'2026-01-02'", "'2026-01-03'"]),
    "times called dates": (Date(), "timestamp", ["'2026-01-02 00:00:01'", "'2026-01-02'"]),
    "clock times": (Time(), "time", ["'03:04:05'", "'03:04:05.000001'"]),
    "clock times with zone": (
        Time(timezone=True),
        "timetz",
        ["'03:04:05+02'", "'01:04:05+00'", "'02:00-11'"],
    ),
    "text": (String(), "text", ["'a'", "'B'", "'あ'", "''", "'a '"]),
    "padded text": (String(), "char(3)", ["'a'", "'ab'", "''"]),
    "another collation": (String(), 'text COLLATE "und-x-icu"', ["'a'", "'B'", "'A'"]),
    "an enumeration": (GRADES, "grade", ["'low'", "'high'", "'middle'"]),
    "an enumeration called text": (String(), "grade", ["'low'", "'high'", "'middle'"]),
    "truth": (Boolean(), "boolean", ["true", "false"]),
    "bytes": (LargeBinary(), "bytea", [r"'\x00'", r"'\xff'", r"'\x'"]),
    "identifiers": (Uuid(), "uuid", UUIDS),
}
DRIVERS = ["psycopg", "psycopg2", "asyncpg"]


def _check(connection: Connection, form: Form) -> None:
    declared, real, values = form
    table = Table(
        "held", MetaData(), Column("id", Integer, primary_key=True), Column("v", declared, nullable=False)
    )
    connection.exec_driver_sql(f"CREATE TABLE held (id INTEGER PRIMARY KEY, v {real} NOT NULL)")
    rows = ", ".join(f"({n}, {value})" for n, value in enumerate(list(values) * 3))
    connection.exec_driver_sql(f"INSERT INTO held (id, v) VALUES {rows}")  # noqa: S608 - the forms above

    @settings(max_examples=12, deadline=None)
    @given(descending=st.tuples(st.booleans(), st.booleans()), limit=st.integers(1, 5), grouped=st.booleans())
    def pages_are_the_sorted_list(descending: tuple[bool, bool], limit: int, grouped: bool) -> None:
        value: Any = (
            func.max(table.c.v) if grouped and real not in {"boolean", "bytea", "uuid"} else table.c.v
        )
        order = [
            column.desc() if down else column.asc()
            for column, down in zip((value, table.c.id), descending, strict=True)
        ]
        statement: Any = select(table.c.id)
        if value is not table.c.v:
            statement = statement.group_by(table.c.id)
        expected = list(connection.execute(statement.order_by(*order)).scalars())
        seen: list[int] = []
        after: str | None = None
        for _ in expected:
            page = keyset_page(statement, order_by=order, after=after, limit=limit).fetch(connection)
            seen += page.items
            after = page.next_cursor
            if after is None:
                break
        assert seen == expected

    pages_are_the_sorted_list()


@pytest.mark.parametrize("form", SQLITE.values(), ids=SQLITE)
def test_sqlite_compares_what_it_holds(tmp_path: Path, form: Form) -> None:
    engine = hardened_engine(f"sqlite:///{tmp_path / 'held.sqlite'}")
    with engine.connect() as connection:
        _check(connection, form)
    engine.dispose()


def _on_postgres(url: str, driver: str, work: Callable[[Connection], None]) -> None:
    url = url.replace("+psycopg", f"+{driver}")
    if driver != "asyncpg":
        engine = hardened_engine(url)
        with engine.connect() as connection:
            work(connection)
        engine.dispose()
        return

    async def run() -> None:
        engine = hardened_async_engine(url)
        async with engine.connect() as connection:
            await connection.run_sync(work)
        await engine.dispose()

    asyncio.run(run())


@pytest.mark.postgres
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("form", POSTGRESQL.values(), ids=POSTGRESQL)
def test_postgresql_compares_what_it_holds(postgres_url: str, driver: str, form: Form) -> None:
    def work(connection: Connection) -> None:
        connection.exec_driver_sql("SET TIME ZONE 'Europe/Berlin'")
        connection.exec_driver_sql("CREATE TYPE grade AS ENUM ('low', 'high', 'middle')")
        _check(connection, form)

    _on_postgres(postgres_url, driver, work)


@pytest.mark.postgres
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_has_no_exact_form_is_refused_with_a_way_out(postgres_url: str, driver: str) -> None:
    table = Table(
        "spans", MetaData(), Column("id", Integer, primary_key=True), Column("v", Interval, nullable=False)
    )

    def work(connection: Connection) -> None:
        table.create(connection)
        spans = ["1 year", "362 days", "13 months", "1 mon", "30 days"]
        values = ", ".join(f"({n}, '{span}')" for n, span in enumerate(spans))
        connection.exec_driver_sql(f"INSERT INTO spans (id, v) VALUES {values}")  # noqa: S608 - as above
        with pytest.raises(ConfigurationError, match="extract"):
            keyset_page(select(table.c.id), order_by=[table.c.v, table.c.id], limit=2).fetch(connection)
        order = [extract("epoch", table.c.v), table.c.id]
        page = keyset_page(select(table.c.id), order_by=order, limit=3).fetch(connection)
        rest = keyset_page(select(table.c.id), order_by=order, limit=3, after=page.next_cursor).fetch(
            connection
        )
        assert page.items + rest.items == [3, 4, 1, 0, 2]

    _on_postgres(postgres_url, driver, work)


@pytest.mark.postgres
def test_a_driver_that_rounds_is_refused(postgres_url: str) -> None:
    table = Table("sums", MetaData(), Column("v", Numeric, primary_key=True, autoincrement=False))

    def work(connection: Connection) -> None:
        table.create(connection)
        connection.exec_driver_sql("INSERT INTO sums VALUES (1), (2)")
        driver: Any = connection.connection.driver_connection
        driver.adapters.register_loader("numeric", FloatLoader)
        with pytest.raises(ConfigurationError, match="numeric as float"):
            keyset_page(select(table.c.v), order_by=[table.c.v], limit=1).fetch(connection)

    _on_postgres(postgres_url, "psycopg", work)
