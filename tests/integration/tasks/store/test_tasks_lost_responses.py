"""The connection to PostgreSQL breaks after a commit, so that the worker does not learn of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import TaskRun, Tasks, TaskWorker
from testbed.fault_proxy import FaultProxy
from testbed.polling import wait_until
from testbed.postgres_server import PostgresServer

pytestmark = pytest.mark.postgres

NEVER = 3600.0
"""Seconds of a lease that does not expire within a test."""


@pytest.fixture
def proxy(postgres_server: PostgresServer, make_fault_proxy: Callable[..., FaultProxy]) -> FaultProxy:
    return make_fault_proxy(postgres_server.host, postgres_server.port)


@pytest.fixture
def tasks(postgres_url: str, proxy: FaultProxy) -> Iterator[Tasks]:
    """Tasks whose worker reaches PostgreSQL through the proxy; nothing else uses it."""
    made = Tasks(hardened_engine(proxy.through(postgres_url), threads=4), notify=False)
    made.create_table()
    yield made
    made.store.engine.dispose()


def run_all(tasks: Tasks) -> None:
    """Run the tasks on one thread, and stop once all have ended."""
    with TaskWorker(tasks, concurrency=1, lease=NEVER, schedule=False):
        wait_until(
            lambda: not {"waiting", "running"} & set(tasks.counts()), timeout=30, what="the end of all tasks"
        )


def test_a_finish_whose_response_is_lost_keeps_the_task_that_it_leased(
    tasks: Tasks, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []

    @tasks.task("work")
    def work(_run: TaskRun, number: int) -> None:
        if number == 1:
            proxy.lose_reply(matching=b"finished")
        ran.append(number)

    with tasks.begin() as connection:
        ids = tasks.enqueue_many(connection, [work.call(number) for number in range(4)])
    run_all(tasks)
    assert ran == [0, 1, 2, 3]
    with tasks.begin() as connection:
        found = connection.execute(text("SELECT deliveries FROM mks_task")).scalars()
        assert list(found) == [1] * len(ids)
    assert "cannot be recorded" in caplog.text
    assert "expired" not in caplog.text


def test_a_commit_whose_response_is_lost_is_recorded_once(tasks: Tasks, proxy: FaultProxy) -> None:
    """The task ends with the transaction of its effects; its worker then believes that it failed."""

    @tasks.task("work")
    def work(run: TaskRun) -> None:
        with run.commit() as connection:
            connection.execute(text("INSERT INTO effect VALUES (:task)"), {"task": run.id})
            proxy.lose_reply(matching=b"COMMIT")

    with tasks.begin() as connection:
        connection.execute(text("CREATE TABLE effect (task TEXT)"))
        task_id = work.enqueue(connection)
    assert TaskWorker(tasks, schedule=False).run_pending() == ["done"]
    with tasks.begin() as connection:
        assert list(connection.execute(text("SELECT task FROM effect")).scalars()) == [task_id]


def test_a_dead_task_is_reported_although_the_response_to_its_end_is_lost(
    tasks: Tasks, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    @tasks.task("work")
    def work(_run: TaskRun) -> None:
        proxy.lose_reply(matching=b"COMMIT")
        raise ValueError("wrong")

    with tasks.begin() as connection:
        work.enqueue(connection)
    with caplog.at_level(logging.ERROR, logger="mks_hardening.tasks"):
        assert TaskWorker(tasks, schedule=False).run_pending() == ["dead"]
    assert caplog.text.count("is dead and waits for an operator") == 1
