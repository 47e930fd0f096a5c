"""Leases, renewal by renewal, and slots by name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import Every, TaskRun, Tasks, TaskWorker
from mks_hardening.tasks._leases import LeaseRenewer
from mks_hardening.testing import FrozenClock

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOON)


@pytest.fixture
def tasks(tmp_path: Path, clock: FrozenClock) -> Iterator[Tasks]:
    made = Tasks(hardened_engine(f"sqlite:///{tmp_path / 'tasks.db'}"), clock=clock)
    made.create_table()
    yield made
    made.store.engine.dispose()


def held(tasks: Tasks, clock: FrozenClock, renewer: LeaseRenewer, *, timeout: float) -> TaskRun:
    if "noop" not in tasks.known:
        tasks.task("noop")(lambda run: None)
    with tasks.begin() as connection:
        tasks.known["noop"].enqueue(connection)
    (taken,) = tasks.store.lease(owner="a" * 32, lease=30, queues=["default"], most=1)
    run = TaskRun(tasks.store, taken, clock=clock)
    renewer.add(run, timeout=timeout)
    return run


def test_what_was_let_go_is_renewed_no_more(
    tasks: Tasks, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewer = LeaseRenewer(tasks.store, lease=30, clock=clock)
    run = held(tasks, clock, renewer, timeout=100)
    renewer.remove(run)
    renewer.remove(run)
    monkeypatch.setattr(tasks.store, "renew", None)
    renewer.renew_all()
    renewer.close()


def test_the_thread_that_beats_keeps_no_process_alive_and_ends(tasks: Tasks, clock: FrozenClock) -> None:
    renewer = LeaseRenewer(tasks.store, lease=30, clock=clock)
    renewer.start()
    assert renewer._thread is None
    held(tasks, clock, renewer, timeout=100)
    thread: Any = renewer._thread
    assert thread.daemon
    renewer.close()
    assert not thread.is_alive()


def test_no_thread_beats_for_nothing(tasks: Tasks, clock: FrozenClock) -> None:
    """Who runs what is due now and then, and forgets the worker, collects no threads."""
    renewer = LeaseRenewer(tasks.store, lease=0.03, clock=clock)
    renewer.start()
    for _ in range(2):
        run = held(tasks, clock, renewer, timeout=100)
        thread: Any = renewer._thread
        assert thread.is_alive()
        renewer.remove(run)
        thread.join(10)
        assert renewer._thread is None
    renewer.close()


def slots(tasks: Tasks) -> list[str]:
    return [str(new.unique_key) for new in tasks.store.accepted()]


def test_a_slot_is_named_by_its_begin_in_utc_and_enqueued_once(tasks: Tasks, clock: FrozenClock) -> None:
    tasks.task("tick", schedule=Every(3600))(lambda run: None)
    worker = TaskWorker(tasks)
    assert worker.enqueue_scheduled()
    assert slots(tasks) == ["slot:2026-11-23T12:00:00Z"]
    assert not worker.enqueue_scheduled()
    clock.advance(3600)
    assert worker.enqueue_scheduled()
    assert slots(tasks)[1:] == ["slot:2026-11-23T13:00:00Z"]


def test_a_skipped_slot_is_one_that_began_before_the_scheduler(tasks: Tasks, clock: FrozenClock) -> None:
    tasks.task("tick", schedule=Every(3600, missed="skip"))(lambda run: None)
    at_the_begin, later = TaskWorker(tasks), TaskWorker(tasks)
    assert at_the_begin.enqueue_scheduled()
    clock.advance(60)
    tasks.task("tock", schedule=Every(3600, missed="skip"))(lambda run: None)
    assert not later.enqueue_scheduled()
    clock.advance(3600)
    assert later.enqueue_scheduled()
    assert len(slots(tasks)) == 3
    clock.advance(1)
    assert not later.enqueue_scheduled()


def test_a_clock_that_was_ahead_holds_back_no_slot_once_it_is_right(tasks: Tasks, clock: FrozenClock) -> None:
    tasks.task("tick", schedule=Every(3600, missed="skip"))(lambda run: None)
    worker = TaskWorker(tasks)
    clock.step_wall(30 * 86_400 + 60)
    assert not worker.enqueue_scheduled()
    clock.step_wall(-30 * 86_400)
    assert not worker.enqueue_scheduled()
    clock.advance(3600)
    assert worker.enqueue_scheduled()
    assert len(slots(tasks)) == 1
