"""The pool monitor: who holds what, and the alert when nothing is left."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from mks_hardening.db import PoolMonitor, hardened_engine
from mks_hardening.events import PoolEvent, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = hardened_engine(
        f"sqlite:///{tmp_path / 'pool.sqlite'}", pool_size=2, max_overflow=0, pool_timeout=0.01
    )
    yield made
    made.dispose()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


def _work(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def test_holders_are_known_by_place_thread_and_time(engine: Engine, clock: FrozenClock) -> None:
    with PoolMonitor(engine, clock=clock) as monitor:
        with engine.connect(), engine.connect():
            clock.advance(3)
            stats = monitor.stats()
        _work(engine)
        after = monitor.stats()
    assert (stats.size, stats.checked_out, stats.checkouts) == (2, 2, 2)
    assert {holder.caller.partition(":")[0] for holder in stats.holders} == {
        "db/watch/test_db_pool_monitor.py"
    }
    assert {(holder.thread, holder.seconds) for holder in stats.holders} == {
        (threading.current_thread().name, 3.0)
    }
    assert (after.checked_out, after.checkouts, after.timeouts, after.holders) == (0, 3, 0, ())


def test_an_exhausted_pool_names_its_holders_once(
    engine: Engine, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []
    add_observer(heard.append)
    try:
        with PoolMonitor(engine, clock=clock) as monitor, engine.connect(), engine.connect():
            clock.advance(7)
            for _ in range(3):
                with pytest.raises(PoolTimeoutError):
                    _work(engine)
            assert monitor.stats().timeouts == 3
            records = [vars(record) for record in caplog.records if record.name == "mks_hardening.db"]
            clock.advance(11)
            with pytest.raises(PoolTimeoutError):
                _work(engine)
    finally:
        remove_observer(heard.append)
    assert len(records) == 1
    assert (records[0]["pool_size"], records[0]["checked_out"]) == (2, 2)
    assert len(records[0]["holders"]) == 2
    assert all(
        "test_db_pool_monitor.py:" in holder and "(7.0 s" in holder for holder in records[0]["holders"]
    )
    assert "test_db_pool_monitor.py:" in records[0]["caller"]
    assert len([record for record in caplog.records if record.name == "mks_hardening.db"]) == 2
    assert heard == [PoolEvent("exhausted", 2, 2)] * 4


def test_an_invalidated_connection_is_not_held_any_more(engine: Engine) -> None:
    with PoolMonitor(engine) as monitor:
        with engine.connect() as connection:
            connection.invalidate()
            assert monitor.stats().checked_out == 0
        _work(engine)
        assert monitor.stats().checked_out == 0


def test_a_disposed_engine_is_still_watched(engine: Engine) -> None:
    with PoolMonitor(engine) as monitor:
        engine.dispose()
        with engine.connect():
            assert monitor.stats().checked_out == 1


def test_uninstall_leaves_no_trace(engine: Engine) -> None:
    monitor = PoolMonitor(engine)
    monitor.install().install()
    _work(engine)
    monitor.uninstall()
    monitor.uninstall()
    _work(engine)
    assert monitor.stats().checkouts == 1
    assert "raw_connection" not in vars(engine)
    assert not engine._has_events


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_counts_its_own(engine: Engine) -> None:
    with PoolMonitor(engine) as monitor, engine.connect():
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            with engine.connect():
                os.write(writer, str(monitor.stats().checked_out).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 10) == b"1"
        os.close(reader)
        os.close(writer)
        assert monitor.stats().checked_out == 1


def test_a_pool_without_a_size_has_none(tmp_path: Path) -> None:
    from sqlalchemy.pool import NullPool

    engine = hardened_engine(f"sqlite:///{tmp_path / 'null.sqlite'}", poolclass=NullPool)
    with PoolMonitor(engine) as monitor, engine.connect():
        assert (monitor.stats().size, monitor.stats().checked_out) == (0, 1)


@pytest.mark.parametrize(
    ("parameter", "options"), [("engine", {"engine": "sqlite://"}), ("log_every", {"log_every": -1})]
)
def test_impossible_parameters_are_refused(engine: Engine, parameter: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PoolMonitor(**{"engine": engine, **options})
    assert caught.value.parameter == parameter
