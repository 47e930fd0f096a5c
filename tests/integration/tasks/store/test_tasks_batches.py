"""Many runs in one call on PostgreSQL: the rows of single calls, with every driver, and beside others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from mks_hardening.db import hardened_async_engine, hardened_engine, retry_on_serialization_failure
from mks_hardening.tasks import Task, TaskRun, Tasks, TaskWorker

pytestmark = pytest.mark.postgres

Echo = Task[[Any], Any]
TEXTS = ["", "日本語", "\0 and \\u0000", "quote ' \" \\", "{}[]", "\x7f\t\n"]


@pytest.fixture(params=["psycopg", "psycopg2"])
def tasks(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[Tasks]:
    made = Tasks(hardened_engine(with_driver(postgres_url, request.param)))
    made.create_table()
    yield made
    made.store.engine.dispose()


@pytest.fixture
def echo(tasks: Tasks) -> Echo:
    return defined(tasks)


def with_driver(url: str, driver: str) -> str:
    return f"postgresql+{driver}:{url.partition(':')[2]}"


def defined(tasks: Tasks) -> Echo:
    @tasks.task("echo")
    def echo(run: TaskRun, value: Any) -> Any:
        return value

    return echo


def test_every_text_comes_back_from_a_batch(tasks: Tasks, echo: Echo) -> None:
    with tasks.begin() as connection:
        ids = tasks.enqueue_many(connection, [echo.call([value]) for value in TEXTS])
    TaskWorker(tasks, schedule=False).run_pending()
    assert [found.result for task_id in ids if (found := tasks.status(task_id))] == [
        [value] for value in TEXTS
    ]


def test_a_batch_runs_in_the_order_of_its_calls(tasks: Tasks, echo: Echo) -> None:
    with tasks.begin() as connection:
        ids = tasks.enqueue_many(connection, [echo.call(number) for number in range(2100)])
    leased = tasks.store.lease(owner="a" * 32, lease=60, queues=["default"], most=3000)
    assert {task.id for task in leased} == set(ids)
    assert len(set(ids)) == 2100


def test_keys_options_and_delays_are_those_of_single_calls(tasks: Tasks, echo: Echo) -> None:
    with tasks.begin() as connection:
        dead = echo.using(key="dead").enqueue(connection, 1)
        slot = echo.using(key="slot:2026-11-29T00:00:00Z").enqueue(connection, 1)
        waiting = echo.using(key="waiting").enqueue(connection, 1)
        connection.execute(
            tasks.store.table.update().where(tasks.store.table.c.id != waiting).values(state="dead")
        )
    with tasks.begin() as connection:
        ids = tasks.enqueue_many(
            connection,
            [
                echo.using(key="slot:2026-11-29T00:00:00Z").call(2),
                echo.using(key="waiting").call(2),
                echo.using(key="new", delay=60, priority="low", user_id="u").call(2),
                echo.using(key="dead").call(2),
                echo.using(key="new").call(3),
                echo.using(due_at=5).call(2),
            ],
        )
        rows = {row.id: row for row in connection.execute(tasks.store.table.select())}
    assert [ids[0], ids[1], ids[3], ids[4]] == [slot, waiting, dead, ids[2]]
    assert [(rows[task_id].state, rows[task_id].arguments) for task_id in ids] == [
        ("dead", "[[1],{}]"),
        ("waiting", "[[1],{}]"),
        ("waiting", "[[2],{}]"),
        ("waiting", "[[2],{}]"),
        ("waiting", "[[2],{}]"),
        ("waiting", "[[2],{}]"),
    ]
    new = rows[ids[2]]
    assert (round(new.due_at - new.created_at, 6), new.priority, new.user_id) == (60, 2, "u")
    assert rows[ids[5]].due_at == 5


def test_batches_with_the_same_keys_in_other_orders_wait_for_each_other_and_share_the_rows(
    tasks: Tasks, echo: Echo
) -> None:
    keys = [str(number) for number in range(60)]
    found = list[dict[str, str]]()

    def enqueue(order: list[str]) -> None:
        for _ in range(5):
            with tasks.begin() as connection:
                ids = tasks.enqueue_many(connection, [echo.using(key=key).call(key) for key in order])
                found.append(dict(zip(order, ids, strict=True)))

    threads = [threading.Thread(target=enqueue, args=(order,)) for order in (keys, keys[::-1]) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(ids == found[0] for ids in found)
    assert tasks.counts() == {"waiting": 60}


def test_single_calls_with_the_same_keys_in_opposite_orders_deadlock_and_may_be_repeated(
    tasks: Tasks, echo: Echo
) -> None:
    both = threading.Barrier(2)
    attempts = list[str]()

    @retry_on_serialization_failure()
    def enqueue(order: str) -> dict[str, str]:
        is_first = attempts.count(order) == 0
        attempts.append(order)
        ids = dict[str, str]()
        with tasks.begin() as connection:
            for key in order:
                ids[key] = echo.using(key=key).enqueue(connection, key)
                if is_first and len(ids) == 1:
                    both.wait(20)
        return ids

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(enqueue, ("ab", "ba"))
    assert one == other
    assert tasks.counts() == {"waiting": 2}
    assert len(attempts) > 2  # one of the two was rolled back


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_asyncio_drivers_enqueue_one_and_many(postgres_url: str, driver: str) -> None:
    tasks = Tasks(hardened_engine(postgres_url))
    tasks.create_table()
    echo = defined(tasks)

    async def enqueue() -> list[str]:
        engine = hardened_async_engine(with_driver(postgres_url, driver))
        async with engine.begin() as connection:
            ids = [await echo.using(key="k").aenqueue(connection, "first")]
            ids += await tasks.aenqueue_many(
                connection, [echo.using(key="k").call("late"), *(echo.call(value) for value in TEXTS)]
            )
        await engine.dispose()
        return ids

    ids = asyncio.run(enqueue())
    TaskWorker(tasks, schedule=False).run_pending()
    results = [found.result for task_id in ids if (found := tasks.status(task_id))]
    assert results == ["first", "first", *TEXTS]
    tasks.store.engine.dispose()


def test_a_failed_statement_leaves_nothing(tasks: Tasks, echo: Echo) -> None:
    with tasks.begin() as connection:
        connection.execute(text("ALTER TABLE mks_task ADD CHECK (unique_key IS DISTINCT FROM 'forbidden')"))
    with pytest.raises(IntegrityError, match="violates check"), tasks.begin() as connection:
        tasks.enqueue_many(
            connection, [*(echo.call(number) for number in range(1500)), echo.using(key="forbidden").call(1)]
        )
    assert tasks.counts() == {}
