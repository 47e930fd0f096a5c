"""What a claim costs PostgreSQL does not grow with the tasks that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import TaskRun, Tasks, TaskWorker
from mks_hardening.tasks.store._wake_ups import WakeUps
from testbed.polling import wait_until

pytestmark = pytest.mark.postgres

FILL = """
INSERT INTO mks_task (id, name, arguments, context, state, queue, priority, due_at, created_at)
SELECT md5(n::text), 'other', '[[],{}]', '{}', 'waiting', CASE WHEN n % 2 = 0 THEN 'default' ELSE 'mail' END,
    CASE WHEN n % 100 = 0 THEN 0 ELSE 1 END, extract(epoch FROM now()) - 1 - n / 1000.0, 0
FROM generate_series(1, 20000) AS n
"""


@pytest.fixture
def tasks(postgres_url: str) -> Iterator[Tasks]:
    """A table that has been analysed with many tasks due in two queues."""
    made = Tasks(hardened_engine(postgres_url))
    made.create_table()
    with made.store.engine.begin() as connection:
        connection.execute(text(FILL))
    with made.store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE mks_task"))
    yield made
    made.store.engine.dispose()


def claim(tasks: Tasks, *queues: str) -> list[str]:
    return [task.id for task in tasks.store.lease(owner="a" * 32, lease=60, queues=queues, most=1)]


OTHERS = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""


def rows_read(tasks: Tasks, url: str, work: Callable[[], object]) -> tuple[int, int]:
    """Rows that were read by scans of the whole table, and by way of an index."""
    engine = create_engine(url)

    def counted() -> tuple[int, int]:
        tasks.store.engine.dispose()  # the server counts a session's scans at the latest when it ends
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_until(lambda: connection.execute(text(OTHERS)).scalar() == 0, what="the end of all sessions")
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
            row = connection.execute(
                text("SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'mks_task'")
            ).one()
            return row[0], row[1]

    before = counted()
    work()
    after = counted()
    engine.dispose()
    return after[0] - before[0], after[1] - before[1]


@pytest.mark.parametrize("queues", [("default",), ("default", "mail")], ids=["one queue", "two queues"])
def test_a_claim_reads_what_it_takes(tasks: Tasks, postgres_url: str, queues: tuple[str, ...]) -> None:
    def work() -> None:
        taken = [task for _ in range(20) for task in claim(tasks, *queues)]
        assert len(set(taken)) == 20

    by_scan, by_index = rows_read(tasks, postgres_url, work)
    assert by_scan == 0
    assert by_index <= 20 * 20


@pytest.mark.parametrize("statistics", ["none", "of ended tasks"])
def test_a_claim_reads_what_it_takes_whatever_the_statistics_say(postgres_url: str, statistics: str) -> None:
    tasks = Tasks(hardened_engine(postgres_url))
    tasks.create_table()
    with tasks.store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER TABLE mks_task SET (autovacuum_enabled = off)"))
        if statistics == "of ended tasks":
            connection.execute(text(FILL))
            connection.execute(
                text("UPDATE mks_task SET id = 'e' || left(id, 31), state = 'done', due_at = NULL")
            )
            connection.execute(text("VACUUM ANALYZE mks_task"))
        connection.execute(text(FILL))

    def work() -> None:
        assert len({task for _ in range(20) for task in claim(tasks, "default", "mail")}) == 20

    by_scan, by_index = rows_read(tasks, postgres_url, work)
    assert by_scan == 0
    assert by_index <= 20 * 20
    tasks.store.engine.dispose()


def test_a_claim_reads_what_it_takes_by_a_plan_for_any_value(postgres_url: str, tasks: Tasks) -> None:
    # psycopg prepares a statement at its sixth execution, and PostgreSQL may then plan it for any value.
    @event.listens_for(tasks.store.engine, "connect")
    def generic(connection: Any, _record: Any) -> None:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.commit()

    def work() -> None:
        taken = [task for _ in range(20) for task in claim(tasks, "default", "mail")]
        assert len(set(taken)) == 20

    by_scan, by_index = rows_read(tasks, postgres_url, work)
    assert by_scan == 0
    assert by_index <= 20 * 20


def finish_and_claim(tasks: Tasks, number: int) -> list[str]:
    """Lease a task, and then, as each is finished, the next one."""
    (task,) = tasks.store.lease(owner="0" * 32, lease=60, queues=["default"], most=1)
    leased = [task.id]
    for n in range(1, number):
        held, following = tasks.store.finish_and_lease(
            task, result="null", owner=f"{n:032}", lease=60, queues=["default", "default"]
        )
        assert held
        assert following is not None
        task = following
        leased.append(task.id)
    return leased


@pytest.mark.parametrize("plan", ["custom", "generic"])
def test_a_finish_that_claims_the_next_reads_what_it_takes(
    tasks: Tasks, postgres_url: str, plan: str
) -> None:
    @event.listens_for(tasks.store.engine, "connect")
    def set_plan(connection: Any, _record: Any) -> None:
        connection.execute(f"SET plan_cache_mode = force_{plan}_plan")
        connection.commit()

    by_scan, by_index = rows_read(tasks, postgres_url, lambda: finish_and_claim(tasks, 20))
    assert by_scan == 0
    assert by_index <= 20 * 20


def test_a_finish_that_claims_takes_what_is_urgent_and_due_for_longest(tasks: Tasks) -> None:
    with tasks.store.engine.connect() as connection:
        expected = list(
            connection.execute(
                text("SELECT id FROM mks_task WHERE queue = 'default' ORDER BY priority, due_at LIMIT 205")
            ).scalars()
        )
    assert finish_and_claim(tasks, 205) == expected


def test_what_a_finish_writes_waits_for_the_disk(tasks: Tasks) -> None:
    sent: list[str] = []

    @event.listens_for(tasks.store.engine, "before_cursor_execute")
    def note(*given: Any) -> None:
        sent.append(f"{given[2]} {given[3]}")

    finish_and_claim(tasks, 2)
    assert ["synchronous_commit" in each for each in sent] == [True, False]


@pytest.fixture
def few(postgres_url: str) -> Iterator[Tasks]:
    made = Tasks(hardened_engine(postgres_url))
    made.create_table()
    yield made
    made.store.engine.dispose()


def test_a_lost_lease_finishes_nothing_and_claims_the_next(few: Tasks) -> None:
    task = few.task("work")(lambda _run: None)
    with few.begin() as connection:
        first = task.enqueue(connection)
    lost, again = (
        few.store.lease(owner=owner * 32, lease=lease, queues=["default"], most=1)[0]
        for owner, lease in (("a", 0), ("b", 60))
    )
    assert lost.id == again.id == first
    with few.begin() as connection:
        second = task.enqueue(connection)
    held, following = few.store.finish_and_lease(
        lost, result="null", owner="c" * 32, lease=60, queues=["default"]
    )
    assert not held
    assert following is not None
    assert following.id == second
    assert few.store.holds(again) is few.store.holds(following) is False


def test_a_task_whose_lease_has_expired_is_finished_and_not_claimed_again(few: Tasks) -> None:
    task = few.task("work")(lambda _run: None)
    with few.begin() as connection:
        task_id = task.enqueue(connection)
    (leased,) = few.store.lease(owner="a" * 32, lease=0, queues=["default"], most=1)
    finished = few.store.finish_and_lease(leased, result="null", owner="b" * 32, lease=60, queues=["default"])
    assert finished == (True, None)
    status = few.status(task_id)
    assert status is not None
    assert status.state == "done"


def test_a_worker_needs_one_statement_for_each_task_and_leaves_none_behind(few: Tasks) -> None:
    half = threading.Event()

    @few.task("work")
    def work(_run: TaskRun, number: int) -> None:
        if number == 15:
            half.set()

    with few.begin() as connection:
        few.enqueue_many(connection, [work.call(number) for number in range(30)])
    sent: list[str] = []

    @event.listens_for(few.store.engine, "before_cursor_execute")
    def note(*given: Any) -> None:
        if "UPDATE" in given[2]:
            sent.append(given[2])

    worker = TaskWorker(few, concurrency=1, schedule=False)
    worker.start()
    assert half.wait(30)
    assert worker.stop(30)
    counts = few.counts()
    assert counts.get("running", 0) == 0
    # The first task is leased alone.
    assert 15 <= len(sent) <= counts["done"] + 1


def test_several_queues_are_finished_without_a_claim(tasks: Tasks) -> None:
    (leased,) = tasks.store.lease(owner="a" * 32, lease=60, queues=["default"], most=1)
    given = {"result": "null", "owner": "b" * 32, "lease": 60, "queues": ["default", "mail"]}
    assert tasks.store.finish_and_lease(leased, **given) == (True, None)  # type: ignore[arg-type]  # one dictionary


def test_one_queue_takes_what_is_urgent_and_due_for_longest(tasks: Tasks) -> None:
    with tasks.store.engine.connect() as connection:
        expected = list(
            connection.execute(
                text("SELECT id FROM mks_task WHERE queue = 'default' ORDER BY priority, due_at LIMIT 205")
            ).scalars()
        )
    assert [task for _ in range(205) for task in claim(tasks, "default")] == expected


def test_a_task_that_another_worker_locks_is_passed_over(tasks: Tasks) -> None:
    first = "SELECT id FROM mks_task WHERE queue = 'default' ORDER BY priority, due_at LIMIT 201 FOR UPDATE"
    with tasks.store.engine.connect() as connection:
        locked = list(connection.execute(text(first)).scalars())
        # All urgent tasks and one more: what comes next has another priority.
        (found,) = claim(tasks, "default")
        assert found not in locked
    assert claim(tasks, "default") == locked[:1]


def test_two_queues_take_what_is_due_for_longest(tasks: Tasks) -> None:
    with tasks.store.engine.connect() as connection:
        wanted = connection.execute(
            text("SELECT id FROM mks_task ORDER BY priority, due_at LIMIT 205")
        ).scalars()
        expected = list(wanted)
    assert [task for _ in range(205) for task in claim(tasks, "mail", "default", "mail")] == expected


def test_looking_for_what_is_to_be_rung_reads_no_whole_table(tasks: Tasks, postgres_url: str) -> None:
    rings = WakeUps(tasks.store)

    def work() -> None:
        for _ in range(20):
            assert len(rings.due(queues=["default", "mail"], again_after=60, most=2)) == 2

    by_scan, by_index = rows_read(tasks, postgres_url, work)
    assert by_scan == 0
    assert by_index <= 20 * 40
