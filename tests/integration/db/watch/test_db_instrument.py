"""Watching beside other tools, cancelled tasks, the garbage collector and hostile values."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from mks_hardening.db import PoolMonitor, SlowQueryMonitor, hardened_async_engine, watch_queries


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


def _class_of_another_tool(base: Any) -> Any:
    return type("TheirContext", (base,), {"theirs": True})


def test_another_tools_class_below_ours_is_put_back(engine: Engine) -> None:
    engine.dialect.execution_ctx_cls = theirs = _class_of_another_tool(engine.dialect.execution_ctx_cls)
    with SlowQueryMonitor(engine) as monitor, engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
        assert len(monitor.stats()) == 1
    assert engine.dialect.execution_ctx_cls is theirs


def test_another_tools_class_over_ours_stays_and_a_second_monitor_works(engine: Engine) -> None:
    monitor = SlowQueryMonitor(engine).install()
    engine.dialect.execution_ctx_cls = theirs = _class_of_another_tool(engine.dialect.execution_ctx_cls)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        monitor.uninstall()
        assert engine.dialect.execution_ctx_cls is theirs
        connection.execute(text("SELECT 1"))
        assert monitor.stats()[0].calls == 1
        with SlowQueryMonitor(engine) as second:
            connection.execute(text("SELECT 1"))
            assert second.stats()[0].calls == 1
    assert monitor.stats()[0].calls == 1


def test_an_engine_without_a_class_of_its_own_has_none_afterwards(engine: Engine) -> None:
    with SlowQueryMonitor(engine), watch_queries(engine):
        pass
    assert "execution_ctx_cls" not in vars(engine.dialect)
    assert not engine._has_events


def test_a_result_that_is_collected_while_another_is_counted_does_not_wait_for_itself(engine: Engine) -> None:
    with SlowQueryMonitor(engine) as monitor, engine.connect() as connection:
        with monitor._stats._lock:
            connection.execute(text("SELECT 1 UNION SELECT 2"))  # dropped at once, counted by its end
        assert sum(row.calls for row in monitor.stats()) == 1


def test_a_pool_monitor_leaves_what_others_put_before_and_after_it(engine: Engine) -> None:
    plain = engine.raw_connection

    def theirs() -> Any:
        return plain()

    engine.raw_connection = theirs  # type: ignore[method-assign] # as tracing tools do
    monitor = PoolMonitor(engine).install()
    monitor.uninstall()
    assert vars(engine)["raw_connection"] is theirs
    monitor.install()
    ours = engine.raw_connection

    def over() -> Any:
        return ours()

    engine.raw_connection = over  # type: ignore[method-assign] # as above
    monitor.uninstall()
    assert vars(engine)["raw_connection"] is over
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    del engine.raw_connection
    with PoolMonitor(engine):
        assert "raw_connection" in vars(engine)
    assert "raw_connection" not in vars(engine)


@pytest.mark.postgres
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_cancelled_statement_leaves_a_record(
    postgres_url: str, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> None:
        engine = hardened_async_engine(postgres_url.replace("+psycopg", f"+{driver}"))
        with SlowQueryMonitor(engine, threshold=0.01) as monitor:
            async with engine.connect() as connection:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await connection.execute(text("SELECT pg_sleep(30)"))
            (row,) = (row for row in monitor.stats() if row.errors)
            assert (row.calls, row.errors) == (1, 1)
        await engine.dispose()

    asyncio.run(ask())
    (record,) = (vars(one) for one in caplog.records if getattr(one, "outcome", "") == "error")
    assert record["error"]["type"] == "CancelledError"
    assert record["statement"] == "select pg_sleep(?)"
    assert record["duration_ms"] >= 50


class HostileParameter:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("show_values", [False, True])
def test_a_hostile_parameter_does_not_cost_the_record(
    show_values: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine("sqlite://", hide_parameters=True)
    with (
        SlowQueryMonitor(engine, threshold=0, show_values=show_values),
        engine.connect() as connection,
        pytest.raises(DBAPIError),
    ):
        connection.execute(text("SELECT :a"), {"a": HostileParameter()})
    engine.dispose()
    (record,) = (vars(one) for one in caplog.records if one.message == "slow query")
    assert record["outcome"] == "error"
    assert record["error"]["type"]
