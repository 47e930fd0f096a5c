"""Waiting workers are woken by PostgreSQL or within their process; without that, they poll and lose nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, select, text

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import Task, TaskRun, Tasks, TaskWorker
from testbed.polling import wait_until
from testbed.postgres_server import PostgresServer

NEVER = 3600.0
"""Seconds between two polls of a worker that only a signal can wake within a test."""
Note = Task[[int], int]


def tasks_on(engine: Engine, *, notify: bool = True) -> tuple[Tasks, Note]:
    tasks = Tasks(engine, notify=notify)
    tasks.create_table()

    @tasks.task("note")
    def note(run: TaskRun, number: int) -> int:
        return number

    return tasks, note


@pytest.fixture(params=["psycopg", "psycopg2"])
def url(postgres_url: str, request: pytest.FixtureRequest) -> str:
    return f"postgresql+{request.param}:{postgres_url.partition(':')[2]}"


@pytest.fixture
def process(url: str) -> Iterator[tuple[Tasks, Note]]:
    """The tasks of a process with a worker."""
    engine = hardened_engine(url, threads=4)
    yield tasks_on(engine)
    engine.dispose()


@pytest.fixture
def elsewhere(url: str) -> Iterator[tuple[Tasks, Note]]:
    """The tasks of another process: they share nothing but the database."""
    engine = hardened_engine(url)
    yield tasks_on(engine)
    engine.dispose()


@contextmanager
def waiting_worker(tasks: Tasks, *, poll: float = NEVER) -> Iterator[TaskWorker]:
    """A worker that has looked at the table once, and waits."""
    with TaskWorker(tasks, schedule=False, poll=poll) as worker:
        if tasks.store.notify and tasks.store.engine.dialect.name == "postgresql":
            wait_until(lambda: sessions(tasks), timeout=20, what="a listening session")
        time.sleep(0.2)
        yield worker


def sessions(tasks: Tasks) -> list[int]:
    """Processes of PostgreSQL that listen for notifications."""
    question = text(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN mks_tasks%'"
    )
    with tasks.store.engine.connect() as connection:
        return list(connection.execute(question).scalars())


def enqueued(tasks: Tasks, note: Note, numbers: range = range(1)) -> list[str]:
    with tasks.begin() as connection:
        return [note.enqueue(connection, number) for number in numbers]


def all_done(tasks: Tasks, ids: list[str]) -> None:
    def done() -> bool:
        return all((found := tasks.status(task_id)) is not None and found.state == "done" for task_id in ids)

    wait_until(done, timeout=30, what="every task to be done")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: not threads() - before, timeout=20, what="the end of every thread of a worker")


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("mks-task")}


pytestmark = pytest.mark.postgres


def test_a_waiting_worker_is_woken_by_another_process(
    process: tuple[Tasks, Note], elsewhere: tuple[Tasks, Note]
) -> None:
    tasks, note = elsewhere
    with waiting_worker(process[0]):
        all_done(tasks, enqueued(tasks, note))
        with tasks.begin() as connection:
            ids = tasks.enqueue_many(connection, [note.call(number) for number in range(20)])
        all_done(tasks, ids)


def test_the_signal_comes_with_the_commit_for_what_is_due_and_for_each_queue_once(
    elsewhere: tuple[Tasks, Note], postgres_url: str
) -> None:
    tasks, note = elsewhere
    mail = tasks.task("mail", queue="mail")(lambda run: None)
    dsn = postgres_url.replace("+psycopg", "")
    with psycopg.connect(dsn, autocommit=True) as other, psycopg.connect(dsn, autocommit=True) as ender:
        other.execute("LISTEN mks_tasks")

        def received() -> list[str]:
            ender.execute("NOTIFY mks_tasks, 'end'")
            found = list[str]()
            for notification in other.notifies(timeout=20):
                found.append(notification.payload)
                if found[-1] == "end":
                    return sorted(found[:-1])
            raise AssertionError("the end did not come")

        with pytest.raises(ZeroDivisionError), tasks.begin() as connection:
            note.enqueue(connection, 1)
            tasks.enqueue_many(connection, [note.call(1)])
            raise ZeroDivisionError
        assert received() == []
        with tasks.begin() as connection:
            note.using(delay=60).enqueue(connection, 1)
            tasks.enqueue_many(connection, [note.using(delay=60).call(1), note.using(due_at=5e9).call(1)])
        assert received() == []
        with tasks.begin() as connection:
            note.using(key="k").enqueue(connection, 1)
        assert received() == ["mks_task:default"]
        with tasks.begin() as connection:
            note.using(key="k").enqueue(connection, 1)  # it exists, so there is nothing to do
        assert received() == []
        with tasks.begin() as connection:
            tasks.enqueue_many(
                connection, [note.call(1), mail.call(), mail.call(), note.using(delay=60).call(1)]
            )
        assert received() == ["mks_task:default", "mks_task:mail"]


def test_a_worker_is_not_woken_for_other_queues_and_tables(
    process: tuple[Tasks, Note], elsewhere: tuple[Tasks, Note]
) -> None:
    looked = list[object]()
    tasks, _ = process
    other = Tasks(elsewhere[0].store.engine, table="other_task")
    other.create_table()
    with waiting_worker(tasks):
        tasks.store.lease = lambda **_: looked.append(1) or []  # type: ignore[func-returns-value, method-assign, assignment]
        with elsewhere[0].begin() as connection:
            elsewhere[0].task("mail", queue="mail")(lambda run: None).enqueue(connection)
            other.task("note")(lambda run: None).enqueue(connection)
        time.sleep(0.5)
        assert looked == []
        enqueued(*elsewhere)
        wait_until(lambda: looked, timeout=20, what="the worker to look")


def test_the_listening_connection_is_outside_of_the_pool(url: str) -> None:
    engine = hardened_engine(url, pool_size=1, max_overflow=0)
    tasks, note = tasks_on(engine)
    with TaskWorker(tasks, schedule=False, concurrency=1):
        wait_until(lambda: sessions(tasks), timeout=20, what="a listening session")
        all_done(tasks, enqueued(tasks, note, range(5)))
    wait_until(lambda: not sessions(tasks), timeout=20, what="the end of the session")
    engine.dispose()


def test_a_killed_listening_connection_comes_back(
    process: tuple[Tasks, Note],
    elsewhere: tuple[Tasks, Note],
    postgres_server: PostgresServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks, note = elsewhere
    with waiting_worker(process[0]):
        for _ in range(3):
            (pid,) = sessions(tasks)
            postgres_server.execute("SELECT pg_terminate_backend(%s)", pid)
            wait_until(lambda gone=pid: sessions(tasks) not in ([], [gone]), timeout=30, what="a new session")
            all_done(tasks, enqueued(tasks, note))
    texts = [record.getMessage() for record in caplog.records if record.name.startswith("mks_hardening")]
    assert sum("does not announce new tasks" in line for line in texts) == 3
    assert sum("announces new tasks again" in line for line in texts) == 3
    assert not [record for record in caplog.records if record.name.startswith("sqlalchemy")]


def test_tasks_enqueued_while_there_is_no_connection_are_done(
    process: tuple[Tasks, Note], elsewhere: tuple[Tasks, Note], postgres_server: PostgresServer
) -> None:
    tasks, note = elsewhere
    ids = list[str]()
    with waiting_worker(process[0], poll=0.05):
        for start in range(0, 60, 6):
            postgres_server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN mks_tasks%%'"
            )
            ids += enqueued(tasks, note, range(start, start + 6))
        all_done(tasks, ids)
    assert sorted(found.result for task_id in ids if (found := tasks.status(task_id))) == list(range(60))
    with tasks.begin() as connection:
        assert set(connection.execute(select(tasks.store.table.c.deliveries)).scalars()) == {1}


def test_after_a_restart_of_the_server_workers_are_woken_again(
    process: tuple[Tasks, Note], elsewhere: tuple[Tasks, Note], postgres_server: PostgresServer
) -> None:
    tasks, note = elsewhere
    with waiting_worker(process[0], poll=0.1):
        waited = enqueued(tasks, note)
        postgres_server.stop()
        time.sleep(0.5)
        postgres_server.start()
        wait_until(lambda: sessions(tasks), timeout=60, what="a new session")
        all_done(tasks, [*waited, *enqueued(tasks, note)])


@pytest.mark.parametrize("state", ["stopped", "frozen"])
def test_a_worker_stops_while_the_server_does_not_respond(
    process: tuple[Tasks, Note], postgres_server: PostgresServer, state: str
) -> None:
    with ExitStack() as stack:
        stack.callback(postgres_server.reset)
        worker = TaskWorker(process[0], schedule=False, poll=NEVER)
        worker.start()
        wait_until(lambda: sessions(process[0]), timeout=20, what="a listening session")
        time.sleep(0.2)
        (postgres_server.stop if state == "stopped" else postgres_server.freeze)()
        assert worker.stop(timeout=20)


def test_a_worker_that_starts_without_a_server_listens_when_there_is_one(
    process: tuple[Tasks, Note], elsewhere: tuple[Tasks, Note], postgres_server: PostgresServer
) -> None:
    with ExitStack() as stack:
        stack.callback(postgres_server.reset)
        postgres_server.stop()
        with TaskWorker(process[0], schedule=False, poll=0.1):
            time.sleep(0.3)
            postgres_server.start()
            wait_until(lambda: sessions(elsewhere[0]), timeout=60, what="a listening session")
            all_done(elsewhere[0], enqueued(*elsewhere))


def test_without_notifications_nothing_listens_and_polling_finds_all(url: str) -> None:
    engines = [hardened_engine(url) for _ in range(2)]
    (tasks, _), (other, note) = (tasks_on(engine, notify=False) for engine in engines)
    with TaskWorker(tasks, schedule=False, poll=0.05):
        all_done(other, enqueued(other, note, range(3)))
        assert sessions(tasks) == []
    for engine in engines:
        engine.dispose()


def test_a_worker_is_started_again_after_a_stop(
    process: tuple[Tasks, Note], elsewhere: tuple[Tasks, Note]
) -> None:
    worker = TaskWorker(process[0], schedule=False, poll=NEVER)
    for _ in range(2):
        worker.start()
        wait_until(lambda: sessions(elsewhere[0]), timeout=20, what="a listening session")
        all_done(elsewhere[0], enqueued(*elsewhere))
        assert worker.stop()
        wait_until(lambda: not sessions(elsewhere[0]), timeout=20, what="the end of the session")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_waiting_worker_is_woken_within_its_process(kind: str, tmp_path: Path, postgres_url: str) -> None:
    engine = hardened_engine(f"sqlite:///{tmp_path / 'tasks.db'}" if kind == "sqlite" else postgres_url)
    tasks, note = tasks_on(engine, notify=False)
    with waiting_worker(tasks):
        all_done(tasks, enqueued(tasks, note))
        with tasks.begin() as connection:
            ids = tasks.enqueue_many(connection, [note.call(number) for number in range(20)])
        all_done(tasks, ids)
    engine.dispose()
