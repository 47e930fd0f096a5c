"""How the queue stands, and what is said when nobody works it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mks_hardening._core import hooks
from mks_hardening.db import hardened_engine
from mks_hardening.events import TaskQueueSeen
from mks_hardening.exceptions import TaskRetryError
from mks_hardening.tasks import RecentRuns, TaskQueueWatch, TaskRun, Tasks, TaskStats, TaskWorker
from mks_hardening.testing import FrozenClock
from testbed.polling import wait_until


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(1_790_000_000.0)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def tasks(request: pytest.FixtureRequest, tmp_path: Path, clock: FrozenClock) -> Iterator[Tasks]:
    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    engine = hardened_engine(url)
    made = Tasks(engine, clock=clock)
    made.create_table()
    yield made
    engine.dispose()


@pytest.fixture
def worker(tasks: Tasks, clock: FrozenClock) -> TaskWorker:
    return TaskWorker(tasks, clock=clock, schedule=False)


def enqueue(tasks: Tasks, name: str, **options: Any) -> str:
    with tasks.begin() as connection:
        return tasks.known[name].using(**options).enqueue(connection)


def test_an_empty_queue(tasks: Tasks) -> None:
    assert tasks.stats() == TaskStats()


def test_everything_is_counted_once(tasks: Tasks, worker: TaskWorker, clock: FrozenClock) -> None:
    @tasks.task("slow")
    def slow(run: TaskRun) -> None:
        clock.advance(4)

    @tasks.task("other", queue="reports")
    def other(run: TaskRun) -> None:
        """Nobody serves this queue."""

    @tasks.task("breaks")
    def breaks(run: TaskRun) -> None:
        if run.attempt == 1:
            raise TaskRetryError(after=0)
        raise ValueError("broken")

    enqueue(tasks, "slow")
    enqueue(tasks, "breaks")
    cancelled = enqueue(tasks, "slow", delay=50)
    tasks.cancel(cancelled)
    assert worker.run_pending() == ["done", "retried", "dead"]
    enqueue(tasks, "other")
    clock.advance(10)
    enqueue(tasks, "other")
    enqueue(tasks, "slow", delay=50)
    enqueue(tasks, "slow")
    assert len(tasks.store.lease(owner="a" * 32, lease=30, queues=["default"], most=1)) == 1
    assert tasks.stats() == TaskStats(
        due=2,
        oldest_due=10.0,
        delayed=1,
        running=1,
        done=1,
        dead=1,
        cancelled=1,
        queues={"default": 0, "reports": 2},
        dead_by_name={"breaks": 1},
        recent={
            "slow": RecentRuns(done=1, dead=0, retries=0, mean_seconds=4.0, longest_seconds=4.0),
            "breaks": RecentRuns(done=0, dead=1, retries=1, mean_seconds=0.0, longest_seconds=0.0),
        },
    )
    clock.advance(31)  # the lease of the one that ran is over: nobody works at it
    later = tasks.stats(window=5)
    assert (later.due, later.running, later.oldest_due, later.recent) == (3, 0, 41.0, {})


@pytest.fixture
def seen() -> Iterator[list[TaskQueueSeen]]:
    events = list[TaskQueueSeen]()

    def observe(event: object) -> None:
        if isinstance(event, TaskQueueSeen):
            events.append(event)

    hooks.add_observer(observe)
    yield events
    hooks.remove_observer(observe)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    records = [(record.levelno, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return records


def test_a_queue_that_nobody_works_is_told_once_and_so_is_its_end(
    tasks: Tasks,
    worker: TaskWorker,
    clock: FrozenClock,
    seen: list[TaskQueueSeen],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks.task("work")(lambda run: None)
    watch = TaskQueueWatch(tasks, longest=60)
    enqueue(tasks, "work")
    clock.advance(60)
    assert watch.look().due == 1
    assert said(caplog) == []
    clock.advance(1)
    for _ in range(3):
        watch.look()
    assert said(caplog) == [
        (logging.ERROR, "no worker runs the queue of tasks: 1 are due, the oldest for 61 s")
    ]
    assert seen[-1] == TaskQueueSeen(due=1, oldest_due=61.0, running=0, dead=0, stalled=True)
    worker.run_pending()
    for _ in range(2):
        watch.look()
    assert said(caplog) == [(logging.WARNING, "workers run the queue of tasks again")]
    assert not seen[-1].stalled


def test_a_task_that_no_worker_knows_may_wait_as_long_as_a_deploy_takes(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    newer = Tasks(tasks.store.engine, table=tasks.store.table, clock=clock)
    newer.task("new")(lambda run: None)
    enqueue(newer, "new")
    watch = TaskQueueWatch(tasks, longest=60, deploy=100)
    for _ in range(6):
        assert worker.run_pending() == ["unknown"]
        caplog.clear()
        watch.look()
        assert said(caplog) == []
        clock.advance(16)
    assert (tasks.stats().unknown, tasks.stats().due) == (
        1,
        0,
    )  # its time has come, and that is not the queue's fault
    clock.advance(5)
    watch.look()
    watch.look()
    assert said(caplog) == [
        (logging.ERROR, "no worker knows 1 tasks, the oldest of 101 s ago; is a deployment incomplete?")
    ]
    assert TaskWorker(newer, clock=clock, schedule=False).run_pending() == ["done"]
    watch.look()
    assert said(caplog) == [(logging.WARNING, "workers know all tasks again")]


def test_the_thread_looks_by_itself_and_outlives_a_database_that_is_away(
    tasks: Tasks, seen: list[TaskQueueSeen], caplog: pytest.LogCaptureFixture
) -> None:
    tasks.store.table.drop(tasks.store.engine)
    with TaskQueueWatch(tasks, every=0.1) as watch:
        wait_until(lambda: "the table of tasks is unavailable" in caplog.text, what="a record of the outage")
        watch.start()
        tasks.create_table()
        wait_until(lambda: len(seen) > 1, what="a look")
    watch.close()
    assert caplog.text.count("the table of tasks is unavailable") == 1
    assert caplog.text.count("the table of tasks is available again") == 1
