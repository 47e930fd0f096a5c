"""What goes wrong around a task: functions that cannot run, odd texts, a database that hiccups, threads, forks."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event

from mks_hardening.db import hardened_engine
from mks_hardening.events import TaskChanged, add_observer, remove_observer
from mks_hardening.exceptions import (
    ConfigurationError,
    TaskCancelledError,
    TaskRefusedError,
    TaskRetryError,
)
from mks_hardening.logging import bound
from mks_hardening.tasks import Every, TaskRun, Tasks, TaskWorker
from mks_hardening.tasks import _executor as executor_module
from mks_hardening.tasks._leases import LEASE, LeaseRenewer
from mks_hardening.tasks.store._notification_listener import NotificationListener
from mks_hardening.tasks.store._task_rows import LeasedTask
from mks_hardening.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def tasks(tmp_path: Path, clock: FrozenClock) -> Iterator[Tasks]:
    made = Tasks(hardened_engine(f"sqlite:///{tmp_path / 'tasks.db'}"), clock=clock)
    made.create_table()
    yield made
    made.store.engine.dispose()


@pytest.fixture
def worker(tasks: Tasks, clock: FrozenClock) -> TaskWorker:
    return TaskWorker(tasks, clock=clock, schedule=False)


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "_WAITS", (0.0, 0.0))


def enqueue(tasks: Tasks, name: str, *args: Any, **options: Any) -> str:
    with tasks.begin() as connection:
        return tasks.known[name].using(**options).enqueue(connection, *args)


def error_of(tasks: Tasks, task_id: str) -> str:
    return next(said for status, said in tasks.listed() if status.id == task_id)


# --- functions


class Unreadable:
    __signature__ = "not one"

    def __call__(self, run: TaskRun) -> None:
        return None


@pytest.mark.parametrize(
    "work", [lambda: None, lambda *, run: None, Unreadable()], ids=["none", "keyword", "unreadable"]
)
def test_a_function_that_cannot_take_its_run_is_refused_when_it_is_made_a_task(
    tasks: Tasks, work: Callable[..., object]
) -> None:
    with pytest.raises(ConfigurationError, match=r"x: the (first parameter|parameters of this callable)"):
        tasks.task("x")(work)
    assert "x" not in tasks.known


def test_a_scheduled_task_must_do_without_arguments(tasks: Tasks) -> None:
    with pytest.raises(ConfigurationError, match="runs without arguments"):
        tasks.task("x", schedule=Every(60))(lambda run, day: None)
    tasks.task("y", schedule=Every(60))(lambda run, day=1, *rest, **more: None)
    tasks.task("z")(functools.partial(lambda extra, run, day: None, 1))


# --- texts


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 256])
def test_whose_it_is_and_its_key_are_texts_that_every_database_takes(tasks: Tasks, text: str) -> None:
    task = tasks.task("noop")(lambda run: None)
    with pytest.raises(ConfigurationError, match="user_id"):
        task.using(user_id=text)
    with pytest.raises(TaskRefusedError, match="key"):
        task.using(key=text)


def test_a_queue_whose_name_is_not_allowed_is_refused_with_what_is(tasks: Tasks) -> None:
    for queue in ("Mail", "1st", "a" * 41, "a b"):
        with pytest.raises(ConfigurationError, match="queue must be 1 to 40 of a-z, 0-9, _ and -, beginning"):
            tasks.task("x", queue=queue)


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a\0b"), "ValueError: a\ufffdb"),
        (ValueError("\ud800"), "ValueError: ?"),
        (ValueError("x" * 999), f"ValueError: {'x' * 488}"),
        (UnspeakableError(), "UnspeakableError"),
    ],
    ids=["nul", "surrogate", "long", "unspeakable"],
)
def test_errors_with_odd_texts_are_kept(
    tasks: Tasks, worker: TaskWorker, caplog: pytest.LogCaptureFixture, *, error: Exception, said: str
) -> None:
    # pytest-xdist cannot pass on a captured record with half a character in it.
    caplog.set_level(logging.CRITICAL, logger="mks_hardening.tasks")

    @tasks.task("fails")
    def fails(run: TaskRun) -> None:
        run.progress(0.1, "stage \0 \ud800")
        raise error

    task_id = enqueue(tasks, "fails")
    assert worker.run_pending() == ["dead"]
    assert error_of(tasks, task_id) == said


# --- how a run ends


def test_a_verdict_that_fails_counts_as_no(tasks: Tasks, worker: TaskWorker) -> None:
    def verdict(error: BaseException) -> bool:
        raise LookupError

    @tasks.task("fails", retry_on=verdict)
    def fails(run: TaskRun) -> None:
        raise OSError("disk")

    task_id = enqueue(tasks, "fails")
    assert worker.run_pending() == ["dead"]
    assert error_of(tasks, task_id) == "OSError: disk"


def test_a_result_that_cannot_be_kept_is_said_so(tasks: Tasks, worker: TaskWorker) -> None:
    tasks.task("gives")(lambda run: object())
    task_id = enqueue(tasks, "gives")
    assert worker.run_pending() == ["dead"]
    assert error_of(tasks, task_id) == "result must be JSON (TypeError)"


def test_a_task_that_raises_something_odd_leaves_its_thread_alive(tmp_path: Path) -> None:
    tasks = Tasks(hardened_engine(f"sqlite:///{tmp_path / 'threads.db'}"))
    tasks.create_table()
    ended = threading.Event()

    @tasks.task("odd")
    def odd(run: TaskRun) -> None:
        raise asyncio.CancelledError

    tasks.task("last")(lambda run: ended.set())
    with TaskWorker(tasks, concurrency=1, poll=0.01, schedule=False):
        enqueue(tasks, "odd", priority="high")
        enqueue(tasks, "last")
        assert ended.wait(20)
    assert tasks.counts() == {"dead": 1, "done": 1}
    tasks.store.engine.dispose()


def test_a_database_that_is_away_for_a_moment_costs_no_second_run(
    tasks: Tasks, worker: TaskWorker, monkeypatch: pytest.MonkeyPatch, no_waits: None
) -> None:
    runs, finish = list[int](), tasks.store.finish

    def away(*args: Any, **options: Any) -> bool:
        monkeypatch.setattr(tasks.store, "finish", finish)
        raise ConnectionError

    tasks.task("effect")(lambda run: runs.append(run.delivery))
    enqueue(tasks, "effect")
    monkeypatch.setattr(tasks.store, "finish", away)
    assert worker.run_pending() == ["done"]
    assert runs == [1]


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("step", ["finish", "give_up", "stop", "commit"])
def test_an_end_whose_commit_was_not_confirmed_is_known_afterwards(
    tasks: Tasks,
    worker: TaskWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
) -> None:
    @tasks.task("work")
    def work(run: TaskRun) -> None:
        if step == "give_up":
            raise ValueError("wrong")
        if step == "stop":
            raise TaskCancelledError("asked to stop")
        if step == "commit":
            with run.commit():
                break_once(tasks.store.engine.dialect, "do_commit", monkeypatch)

    task_id = enqueue(tasks, "work")
    if step != "commit":
        break_once(tasks.store, step, monkeypatch)
    expected = {"give_up": "dead", "stop": "cancelled"}.get(step, "done")
    assert worker.run_pending() == [expected]
    status = tasks.status(task_id)
    assert status is not None
    assert status.state == expected
    assert "expired" not in caplog.text
    assert caplog.text.count("waits for an operator") == (step == "give_up")


def test_a_lease_whose_commit_was_not_confirmed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_waits: None
) -> None:
    tasks = Tasks(hardened_engine(f"sqlite:///{tmp_path / 'tasks.db'}", threads=3))
    tasks.create_table()
    store, deliveries, all_ran = tasks.store, list[int](), threading.Event()

    @tasks.task("work")
    def work(run: TaskRun) -> None:
        deliveries.append(run.delivery)
        if len(deliveries) == 3:
            all_ran.set()

    def finish_and_lease(task: LeasedTask, *, result: str, **given: Any) -> tuple[bool, LeasedTask | None]:
        """Do both as on PostgreSQL."""
        return store.finish(task, result=result), next(iter(store.lease(most=1, **given)), None)

    monkeypatch.setattr(store, "finish_and_lease", finish_and_lease)
    break_once(store, "finish_and_lease", monkeypatch)
    with tasks.begin() as connection:
        tasks.enqueue_many(connection, [work.call() for _ in range(3)])
    with TaskWorker(tasks, concurrency=1, lease=3600, schedule=False):
        assert all_ran.wait(30)
    assert deliveries == [1, 1, 1]
    assert tasks.counts() == {"done": 3}
    tasks.store.engine.dispose()


def break_once(target: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next call of a method succeed and raise, as a connection that breaks before the response does."""
    method = getattr(target, name)

    def call(*args: Any, **options: Any) -> None:
        monkeypatch.setattr(target, name, method)
        method(*args, **options)
        raise ConnectionError

    monkeypatch.setattr(target, name, call)


def test_waking_by_notifications_ends_where_the_engine_rejects_them(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    def reject(*_: object) -> None:
        raise ConfigurationError("transaction_pooling does not allow it", parameter="transaction_pooling")

    event.listen(tasks.store.engine, "engine_connect", reject)
    NotificationListener(tasks.store.engine, ["default"], wake=lambda: None).run()
    assert "transaction_pooling does not allow it" in caplog.text


def test_an_outcome_is_kept_for_as_long_as_nobody_else_runs_the_task() -> None:
    assert sum(executor_module._WAITS) > LEASE


def test_a_database_that_stays_away_leaves_the_row_to_the_next_worker(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch, no_waits: None
) -> None:
    def away(*args: Any, **options: Any) -> bool:
        raise ConnectionError

    tasks.task("effect")(lambda run: run.delivery)
    task_id = enqueue(tasks, "effect")
    with monkeypatch.context() as patch:
        patch.setattr(tasks.store, "finish", away)
        with pytest.raises(ConnectionError):
            worker.run_pending()
    clock.advance(31)
    assert worker.run_pending() == ["done"]
    status = tasks.status(task_id)
    assert status is not None
    assert status.result == 2


def test_the_end_of_the_process_is_no_failure_of_the_task(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock
) -> None:
    @tasks.task("long", timeout=100)
    def long(run: TaskRun, seconds: float) -> str:
        if run.delivery == 1 and not calls:
            calls.append(run.id)
            clock.advance(seconds)
            raise SystemExit(-241)
        return "second"

    calls = list[str]()
    task_id = enqueue(tasks, "long", 99)
    assert worker.run_one(task_id, is_leaving=lambda: True) == "interrupted"
    status = tasks.status(task_id)
    assert status is not None
    assert (status.state, status.deliveries) == ("waiting", 0)
    assert worker.run_pending() == ["done"]
    calls.clear()
    stuck = enqueue(tasks, "long", 100)
    assert worker.run_one(stuck, is_leaving=lambda: True) == "dead"
    assert error_of(tasks, stuck) == "it ran longer than 100 s and was ended"


def test_a_name_that_nobody_knows_is_told_once_no_deploy_takes_so_long(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    events = list[Any]()
    newer = Tasks(tasks.store.engine, clock=clock)
    newer.task("new")(lambda run: None)
    task_id = enqueue(newer, "new", delay=3600)
    clock.advance(3600)
    add_observer(events.append)
    try:
        for _ in range(41):
            worker.run_pending()
            clock.advance(15)
    finally:
        remove_observer(events.append)
    outcomes = [event.outcome for event in events if isinstance(event, TaskChanged)]
    assert outcomes == ["unknown"] * 40 + ["stranded"]
    (seen_events,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert seen_events.getMessage().startswith("the task new has waited 600 s for a worker that knows it")
    assert TaskWorker(newer, clock=clock, schedule=False).run_pending() == ["done"]
    status = newer.status(task_id)
    assert status is not None
    assert status.deliveries == 1


# --- leases


def take(tasks: Tasks, clock: FrozenClock, owner: str) -> TaskRun:
    (taken,) = tasks.store.lease(owner=owner, lease=30, queues=["default"], most=1)
    return TaskRun(tasks.store, taken, clock=clock)


def test_a_lease_lost_to_another_thread_of_the_process_is_told_apart(
    tasks: Tasks, clock: FrozenClock
) -> None:
    tasks.task("noop")(lambda run: None)
    enqueue(tasks, "noop")
    renewer = LeaseRenewer(tasks.store, lease=30, clock=clock)
    first = take(tasks, clock, "a")
    renewer.add(first, timeout=100)
    clock.advance(31)
    second = take(tasks, clock, "b")
    renewer.add(second, timeout=100)
    renewer.renew_all()
    assert (first.lost.is_set(), second.lost.is_set()) == (True, False)
    renewer.remove(first)
    clock.advance(29)
    renewer.renew_all()
    clock.advance(29)
    second.check()


def test_a_run_beyond_its_timeout_is_reported_once(
    tasks: Tasks, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    tasks.task("noop")(lambda run: None)
    task_id = enqueue(tasks, "noop")
    renewer = LeaseRenewer(tasks.store, lease=30, clock=clock)
    renewer.add(take(tasks, clock, "a"), timeout=50)
    clock.advance(49)
    renewer.renew_all()
    assert not caplog.records
    for wait in (1, 20, 20):
        clock.advance(wait)
        renewer.renew_all()
    assert [record.getMessage() for record in caplog.records] == [
        f"the task noop ({task_id}) runs longer than its timeout"
    ]


def test_a_worker_starts_again_while_a_task_outlives_its_stop(tmp_path: Path) -> None:
    tasks = Tasks(hardened_engine(f"sqlite:///{tmp_path / 'restart.db'}"))
    tasks.create_table()
    begun, may_end, done = threading.Event(), threading.Event(), threading.Event()

    @tasks.task("long")
    def long(_run: TaskRun) -> None:
        begun.set()
        assert may_end.wait(60)

    tasks.task("next")(lambda run: done.set())

    worker = TaskWorker(tasks, concurrency=1, poll=0.01, schedule=False)
    try:
        enqueue(tasks, "long")
        worker.start()
        assert begun.wait(60)
        (former,) = worker._threads
        assert not worker.stop(timeout=0)
        enqueue(tasks, "next")
        worker.start()
        worker.start()
        assert done.wait(60)
        may_end.set()
        former.join(60)
        assert not former.is_alive()
        assert worker.stop(60)
    finally:
        may_end.set()
        worker.stop(60)
        tasks.store.engine.dispose()


def test_a_stop_waits_no_longer_than_it_may_for_a_database_that_hangs(
    tasks: Tasks, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers = threading.Event(), threading.Event()

    def hang(*_given: object, **_options: object) -> set[str]:
        asked.set()
        assert answers.wait(60)
        return set()

    renewer = LeaseRenewer(tasks.store, lease=0.01, clock=clock)
    monkeypatch.setattr(tasks.store, "renew", hang)
    tasks.task("t")(lambda run: None)
    enqueue(tasks, "t")
    renewer.start()
    renewer.add(take(tasks, clock, "one"), timeout=60)
    thread = renewer._thread
    assert thread is not None
    try:
        assert asked.wait(60)
        renewer.close(0.0)
        assert thread.is_alive()
    finally:
        answers.set()
        renewer.close(60)
    assert not thread.is_alive()


def test_leases_are_held_again_after_a_stop_and_in_a_forked_child(tmp_path: Path) -> None:
    tasks = Tasks(hardened_engine(f"sqlite:///{tmp_path / 'again.db'}"))
    tasks.create_table()
    held = list[bool]()

    @tasks.task("look")
    def look(run: TaskRun) -> None:
        held.append(any(thread.name == "mks-task-leases" for thread in threading.enumerate()))

    worker = TaskWorker(tasks, schedule=False)

    def run() -> list[str]:
        enqueue(tasks, "look")
        return [*worker.run_pending()]

    assert run() == ["done"]
    assert worker.stop()
    assert run() == ["done"]
    child = os.fork()
    if child == 0:
        os._exit(0 if run() == ["done"] and held == [True] * 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert held == [True, True]
    assert worker.stop()
    tasks.store.engine.dispose()


# --- databases in memory


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"])
def test_a_database_in_memory_serves_the_calling_thread_alone(url: str) -> None:
    engine = create_engine(url)
    tasks = Tasks(engine)
    tasks.create_table()
    tasks.task("noop")(lambda run: 1)
    enqueue(tasks, "noop")
    worker = TaskWorker(tasks, schedule=False)
    with pytest.raises(ConfigurationError, match=r"run_pending\(\)"):
        worker.start()
    assert worker.run_pending() == ["done"]
    engine.dispose()


def test_steps_of_the_wall_clock_back_and_forth_lose_and_double_nothing(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock
) -> None:
    ran = list[str]()
    tasks.task("effect")(lambda run: ran.append(run.id))
    ids = [enqueue(tasks, "effect")]
    clock.step_wall(-3600)
    ids += [enqueue(tasks, "effect")]
    assert worker.run_pending() == ["done"]
    clock.step_wall(7200)
    assert worker.run_pending() == ["done"]
    clock.step_wall(-7200)
    assert worker.run_pending() == []
    assert sorted(ran) == sorted(ids)


# --- what a second round of attacks found


def test_the_key_of_a_dead_task_is_free_for_the_same_work_once_more(tasks: Tasks, worker: TaskWorker) -> None:
    @tasks.task("report")
    def report(run: TaskRun, month: str) -> str:
        if month == "broken":
            raise ValueError("planted")
        return month

    with tasks.begin() as connection:
        first = report.using(key="k").enqueue(connection, "broken")
    assert worker.run_pending() == ["dead"]
    with tasks.begin() as connection:
        again = report.using(key="k", user_id="7").enqueue(connection, "2026-11")
    assert again == first
    assert worker.run_pending() == ["done"]
    status = tasks.status(first)
    assert status is not None
    assert (status.result, status.attempts, status.user_id) == ("2026-11", 0, "7")
    with tasks.begin() as connection:
        report.using(key="k").enqueue(connection, "2026-12")
    assert worker.run_pending() == []


def test_a_dead_slot_is_not_run_by_every_scheduler_that_starts(tasks: Tasks, clock: FrozenClock) -> None:
    ran = list[int]()

    @tasks.task("tick", schedule=Every(3600))
    def tick(run: TaskRun) -> None:
        ran.append(1)
        raise ValueError("planted")

    TaskWorker(tasks, clock=clock).run_pending()
    clock.advance(3600)
    for _ in range(3):
        TaskWorker(tasks, clock=clock).run_pending()
        clock.advance(60)
    assert len(ran) == 1


def test_asking_to_be_run_later_uses_up_no_attempts(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock
) -> None:
    attempts = list[int]()

    @tasks.task("poll", max_attempts=2)
    def poll(run: TaskRun) -> None:
        attempts.append(run.attempt)
        if run.attempt <= 9:
            raise TaskRetryError(after=30)
        raise ConnectionError("planted")

    with bound(request_id="r"), tasks.begin() as connection:
        task_id = poll.enqueue(connection)
    outcomes = list[str]()
    while not outcomes or outcomes[-1] == "retried":
        outcomes += worker.run_pending(most=1)
        clock.advance(30)
    assert outcomes == ["retried"] * 10 + ["dead"]
    assert attempts == list(range(1, 12))
    ((status, said),) = tasks.listed(state="dead")
    assert status.id == task_id
    assert said.endswith("(attempt 2 of 2)")


def test_tasks_whose_arguments_no_worker_takes_are_counted_as_unknown(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock
) -> None:
    tasks.task("report")(lambda run: None)
    newer = Tasks(tasks.store.engine, clock=clock)
    with newer.begin() as connection:
        newer.task("report")(lambda run, paper: None).enqueue(connection, "A4")
    assert worker.run_pending() == ["unknown"]
    clock.advance(60)
    stats = tasks.stats()
    assert (stats.unknown, stats.oldest_unknown, stats.due) == (1, 60.0, 0)


@pytest.mark.parametrize("interval", [60, 3600])
def test_a_slot_that_began_before_the_schedule_existed_is_not_run(
    tasks: Tasks, clock: FrozenClock, interval: int
) -> None:
    ran = list[float]()
    clock.advance(3607 - clock.time() % 3600)
    tasks.task("tick", schedule=Every(interval))(lambda run: ran.append(clock.time()))
    for _ in range(3):  # the second and third find it known, and nothing missed
        TaskWorker(tasks, clock=clock).run_pending()
    assert ran == []
    clock.advance(interval)
    TaskWorker(tasks, clock=clock).run_pending()
    assert len(ran) == 1
    clock.advance(3 * interval)
    TaskWorker(tasks, clock=clock).run_pending()  # missed meanwhile
    assert len(ran) == 2


def test_cleaning_leaves_a_schedule_known(tasks: Tasks, clock: FrozenClock) -> None:
    ran = list[float]()
    tasks.task("tick", schedule=Every(60))(lambda run: ran.append(clock.time()))
    for _ in range(4):
        TaskWorker(tasks, clock=clock).run_pending()
        clock.advance(60)
    assert tasks.clean(keyed=0) == 3
    clock.advance(30)
    TaskWorker(tasks, clock=clock).run_pending()
    assert tasks.clean(keyed=0) == 1
    assert clock.time() - ran[-1] == 0


def test_six_at_once_create_the_table(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'six.db'}"
    create_at_once(url)


@pytest.mark.postgres
def test_six_at_once_create_the_table_of_postgresql(postgres_url: str) -> None:
    for number in range(5):
        create_at_once(postgres_url, f"task_{number}")


def create_at_once(url: str, table: str = "mks_task") -> None:
    all_of_them = [Tasks(hardened_engine(url), table=table) for _ in range(6)]
    for made in all_of_them:
        made.store.engine.connect().close()
    start = threading.Barrier(6)

    def create(made: Tasks) -> dict[str, int]:
        start.wait(30)
        made.create_table()
        return made.counts()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(create, all_of_them)) == [{}] * 6
    for made in all_of_them:
        made.store.engine.dispose()


def test_a_worker_that_leaves_after_the_commit_of_a_task_leaves_it_done(
    tasks: Tasks, worker: TaskWorker, caplog: pytest.LogCaptureFixture
) -> None:
    @tasks.task("ends")
    def ends(run: TaskRun) -> None:
        with run.commit("kept"):
            pass
        raise SystemExit(0)

    task_id = enqueue(tasks, "ends")
    assert worker.run_one(task_id, is_leaving=lambda: True) == "done"
    assert "interrupted" not in caplog.text
    status = tasks.status(task_id)
    assert status is not None
    assert (status.state, status.result) == ("done", "kept")
