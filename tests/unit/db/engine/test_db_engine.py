"""The hardened engine on SQLite, and what it refuses."""

from __future__ import annotations

import asyncio
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.pool import NullPool

from mks_hardening.db import hardened_async_engine, hardened_engine
from mks_hardening.exceptions import ConfigurationError, MissingDependencyError


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.sqlite'}"


def test_sqlite_gets_its_pragmas_on_every_connection(url: str) -> None:
    engine = hardened_engine(url, threads=2, lock_timeout=1.5)
    with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):
            pragmas = ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
            values = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in pragmas]
            assert values == ["wal", 1, 1500, 1]
    engine.dispose()


def test_the_pool_follows_the_plan_and_explicit_options_win(url: str) -> None:
    planned = hardened_engine(url, workers=4, threads=8).pool
    assert (planned.size(), planned._max_overflow, planned._timeout) == (8, 8, 5.0)  # type: ignore[attr-defined]
    assert planned._pool.use_lifo  # type: ignore[attr-defined]
    explicit = hardened_engine(url, threads=8, pool_size=3, max_overflow=1, pool_timeout=9).pool
    assert (explicit.size(), explicit._max_overflow, explicit._timeout) == (3, 1, 9)  # type: ignore[attr-defined]


def test_pools_without_sizes_are_not_given_any(url: str) -> None:
    assert isinstance(hardened_engine(url, poolclass=NullPool).pool, NullPool)
    engine = hardened_engine("sqlite://")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()


def test_errors_carry_no_values(url: str) -> None:
    engine = hardened_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE users (name TEXT UNIQUE)"))
        connection.execute(text("INSERT INTO users VALUES (:name)"), {"name": "hunter2"})
        with pytest.raises(IntegrityError) as caught:
            connection.execute(text("INSERT INTO users VALUES (:name)"), {"name": "hunter2"})
    assert isinstance(caught.value, StatementError)
    assert "hunter2" not in str(caught.value)
    engine.dispose()


def test_no_listener_is_left_that_slows_every_statement(url: str) -> None:
    assert not hardened_engine(url)._has_events


@pytest.mark.parametrize(
    ("bad_url", "message"),
    [
        ("no url with hunter2", "url"),
        ("postgresql+psycopg://app:hunter2@[::1/db", "url"),
        ("oracle+nothing://app:hunter2@host/db", "url"),
        ("postgresql+asyncpg://app:hunter2@host/db", "url"),
        (17, "url"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(bad_url: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        hardened_engine(bad_url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("make", [hardened_engine, hardened_async_engine])
@pytest.mark.parametrize(
    "url",
    ["mysql+pymysql://app:hunter2@host/db", "mariadb://app:hunter2@host/db", "oracle+x://app:hunter2@host"],
)
def test_a_database_without_limits_is_refused_with_the_reason(make: Any, url: str) -> None:
    with pytest.raises(ConfigurationError, match="limits would be set") as caught:
        make(url)
    assert caught.value.parameter == "url"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "url"),
    [
        (hardened_engine, "sqlite+aiosqlite:///file"),
        (hardened_engine, "postgresql+asyncpg://app:hunter2@host/db"),
        (hardened_async_engine, "postgresql+psycopg2://app:hunter2@host/db"),
    ],
)
def test_a_driver_of_the_other_world_is_refused(make: Any, url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(url)
    assert caught.value.parameter == "url"
    assert "hunter2" not in str(caught.value)


def test_an_asynchronous_engine_has_the_same_limits(url: str) -> None:
    async def ask() -> list[object]:
        engine = hardened_async_engine(
            url.replace("sqlite:", "sqlite+aiosqlite:"), threads=3, lock_timeout=1.5
        )
        assert engine.sync_engine.pool.size() == 3  # type: ignore[attr-defined] # it is a queue
        async with engine.connect() as connection:
            names = ("journal_mode", "foreign_keys", "busy_timeout")
            values = [(await connection.execute(text(f"PRAGMA {name}"))).scalar() for name in names]
        await engine.dispose()
        return values

    assert asyncio.run(ask()) == ["wal", 1, 1500]


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("statement_timeout", {"statement_timeout": -1}),
        ("lock_timeout", {"lock_timeout": "2"}),
        ("idle_in_transaction_timeout", {"idle_in_transaction_timeout": float("nan")}),
        ("client_deadline", {"client_deadline": float("inf")}),
        ("max_connections", {"max_connections": 2}),
        ("threads", {"threads": 0}),
    ],
)
def test_impossible_parameters_are_refused(url: str, parameter: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        hardened_engine(url, **options)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    "secret_url",
    [
        "postgresql+psycopg://app:hunter2@db.internal/app",
        "postgresql+psycopg://app@db.internal/app?password=hunter2",
    ],
)
def test_a_password_is_in_no_repr(secret_url: str) -> None:
    engine = hardened_engine(secret_url)
    assert "hunter2" not in f"{engine!r} {engine.url} {engine.url!r} {engine.pool!r}"
    _, options = engine.dialect.create_connect_args(engine.url)
    assert options["password"] == "hunter2"


def test_asyncio_without_greenlet_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "greenlet", None)
    with pytest.raises(MissingDependencyError, match=r"mks-hardening\[db\]"):
        hardened_async_engine("postgresql+psycopg://host/db")
