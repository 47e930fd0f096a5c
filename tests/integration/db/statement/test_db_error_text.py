"""What real drivers say of a refused statement, and what of it reaches the log: on engines that are not ours."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from mks_hardening.db import SlowQueryMonitor
from mks_hardening.logging import JsonFormatter

SECRET = "hunter2"
POSTGRES_DRIVERS = ["psycopg", "psycopg2", "asyncpg"]
SCHEMA = [
    "CREATE TABLE users (token text UNIQUE, age int CHECK (age < 200))",
    f"INSERT INTO users VALUES ('{SECRET}', 1)",  # noqa: S608 - the secret of these tests
    """CREATE FUNCTION refuse(t text) RETURNS int LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION USING MESSAGE = ''no '' || t, DETAIL = t, HINT = t; END'""",
]
# statement, parameters, code, and what of the message is shown
REFUSED: list[tuple[str, dict[str, object], str, str | None]] = [
    (
        "INSERT INTO users VALUES (:t, 1)",
        {"t": SECRET},
        "23505",
        'duplicate key value violates unique constraint "?"',
    ),
    (
        "INSERT INTO users VALUES (:t, 900)",
        {"t": SECRET + "x"},
        "23514",
        'new row for relation "?" violates check constraint "?"',
    ),
    (f"SELECT CAST('{SECRET}' AS int)", {}, "22P02", 'invalid input syntax for type integer: "?"'),
    ("SELECT CAST('99999' AS smallint)", {}, "22003", 'value "?" is out of range for type smallint'),
    (f"TABLE {SECRET}", {}, "42P01", 'relation "?" does not exist'),
    (f"SELECT refuse('{SECRET}')", {}, "P0001", None),
]


def _records(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.message == "slow query"]


def _without_statement(record: logging.LogRecord) -> str:
    """The statement shows the names in it; everything else must be free of them."""
    return json.dumps(
        {name: value for name, value in vars(record).items() if name != "statement"}, default=str
    )


@pytest.mark.postgres
@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
def test_refusals_of_postgresql_tell_no_values(
    postgres_url: str, caplog: pytest.LogCaptureFixture, driver: str
) -> None:
    url = postgres_url.replace("+psycopg", f"+{driver}")
    if driver == "asyncpg":
        asyncio.run(_refused_async(url))
    else:
        _refused(create_engine(url))
    records = [record for record in _records(caplog) if record.outcome == "error"]
    result = [(record.error.get("code"), record.error.get("message")) for record in records]
    assert result == [(code, shown) for _, _, code, shown in REFUSED]
    for record in records:
        assert SECRET not in _without_statement(record)
        assert "99999" not in _without_statement(record)
    assert records[0].error["constraint"] == "users_token_key"
    assert records[0].error["table"] == "users"


def _refused(engine: Engine) -> None:
    with engine.connect() as connection:
        for statement in SCHEMA:
            connection.exec_driver_sql(statement)
        connection.commit()
        with SlowQueryMonitor(engine, threshold=0):
            for statement, parameters, _, _ in REFUSED:
                with pytest.raises(DBAPIError):
                    connection.execute(text(statement), parameters)
                connection.rollback()
    engine.dispose()


async def _refused_async(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        await connection.run_sync(lambda on: [on.exec_driver_sql(one) for one in SCHEMA])
        await connection.commit()
        with SlowQueryMonitor(engine, threshold=0):
            for statement, parameters, _, _ in REFUSED:
                with pytest.raises(DBAPIError):
                    await connection.execute(text(statement), parameters)
                await connection.rollback()
    await engine.dispose()


@pytest.mark.postgres
def test_a_value_that_asyncpg_refuses_itself_is_not_told(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> None:
        engine = create_async_engine(postgres_url.replace("+psycopg", "+asyncpg"))
        with SlowQueryMonitor(engine, threshold=0):
            async with engine.connect() as connection:
                with pytest.raises(DBAPIError, match="9012345678"):
                    await connection.execute(text("SELECT CAST(:n AS int)"), {"n": 9012345678})
        await engine.dispose()

    asyncio.run(ask())
    (record,) = [record for record in _records(caplog) if record.outcome == "error"]
    assert record.error["message"] == "invalid input for query argument ?"
    assert "9012345678" not in _without_statement(record)


def test_refusals_of_sqlite_tell_no_values(caplog: pytest.LogCaptureFixture) -> None:
    engine = create_engine("sqlite://")
    refused = [
        ("INSERT INTO users VALUES (:t, 1)", "UNIQUE constraint failed: ?"),
        (f"DELETE FROM {SECRET}", "no such table: ?"),  # noqa: S608 - as above
        ("INSERT INTO guarded VALUES (:t)", None),
    ]
    with engine.connect() as connection:
        connection.exec_driver_sql(SCHEMA[0])
        connection.exec_driver_sql(SCHEMA[1])
        connection.exec_driver_sql("CREATE TABLE guarded (t)")
        connection.exec_driver_sql(
            f"CREATE TRIGGER no BEFORE INSERT ON guarded BEGIN SELECT RAISE(ABORT, '{SECRET} refused'); END"
        )
        with SlowQueryMonitor(engine, threshold=0):
            for statement, _ in refused:
                with pytest.raises(DBAPIError):
                    connection.execute(text(statement), {"t": SECRET} if ":t" in statement else {})
    engine.dispose()
    records = _records(caplog)
    assert [record.error.get("message") for record in records] == [shown for _, shown in refused]
    assert all(SECRET not in _without_statement(record) for record in records)


# --- exceptions that are logged


def _logged(error: BaseException) -> str:
    record = logging.LogRecord("app", logging.ERROR, "app.py", 1, "failed", (), None)
    record.exc_info = (type(error), error, error.__traceback__)
    return JsonFormatter().format(record)


def test_a_logged_exception_of_a_foreign_engine_tells_no_parameters() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql(SCHEMA[0])
        connection.execute(text("INSERT INTO users VALUES (:t, 1)"), {"t": SECRET})
        with pytest.raises(DBAPIError, match=SECRET) as caught:
            connection.execute(text("INSERT INTO users VALUES (:t, 1)"), {"t": SECRET})
    engine.dispose()
    line = _logged(caught.value)
    assert "UNIQUE constraint failed" in line
    assert SECRET not in line


@pytest.mark.postgres
@pytest.mark.parametrize("secret", [SECRET, f"{SECRET}\nand {SECRET}"])
def test_a_logged_exception_tells_no_detail_of_postgresql(postgres_url: str, secret: str) -> None:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        connection.exec_driver_sql(SCHEMA[0])
        insert = text("INSERT INTO users VALUES (:t, :a)")
        connection.execute(insert, {"t": secret, "a": 1})
        connection.commit()
        for age in (1, 900):  # a key that exists, a row that fails the check
            with pytest.raises(DBAPIError, match=SECRET) as caught:
                connection.execute(insert, {"t": secret, "a": age})
            connection.rollback()
            assert SECRET not in _logged(caught.value)
    engine.dispose()


# --- by the forms that are known, on every way into the log

LOGGED: list[tuple[str, dict[str, object], str]] = [
    *(
        (statement, given, shown or "[P0001]")
        for statement, given, _, shown in REFUSED
        if given or shown is None
    ),
    ("SELECT CAST(CAST(:t AS text) AS mood)", {"t": SECRET}, "invalid input value for enum ?: ?"),
    ("SELECT CAST(CAST(:t AS text) AS int[])", {"t": "{" + SECRET}, 'malformed array literal: "?"'),
    ("SELECT CAST(CAST(:t AS text) AS timestamp)", {"t": f"2026-13-45 {SECRET}"}, 'out of range: "?"'),
    ("SELECT CAST(CAST(:t AS text) AS json)", {"t": '{"a": ' + SECRET}, "invalid input syntax for type json"),
    ("SELECT 'a' ~ :t", {"t": f"{SECRET}("}, "[2201B]"),
    (f"SELECT CAST('{SECRET}' AS int), 9012345678", {}, "[SQL: SELECT CAST(? AS int), ?]"),
]


async def _errors_of(driver: str, url: str) -> list[BaseException]:
    errors: list[BaseException] = []
    engine = create_async_engine(url.replace("+psycopg", f"+{driver}"))
    async with engine.connect() as connection:
        await connection.run_sync(lambda on: [on.exec_driver_sql(one) for one in SCHEMA])
        await connection.exec_driver_sql("CREATE TYPE mood AS ENUM ('calm')")
        await connection.commit()
        for statement, parameters, _ in LOGGED:
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(text(statement), parameters)
            errors.append(caught.value)
            await connection.rollback()
    await engine.dispose()
    return errors


@pytest.mark.postgres
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_logged_exception_says_the_form_of_its_message_and_no_value(postgres_url: str, driver: str) -> None:
    for error, (_, _, shown) in zip(asyncio.run(_errors_of(driver, postgres_url)), LOGGED, strict=True):
        line = _logged(error)
        assert shown in json.loads(line)["exception"]["message"]
        assert SECRET not in line
        assert "9012345678" not in line


def _refused_by_sqlite() -> DBAPIError:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE guarded (t)")
        connection.exec_driver_sql(
            f"CREATE TRIGGER no BEFORE INSERT ON guarded BEGIN SELECT RAISE(ABORT, '{SECRET} refused'); END"
        )
        with pytest.raises(DBAPIError, match=SECRET) as caught:
            connection.execute(text("INSERT INTO guarded VALUES (1)"))
    engine.dispose()
    return caught.value


@pytest.mark.parametrize("unwrap", [False, True], ids=["of SQLAlchemy", "of the driver"])
@pytest.mark.parametrize(
    ("message", "args", "extra"),
    [("failed: %s", True, False), ("failed: %r", True, False), (None, False, False), ("failed", False, True)],
)
def test_an_error_in_the_message_or_a_field_tells_no_value_either(
    unwrap: bool, message: str | None, args: bool, extra: bool
) -> None:
    error: Any = _refused_by_sqlite()
    error = error.orig if unwrap else error
    record = logging.LogRecord("app", logging.ERROR, "app.py", 1, message or error, (error,) * args, None)
    if extra:
        record.__dict__["error"] = error
    line = JsonFormatter().format(record)
    assert "SQLITE_CONSTRAINT_TRIGGER" in line
    assert SECRET not in line


def test_what_no_database_said_is_left_alone() -> None:
    class CraneError(Exception):
        statement = "SELECT 1"

    assert json.loads(_logged(CraneError("crane 7 is away")))["exception"]["message"] == "crane 7 is away"


class _PyodbcError(Exception):
    __module__ = "pyodbc"


class _OracleError(Exception):
    __module__ = "oracledb.exceptions"


class _OracleFault:
    full_code = "ORA-00001"

    def __str__(self) -> str:
        return f"ORA-00001: unique constraint violated: {SECRET}"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (_PyodbcError("42S02", f"[42S02] Invalid object name {SECRET}"), "[42S02]"),
        (_OracleError(_OracleFault()), "[ORA-00001]"),
        (_OracleError(f"something about {SECRET}"), "[message not shown]"),
    ],
    ids=["pyodbc", "Oracle", "Oracle without a code"],
)
def test_drivers_that_are_not_installed_here_are_known_by_their_names(error: Exception, shown: str) -> None:
    line = _logged(error)
    assert json.loads(line)["exception"]["message"] == shown
    assert SECRET not in line
