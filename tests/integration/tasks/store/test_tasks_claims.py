"""What a claim costs PostgreSQL does not grow with the tasks that wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import Tasks
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
