"""Monitoring with an SQLAlchemy whose private parts are not the known ones: public events replace them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from mks_hardening.db import SlowQueryMonitor, watch_queries
from mks_hardening.db.watch import _sqlalchemy_internals as internals


@pytest.fixture(
    params=[
        ("CONTEXT_METHODS", "pre_exec", 9, "DefaultExecutionContext.pre_exec"),
        ("STRATEGY_METHODS", "fetch_everything", 2, "ResultFetchStrategy.fetch_everything"),
    ],
    ids=["different", "missing"],
)
def part(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    table, name, number, part = request.param
    monkeypatch.setitem(getattr(internals, table), name, number)
    internals.missing_parts.cache_clear()
    yield part
    monkeypatch.undo()
    internals.missing_parts.cache_clear()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE article (id INTEGER)"))
    yield engine
    engine.dispose()


def records(caplog: pytest.LogCaptureFixture, message: str) -> list[Any]:
    return [record for record in caplog.records if message in record.getMessage()]


def test_statements_and_errors_are_counted_and_one_record_says_why(
    part: str, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with SlowQueryMonitor(engine, threshold=0) as monitor, engine.begin() as connection:
        connection.execute(text("INSERT INTO article VALUES (:id)"), [{"id": 1}, {"id": 2}, {"id": 3}])
        assert connection.execute(text("UPDATE article SET id = id + 1")).rowcount == 3
        assert len(connection.execute(text("SELECT id FROM article")).all()) == 3
        with pytest.raises(OperationalError):
            connection.execute(text("SELECT nothing FROM nowhere"))
    counted = sorted((row.calls, row.errors, row.rows) for row in monitor.stats())
    assert counted == [(1, 0, 0), (1, 0, 3), (1, 0, 3), (1, 1, 0)]  # the rows of a SELECT are fetched later
    slow = records(caplog, "slow query")
    assert [record.outcome for record in slow] == ["ok", "ok", "ok", "error"]
    assert all("test_db_public_events.py" in record.caller for record in slow)
    (said,) = records(caplog, "SQLAlchemy")
    assert part in said.getMessage()


def test_repeated_statements_are_still_found(part: str, engine: Engine) -> None:
    with watch_queries(engine) as log, engine.connect() as connection:
        for number in range(4):
            connection.execute(text("SELECT id FROM article WHERE id = :id"), {"id": number})
    (finding,) = log.n_plus_one
    assert finding.times == 4


def test_nothing_is_left_when_the_last_monitor_goes(part: str, engine: Engine) -> None:
    context = engine.dialect.execution_ctx_cls
    first, second = SlowQueryMonitor(engine).install(), SlowQueryMonitor(engine).install()
    first.uninstall()
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        second.uninstall()
        connection.execute(text("SELECT 1"))
    assert not first.stats()
    assert [row.calls for row in second.stats()] == [1]
    assert engine.dialect.execution_ctx_cls is context
    assert not list(engine.dispatch.before_cursor_execute)
    assert not list(engine.dispatch.after_cursor_execute)
    assert not list(engine.dialect.dispatch.handle_error)


def test_with_the_known_parts_no_event_is_used(engine: Engine) -> None:
    with SlowQueryMonitor(engine):
        assert not list(engine.dispatch.before_cursor_execute)
