"""Which failures of a task are tried again: those of the database that pass, not those of the work."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from mks_hardening.tasks import is_transient

psycopg = pytest.importorskip("psycopg")


def wrapped(error: Exception) -> DBAPIError:
    return DBAPIError.instance("SELECT 1", None, error, psycopg.Error)  # type: ignore[return-value]  # never None


@pytest.mark.parametrize(
    ("state", "passes"),
    [
        ("40001", True),  # serialization failure
        ("40P01", True),  # deadlock
        ("25006", True),  # read-only: a standby, or the old primary of a failover
        ("55P03", True),  # a lock was not given in time
        ("57P01", True),  # the server ends
        ("57P03", True),  # and starts
        ("53300", True),  # too many connections
        ("08006", True),
        ("57014", False),  # took too long
        ("23505", False),
        ("42P01", False),
        ("22P02", False),
    ],
)
def test_what_postgresql_says(state: str, passes: bool) -> None:
    error = psycopg.errors.lookup(state)("no")
    assert is_transient(error) is passes
    assert is_transient(wrapped(error)) is passes


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    engine = create_engine(f"postgresql+psycopg:///x?host={tmp_path}")
    with pytest.raises(OperationalError) as refused:
        engine.connect()
    assert refused.value.connection_invalidated is False  # which SQLAlchemy sets for open connections alone
    assert is_transient(refused.value)


def test_another_writer_of_sqlite(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db", connect_args={"timeout": 0})
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE a (b INTEGER PRIMARY KEY)"))
    holder = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(OperationalError) as busy, engine.begin() as connection:
            connection.execute(text("INSERT INTO a VALUES (1)"))
    finally:
        holder.close()
    assert is_transient(busy.value)
    with pytest.raises(OperationalError) as wrong, engine.begin() as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (1)"))
    assert not is_transient(wrong.value)
    with pytest.raises(IntegrityError) as twice, engine.begin() as connection:
        connection.execute(text("INSERT INTO a VALUES (1), (1)"))
    assert not is_transient(twice.value)
    engine.dispose()


def test_a_pool_that_is_used_up() -> None:
    assert is_transient(PoolTimeoutError("QueuePool limit of size 1 reached"))


def test_errors_that_only_look_like_it() -> None:
    class OperationalError(Exception):
        sqlstate = "40001"

    assert not is_transient(OperationalError())
    assert not is_transient(ValueError())


@pytest.mark.parametrize(
    ("status", "passes"),
    [(400, False), (428, False), (429, True), (430, False), (499, False), (500, True), (503, True)],
)
def test_what_a_web_server_says(status: int, passes: bool) -> None:
    error = Exception("no")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]  # as requests and httpx do
    assert is_transient(error) is passes
