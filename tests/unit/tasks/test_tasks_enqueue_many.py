"""Many runs in one call: checked like single ones, all of them or none, with the same rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from mks_hardening.db import hardened_async_engine, hardened_engine
from mks_hardening.exceptions import ConfigurationError, TaskRefusedError
from mks_hardening.logging import bound
from mks_hardening.tasks import Task, TaskRun, Tasks, TaskWorker
from mks_hardening.testing import FrozenClock

Add = Task[[int], int]


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = hardened_engine("sqlite://")
    yield made
    made.dispose()


@pytest.fixture
def tasks(engine: Engine) -> Tasks:
    return with_table(engine)


@pytest.fixture
def double(tasks: Tasks) -> Add:
    return defined(tasks)


def with_table(engine: Engine) -> Tasks:
    made = Tasks(engine, clock=FrozenClock())
    made.create_table()
    return made


def defined(tasks: Tasks, name: str = "double") -> Add:
    @tasks.task(name)
    def double(run: TaskRun, number: int) -> int:
        return 2 * number

    return double


def stored(tasks: Tasks) -> int:
    return len(tasks.listed())


def test_all_are_there_and_run_in_the_order_of_the_calls(tasks: Tasks, double: Add) -> None:
    with tasks.begin() as connection:
        ids = tasks.enqueue_many(connection, (double.call(number) for number in range(1200)))
    assert len(set(ids)) == 1200
    assert TaskWorker(tasks, schedule=False).run_pending(most=2000) == ["done"] * 1200
    results = {status.id: status.result for status, _ in tasks.listed(most=2000)}
    assert [results[task_id] for task_id in ids] == [2 * number for number in range(1200)]


def test_a_thousand_rows_are_one_statement(tasks: Tasks, double: Add, engine: Engine) -> None:
    sent = list[str]()

    @event.listens_for(engine, "before_cursor_execute")
    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    with tasks.begin() as connection:
        tasks.enqueue_many(connection, [double.call(number) for number in range(1000)])
    assert len(sent) == 1


def test_nothing_is_sent_for_no_calls(tasks: Tasks, engine: Engine) -> None:
    with tasks.begin() as connection:
        assert tasks.enqueue_many(connection, []) == []
    assert stored(tasks) == 0


def test_a_rolled_back_batch_never_existed(tasks: Tasks, double: Add) -> None:
    with pytest.raises(ZeroDivisionError), tasks.begin() as connection:
        tasks.enqueue_many(connection, [double.call(1), double.using(key="k").call(2)])
        raise ZeroDivisionError
    assert stored(tasks) == 0


def test_each_run_has_its_own_options_and_the_context_of_the_request(tasks: Tasks, double: Add) -> None:
    other = defined(tasks, "other")
    with bound(request_id="r-1", secret="hidden"), tasks.begin() as connection:
        tasks.enqueue_many(
            connection,
            [
                double.using(key="one", user_id="u", priority="high").call(1),
                other.using(delay=60).call(2),
                double.using(due_at=5.0).call(3),
            ],
        )
    by_arguments = {new.arguments: new for new in tasks.store.accepted()}
    one = by_arguments["[[1],{}]"]
    assert (one.name, one.unique_key, one.user_id, one.priority) == ("double", "one", "u", 0)
    two = by_arguments["[[2],{}]"]
    assert (two.name, two.unique_key, two.due_at) == ("other", None, tasks.store.clock.read() + 60)
    assert by_arguments["[[3],{}]"].due_at == 5.0
    assert {new.context for new in by_arguments.values()} == {'{"request_id":"r-1"}'}


def bad_items(tasks: Tasks, double: Add) -> dict[str, tuple[Any, type[Exception], str]]:
    elsewhere = defined(Tasks(tasks.store.engine, table="elsewhere"))
    refused, wrong = TaskRefusedError, ConfigurationError
    return {
        "arguments that do not fit": (double.call(1, 2), refused, "double: too many positional arguments"),  # type: ignore[call-arg]
        "missing argument": (double.call(), refused, "double: missing a required argument: 'number'"),  # type: ignore[call-arg]
        "not JSON": (double.call({1, 2}), refused, "arguments must be JSON"),  # type: ignore[arg-type]
        "too long": (double.call("x" * 70_000), refused, "at most 65536 bytes"),  # type: ignore[arg-type]
        "a number": (7, wrong, "must be task.call(...) of a task of these Tasks, not int"),
        "a task": (double, wrong, "not Task"),
        "of other tasks": (elsewhere.call(1), wrong, "not TaskCall('double')"),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "arguments that do not fit",
        "missing argument",
        "not JSON",
        "too long",
        "a number",
        "a task",
        "of other tasks",
    ],
)
def test_one_bad_item_is_named_by_its_index_and_nothing_is_stored(
    tasks: Tasks, double: Add, kind: str
) -> None:
    item, error, reason = bad_items(tasks, double)[kind]
    with tasks.begin() as connection:
        with pytest.raises(error) as raised:
            tasks.enqueue_many(
                connection, [double.call(0), double.using(key="k").call(1), item, double.call(3)]
            )
        assert "calls[2]" in str(raised.value)
        assert reason in str(raised.value)
    assert stored(tasks) == 0


@pytest.mark.parametrize("calls", [7, None])
def test_calls_must_be_a_collection(tasks: Tasks, calls: Any) -> None:
    with tasks.begin() as connection, pytest.raises(ConfigurationError, match="calls must be a collection"):
        tasks.enqueue_many(connection, calls)


def test_a_call_shows_no_arguments(double: Add) -> None:
    call = double.using(key="k").call(42)
    assert (repr(call), call.name, call.args, dict(call.kwargs)) == (
        "TaskCall('double')",
        "double",
        (42,),
        {},
    )


def test_a_session_takes_many(tasks: Tasks, double: Add, engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        tasks.enqueue_many(session, [double.call(1), double.call(2)])
    assert stored(tasks) == 2


# --- the same as one by one

KEYS = st.sampled_from([None, "a", "b", "slot:2026-11-29T00:00:00Z"])
CALL = st.tuples(st.sampled_from(["double", "other"]), st.integers(0, 9), KEYS, st.sampled_from([0, 30]))


@settings(max_examples=40)
@given(
    before=st.lists(
        st.tuples(CALL, st.sampled_from(["waiting", "running", "done", "dead", "cancelled"])), max_size=4
    ),
    calls=st.lists(CALL, max_size=8),
)
def test_a_batch_leaves_the_same_rows_and_ids_as_single_calls(
    before: list[tuple[tuple[str, int, str | None, int], str]], calls: list[tuple[str, int, str | None, int]]
) -> None:
    singly, together = (_played(before, calls, many=many) for many in (False, True))
    assert together == singly


def _played(
    before: list[tuple[tuple[str, int, str | None, int], str]],
    calls: list[tuple[str, int, str | None, int]],
    *,
    many: bool,
) -> object:
    engine = hardened_engine("sqlite://")
    tasks = with_table(engine)
    named = {name: defined(tasks, name) for name in ("double", "other")}
    with tasks.begin() as connection:
        for (name, number, key, delay), state in before:
            task_id = named[name].using(key=key, delay=delay).enqueue(connection, number)
            connection.execute(
                tasks.store.table.update()
                .where(tasks.store.table.c.id == task_id)
                .values(state=state, error="old")
            )
        if many:
            ids = tasks.enqueue_many(
                connection,
                [named[name].using(key=key, delay=delay).call(number) for name, number, key, delay in calls],
            )
        else:
            ids = [
                named[name].using(key=key, delay=delay).enqueue(connection, number)
                for name, number, key, delay in calls
            ]
        rows = connection.execute(tasks.store.table.select()).mappings().all()
    engine.dispose()
    # Ids are random: what matters is which calls got the same one, and what its row contains.
    by_id = {row["id"]: {name: value for name, value in row.items() if name != "id"} for row in rows}
    assert set(ids) <= set(by_id)
    alike = [ids.index(task_id) for task_id in ids]
    return alike, [by_id[task_id] for task_id in ids], sorted(map(repr, by_id.values()))


# --- asyncio


def test_asyncio_connections_and_sessions_enqueue_one_and_many(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    engine = hardened_engine(url)
    tasks = with_table(engine)
    double = defined(tasks)

    async def enqueue() -> list[str]:
        asynchronous = hardened_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))
        async with asynchronous.begin() as connection:
            ids = [await double.using(key="k").aenqueue(connection, 1)]
            ids += await tasks.aenqueue_many(connection, [double.using(key="k").call(9), double.call(2)])
        async with AsyncSession(asynchronous) as session, session.begin():
            ids += await tasks.aenqueue_many(session, [double.call(3)])
            ids.append(await double.aenqueue(session, 4))
        async with asynchronous.connect() as connection:
            await tasks.aenqueue_many(connection, [double.call(5)])  # never committed
        with pytest.raises(TaskRefusedError, match=r"calls\[1\]"):
            async with asynchronous.begin() as connection:
                await tasks.aenqueue_many(connection, [double.call(6), double.call()])  # type: ignore[call-arg]
        await asynchronous.dispose()
        return ids

    first, again, *others = asyncio.run(enqueue())
    assert first == again
    assert len(set(others)) == 3
    assert stored(tasks) == 4
    engine.dispose()


def test_each_twin_refuses_the_connection_of_the_other(tasks: Tasks, double: Add) -> None:
    async def wrong(connection: Any) -> None:
        with pytest.raises(
            ConfigurationError, match="must be an AsyncConnection or an AsyncSession, not Connection"
        ):
            await tasks.aenqueue_many(connection, [double.call(1)])
        with pytest.raises(
            ConfigurationError, match="must be an AsyncConnection or an AsyncSession, not Connection"
        ):
            await double.aenqueue(connection, 1)

    with tasks.begin() as connection:
        asyncio.run(wrong(connection))
    with pytest.raises(ConfigurationError, match="must be a Connection or a Session"):
        tasks.enqueue_many(7, [double.call(1)])  # type: ignore[arg-type]
    assert stored(tasks) == 0
