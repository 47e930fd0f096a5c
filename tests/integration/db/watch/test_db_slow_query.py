"""The monitor on real databases: what it times, what it logs, and what it must not say."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError

from db_engines import engine  # noqa: F401 - a fixture
from mks_hardening.db import (
    SlowQueryMonitor,
    fingerprint,
    hardened_engine,
    slow_query_record,
)
from mks_hardening.events import SlowQuery, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock

USERS = Table(
    "users",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("email", String(200), unique=True),
)


class SteppingClock(FrozenClock):
    """Each look takes a millisecond: durations are counts of looks, so that tests need no waiting."""

    __slots__ = ()

    def monotonic(self) -> float:
        self.advance(0.001)
        return super().monotonic()


@pytest.fixture
def users(engine: Engine) -> Engine:  # noqa: F811 - the fixture
    USERS.create(engine)
    with engine.begin() as connection:
        connection.execute(insert(USERS), [{"id": n, "email": f"user{n}@example.com"} for n in range(20)])
    return engine


def _stats(monitor: SlowQueryMonitor, sql: str, dialect: Any) -> Any:
    wanted = fingerprint(sql, dialect=dialect)
    return next(row for row in monitor.stats() if row.fingerprint == wanted)


def test_every_way_to_read_is_counted_once_with_its_rows(users: Engine) -> None:
    sql = "SELECT id FROM users WHERE id < :limit ORDER BY id"
    with (
        SlowQueryMonitor(users, threshold=60, clock=SteppingClock()) as monitor,
        users.connect() as connection,
    ):
        run = lambda: connection.execute(text(sql), {"limit": 10})  # noqa: E731 - a name for a line
        assert len(run().all()) == 10
        assert run().first() is not None
        assert run().scalar() == 0
        assert [row.id for row in run()] == list(range(10))
        assert len(run().fetchmany(3)) == 3
        assert sum(len(part) for part in run().partitions(4)) == 10
        streamed = connection.execute(text(sql), {"limit": 10}, execution_options={"yield_per": 4})
        assert len(streamed.scalars().all()) == 10
        assert len(run().yield_per(4).all()) == 10
        run().close()
        run()
        gc.collect()
        row = _stats(monitor, sql, users.dialect.name)
    assert (row.calls, row.errors) == (10, 0)
    assert row.rows == 10 + 1 + 1 + 10 + 3 + 10 + 10 + 10
    assert row.total_ms >= row.max_ms > row.p50_ms * 0.9 > 0


def test_fetching_is_part_of_the_time(users: Engine) -> None:
    clock = SteppingClock()
    with SlowQueryMonitor(users, clock=clock) as monitor, users.connect() as connection:
        connection.execute(text("SELECT id FROM users")).all()
        row = _stats(monitor, "SELECT id FROM users", users.dialect.name)
    # one look before and one after the execution, one before and one after the fetch
    assert row.max_ms == pytest.approx(2.0)


def test_changes_count_what_they_changed(users: Engine) -> None:
    with SlowQueryMonitor(users) as monitor, users.begin() as connection:
        connection.execute(update(USERS).where(USERS.c.id < 5).values(email=USERS.c.email + "x"))
        connection.exec_driver_sql("DELETE FROM users WHERE id >= 18")
        connection.execute(text("INSERT INTO users (id) VALUES (:id)"), [{"id": 100 + n} for n in range(7)])
        rows = {stats.rows for stats in monitor.stats()}
    assert rows == {5, 2, 7}


def test_a_failed_statement_is_timed_and_its_error_says_no_values(
    users: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with SlowQueryMonitor(users, threshold=0) as monitor:
        with pytest.raises(DBAPIError), users.begin() as connection:
            connection.execute(insert(USERS).values(id=1000, email="user1@example.com"))
        assert [row.errors for row in monitor.stats()] == [1]
    record = _records(caplog)[-1]
    assert record["outcome"] == "error"
    assert record["error"]["code"] in {"23505", "SQLITE_CONSTRAINT_UNIQUE"}
    assert "user1@example.com" not in str(record)


def test_the_dialect_still_hears_of_its_errors(users: Engine) -> None:
    """As that of asyncpg, which then forgets the statements it has prepared."""
    heard = list[object]()

    class Context(users.dialect.execution_ctx_cls):  # type: ignore[name-defined, misc]  # known when it runs
        def handle_dbapi_exception(self, e: BaseException) -> None:
            heard.append(self)

    users.dialect.execution_ctx_cls = Context
    with SlowQueryMonitor(users), users.connect() as connection, pytest.raises(DBAPIError):
        connection.execute(text("SELECT nothing FROM nowhere"))
    assert [isinstance(context, Context) for context in heard] == [True]


@pytest.mark.postgres
def test_an_error_while_fetching_belongs_to_its_statement(postgres_url: str) -> None:
    users = hardened_engine(postgres_url)
    sql = "SELECT 1 / (15000 - n) FROM generate_series(1, 20000) n"
    with SlowQueryMonitor(users, threshold=0) as monitor, users.connect() as connection:
        rows = connection.execution_options(stream_results=True, max_row_buffer=1000).execute(text(sql))
        with pytest.raises(DBAPIError):
            rows.all()
        del rows
        gc.collect()
        row = _stats(monitor, sql, "postgresql")
    users.dispose()
    assert (row.calls, row.errors) == (1, 1)


def test_slow_statements_are_logged_with_their_place_and_without_their_values(
    users: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with SlowQueryMonitor(users, threshold=0.0015, clock=SteppingClock()), users.connect() as connection:
        connection.execute(
            text("SELECT id FROM users WHERE email = :email OR id = 424242"), {"email": "me@x.jp"}
        ).all()
        connection.execute(text("SELECT 1")).close()
    (record,) = _records(caplog)
    assert record["statement"] == "select id from users where email = ? or id = ?"
    assert record["fingerprint"] == fingerprint("select id from users where email = '' or id = 1")
    assert record["parameter_count"] == 1
    assert record["duration_ms"] == pytest.approx(2.0)
    assert (record["rows"], record["outcome"]) == (0, "ok")
    assert record["caller"].startswith("db/watch/test_db_slow_query.py:")
    assert "me@x.jp" not in str(record)
    assert "424242" not in str(record)


def _records(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name == "mks_hardening.db"]


def test_values_can_be_shown_and_secrets_still_are_not(
    users: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with SlowQueryMonitor(users, threshold=0, show_values=True), users.connect() as connection:
        connection.execute(
            text("SELECT 1 WHERE :name = :password"), {"name": "n", "password": "hunter2"}
        ).all()
    first, *_ = _records(caplog)
    assert first["parameters"] == {"name": "n", "password": "[REDACTED]"}


def test_a_flood_is_cut_and_counted(users: Engine, caplog: pytest.LogCaptureFixture) -> None:
    clock = FrozenClock()
    with (
        SlowQueryMonitor(users, threshold=0, log_rate=2, clock=clock) as monitor,
        users.connect() as connection,
    ):
        for _ in range(10):
            connection.execute(text("SELECT 1")).all()
        assert len(_records(caplog)) == 2
        clock.advance(1)
        connection.execute(text("SELECT 1")).all()
        assert _records(caplog)[-1]["left_out"] == 8
        assert _stats(monitor, "select 1", users.dialect.name).calls == 11


def test_observers_hear_of_slow_statements(users: Engine) -> None:
    heard: list[Any] = []
    add_observer(heard.append)
    try:
        with SlowQueryMonitor(users, threshold=0), users.connect() as connection:
            connection.execute(text("SELECT 1")).all()
    finally:
        remove_observer(heard.append)
    assert [(event.fingerprint, event.outcome) for event in heard if isinstance(event, SlowQuery)] == [
        (fingerprint("select 1"), "ok")
    ]


def test_install_and_uninstall_leave_no_trace(users: Engine) -> None:
    before = users.dialect.execution_ctx_cls
    one, other = SlowQueryMonitor(users), SlowQueryMonitor(users)
    one.install().install()
    other.install()
    with users.connect() as connection:
        connection.execute(text("SELECT 1")).all()
        one.uninstall()
        one.uninstall()
        connection.execute(text("SELECT 1")).all()
    assert (one.stats()[0].calls, other.stats()[0].calls) == (1, 2)
    other.uninstall()
    assert users.dialect.execution_ctx_cls is before
    assert "execution_ctx_cls" not in vars(users.dialect)
    assert not users._has_events
    other.reset()
    assert other.stats() == []


def test_statistics_are_bounded(users: Engine) -> None:
    with SlowQueryMonitor(users, max_fingerprints=3) as monitor, users.connect() as connection:
        for n in range(10):
            connection.execute(text(f"SELECT 1 AS column_{n}")).all()
    rows = {row.fingerprint: row.calls for row in monitor.stats()}
    assert len(rows) == 4
    assert rows["other"] == 7


def test_a_broken_logger_breaks_no_statement(users: Engine) -> None:
    class Broken(logging.Logger):
        def warning(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("disk full")

    with SlowQueryMonitor(users, threshold=0, logger=Broken("broken")), users.connect() as connection:
        assert connection.execute(text("SELECT 7")).scalar() == 7


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("engine", {"engine": "sqlite://"}),
        ("threshold", {"threshold": -1}),
        ("log_rate", {"log_rate": 0}),
        ("max_fingerprints", {"max_fingerprints": 0}),
    ],
)
def test_impossible_parameters_are_refused(users: Engine, parameter: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SlowQueryMonitor(**{"engine": users, **options})
    assert caught.value.parameter == parameter


def test_joins_of_results_still_work(users: Engine) -> None:
    with SlowQueryMonitor(users), users.connect() as connection:
        frozen = connection.execute(select(USERS.c.id).order_by(USERS.c.id)).freeze()
        assert [row.id for row in frozen()] == list(range(20))
        result = connection.execute(select(USERS.c.id))
        assert result.returns_rows
        assert list(result.keys()) == ["id"]
        result.close()
        assert len(slow_query_record("select 1", ())) == 3
