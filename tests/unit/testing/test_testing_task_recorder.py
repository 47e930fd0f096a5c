"""What authors of tests get for background tasks, through the fixture ``mks_tasks``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from mks_hardening.tasks import Every, TaskRun, Tasks
from mks_hardening.testing import FrozenClock, TaskRecorder

Record = Callable[[Tasks], TaskRecorder]


@pytest.fixture(params=["file", "memory"])
def tasks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tasks]:
    """An application that knows nothing of its tests."""
    engine = (
        create_engine(f"sqlite:///{tmp_path / 'app.db'}")
        if request.param == "file"
        else create_engine("sqlite://", poolclass=StaticPool)
    )
    tasks = Tasks(engine)
    tasks.create_table()

    @tasks.task("order.place", queue="orders")
    def place(run: TaskRun, number: int) -> None:
        with run.commit() as connection:
            tasks.known["mail.send"].using(key=f"order-{number}", user_id="7").enqueue(
                connection, to="a@example.jp"
            )

    @tasks.task("mail.send", priority="high")
    def send(run: TaskRun, to: str) -> int:
        if run.attempt == 1:
            raise ConnectionError("the server is away")
        return run.attempt

    @tasks.task("broken")
    def broken(run: TaskRun) -> None:
        raise ZeroDivisionError

    yield tasks
    engine.dispose()


def place(tasks: Tasks, number: int) -> str:
    with tasks.begin() as connection:
        return tasks.known["order.place"].enqueue(connection, number)


def test_tasks_run_on_the_calling_thread_and_times_pass_by_hand(
    tasks: Tasks, mks_tasks: Record, mks_clock: FrozenClock
) -> None:
    recorder = mks_tasks(tasks)
    place(tasks, 1)
    assert recorder.run() == ["done", "retried"]
    mail = recorder.assert_enqueued("mail.send", to="a@example.jp")
    assert (mail.queue, mail.priority, mail.key, mail.user_id) == ("default", "high", "order-1", "7")
    assert recorder.run() == []
    mks_clock.advance(2)
    assert recorder.run() == ["done"]
    status = tasks.status(mail.id)
    assert status is not None
    assert (status.result, status.created_at) == (2, mks_clock.time() - 2)


def test_what_a_task_raises_is_raised_in_the_test(tasks: Tasks, mks_tasks: Record) -> None:
    recorder = mks_tasks(tasks)
    for _ in range(2):
        with tasks.begin() as connection:
            tasks.known["broken"].enqueue(connection)
    with pytest.raises(ZeroDivisionError):
        recorder.run()
    assert recorder.run(raising=False) == ["dead"]


def test_assertions_say_what_was_enqueued(tasks: Tasks, mks_tasks: Record) -> None:
    place(tasks, 0)  # before the recorder
    recorder = mks_tasks(tasks)
    recorder.assert_nothing_enqueued()
    place(tasks, 1)
    place(tasks, 2)
    recorder.assert_nothing_enqueued("mail.send")
    assert recorder.assert_enqueued("order.place", 2).args == (2,)
    for wrong, said in (
        (lambda: recorder.assert_enqueued("order.place"), "order.place was enqueued 2 times"),
        (lambda: recorder.assert_enqueued("order.place", 3), r"order.place\(3\) was enqueued 0 times"),
        (lambda: recorder.assert_enqueued("mail.send", to="b"), r"mail.send\(to='b'\) was enqueued 0 times"),
        (lambda: recorder.assert_nothing_enqueued("order.place"), "nothing should be enqueued"),
    ):
        with pytest.raises(
            AssertionError, match=f"{said}.*; enqueued: order.place\\(1\\), order.place\\(2\\)$"
        ):
            wrong()


def test_what_was_rolled_back_was_not_enqueued(tasks: Tasks, mks_tasks: Record) -> None:
    recorder = mks_tasks(tasks)
    with tasks.store.engine.connect() as connection:
        tasks.known["broken"].enqueue(connection)
        connection.rollback()
    recorder.assert_nothing_enqueued()


def test_schedules_follow_the_clock_of_the_test_and_its_own_clock_comes_back(
    tasks: Tasks, mks_tasks: Record, mks_clock: FrozenClock
) -> None:
    tasks.task("tick", schedule=Every(3600))(lambda run: None)
    mks_clock.advance(3600 - mks_clock.time() % 3600)
    with mks_tasks(tasks) as recorder:
        assert recorder.run() == ["done"]
        mks_clock.advance(3600)
        assert recorder.run() == ["done"]
        place(tasks, 1)
    (task_id,) = [new.id for new in tasks.store.accepted() if new.name == "order.place"]
    assert tasks.store.next_due() == task_id  # the clock of the test was long ago
    assert place(tasks, 2)
    status = tasks.status(tasks.store.accepted()[-1].id)
    assert status is not None
    assert status.created_at > mks_clock.time() + 86_400
