"""Retry: which errors, how often, how long."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError, PendingRollbackError

from mks_hardening.db import retry_on_serialization_failure
from mks_hardening.exceptions import ConfigurationError


class PostgresError(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


class MySQLError(Exception):
    pass


def _failing(error: Exception, times: int) -> tuple[Any, list[int]]:
    calls: list[int] = []

    def work(answer: str) -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return answer

    return work, calls


@pytest.mark.parametrize(
    "error",
    [
        PostgresError("40001"),
        PostgresError("40P01"),
        MySQLError(1213, "Deadlock found"),
        MySQLError(1205, "Lock wait timeout"),
        MySQLError(1020, "Record has changed since last read in table 't'"),
        OperationalError("select 1", {}, PostgresError("40001")),
    ],
)
def test_a_lost_race_is_run_again(error: Exception) -> None:
    work, calls = _failing(error, 2)
    waits: list[float] = []
    again = retry_on_serialization_failure(backoff=0.1, sleep=waits.append)(work)
    assert again("done") == "done"
    assert len(calls) == 3
    assert 0 <= waits[0] <= 0.1
    assert 0 <= waits[1] <= 0.2


@pytest.mark.parametrize(
    "error",
    [
        PostgresError("23505"),
        PostgresError("57014"),
        ValueError("40001"),
        MySQLError("1213"),
        KeyError(1213.0),
    ],
)
def test_other_errors_leave_at_once(error: Exception) -> None:
    work, calls = _failing(error, 9)
    with pytest.raises(type(error)):
        retry_on_serialization_failure(sleep=lambda _seconds: None)(work)("done")
    assert len(calls) == 1


def test_the_last_error_leaves_as_it_came() -> None:
    error = PostgresError("40001")
    work, calls = _failing(error, 99)
    waits: list[float] = []
    with pytest.raises(PostgresError) as caught:
        retry_on_serialization_failure(attempts=3, sleep=waits.append)(work)("done")
    assert caught.value is error
    assert (len(calls), len(waits)) == (3, 2)


def test_a_busy_sqlite_is_one(tmp_path: Path) -> None:
    path = tmp_path / "busy.sqlite"
    with sqlite3.connect(path) as writer, sqlite3.connect(path, timeout=0) as other:
        writer.execute("CREATE TABLE t (a)")
        writer.execute("BEGIN IMMEDIATE")
        attempts: list[int] = []

        @retry_on_serialization_failure(sleep=lambda _seconds: writer.rollback())
        def write() -> None:
            attempts.append(1)
            other.execute("BEGIN IMMEDIATE")

        write()
        other.rollback()
    writer.close()
    other.close()
    assert len(attempts) == 2


@pytest.mark.parametrize(
    ("parameter", "value"), [("attempts", 0), ("attempts", "3"), ("backoff", -1), ("backoff_max", -1)]
)
def test_impossible_parameters_are_refused(parameter: str, value: Any) -> None:
    options: dict[str, Any] = {parameter: value}
    with pytest.raises(ConfigurationError) as caught:
        retry_on_serialization_failure(**options)
    assert caught.value.parameter == parameter


def test_a_coroutine_function_is_run_again() -> None:
    waits: list[float] = []
    awaited: list[bool] = []

    async def pause(wait: float) -> None:
        waits.append(wait)
        await asyncio.sleep(0)
        awaited.append(True)

    for sleep in (pause, waits.append, None):
        work, calls = _failing(PostgresError("40001"), 2)

        @retry_on_serialization_failure(backoff=0.001, sleep=sleep)
        async def again(answer: str) -> str:
            await asyncio.sleep(0)
            done: str = work(answer)  # noqa: B023 - called before the next round
            return done

        assert asyncio.run(again("done")) == "done"
        assert len(calls) == 3
    assert len(waits) == 4
    assert awaited == [True, True]


def test_a_coroutine_that_fails_otherwise_is_not_run_again() -> None:
    work, calls = _failing(KeyError("x"), 2)

    @retry_on_serialization_failure()
    async def again() -> str:
        done: str = work("x")
        return done

    with pytest.raises(KeyError):
        asyncio.run(again())
    assert len(calls) == 1


def test_whatever_gives_a_coroutine_is_run_again() -> None:
    class Asker:
        def __init__(self) -> None:
            self.work, self.calls = _failing(PostgresError("40001"), 2)

        async def __call__(self, answer: str) -> str:
            await asyncio.sleep(0)
            done: str = self.work(answer)
            return done

    def retried(function: Any) -> Any:
        return retry_on_serialization_failure(backoff=0.001)(function)

    async def run() -> None:
        for wrap in (Asker.__call__, partial, lambda asker: asker):
            asker = Asker()
            function = partial(wrap, asker) if wrap is Asker.__call__ else wrap(asker)
            assert await retried(function)("done") == "done"
            assert await retried(lambda answer: asker(answer))("done") == "done"  # noqa: B023, PLW0108 - plain, around it
            assert len(asker.calls) == 4

    asyncio.run(run())


def test_generators_are_refused() -> None:
    def rows() -> Iterator[int]:
        yield 1

    async def later_rows() -> AsyncIterator[int]:
        yield 1

    for function in (rows, later_rows):
        with pytest.raises(ConfigurationError, match="generator"):
            retry_on_serialization_failure()(function)


class OutOfStockError(Exception):
    """An application's own."""


def _behind(how: str) -> None:
    lost = PostgresError("40001")
    if how == "group":
        raise ExceptionGroup("of a task group", [ExceptionGroup("inner", [ValueError("also"), lost])])
    try:
        raise lost
    except PostgresError as error:
        if how == "cause":
            raise OutOfStockError from error
        if how == "context":
            raise OutOfStockError  # noqa: B904 - the context is what is tested
        raise OutOfStockError from None


@pytest.mark.parametrize("how", ["group", "cause", "context", "hidden context"])
@pytest.mark.parametrize("world", ["def", "async def"])
def test_a_lost_race_behind_another_error_is_run_again(how: str, world: str) -> None:
    calls: list[int] = []
    again = retry_on_serialization_failure(sleep=lambda _seconds: None)

    def work() -> str:
        calls.append(1)
        if len(calls) < 3:
            _behind(how)
        return "done"

    async def later() -> str:
        return work()

    assert (again(work)() if world == "def" else asyncio.run(again(later)())) == "done"
    assert len(calls) == 3


def test_an_error_that_the_caller_handles_already_is_none_of_the_transaction() -> None:
    calls: list[int] = []

    @retry_on_serialization_failure(sleep=lambda _seconds: None)
    def work() -> None:
        calls.append(1)
        raise ValueError

    try:
        raise PostgresError("40001")  # noqa: TRY301 - it is handled here
    except PostgresError:
        with pytest.raises(ValueError):  # noqa: PT011 - it has no text
            work()
    assert len(calls) == 1


def test_errors_that_refer_to_each_other_are_looked_at_once() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    work, calls = _failing(one, 9)
    with pytest.raises(ValueError, match="one"):
        retry_on_serialization_failure(sleep=lambda _seconds: None)(work)("done")
    assert len(calls) == 1


# --- lost connections ------------------------------------------------------------------------


def _lost(code: str = "57P01") -> OperationalError:
    """As SQLAlchemy raises it on an engine that does not say when the connection was lost."""
    return OperationalError("insert", {}, PostgresError(code), connection_invalidated=True)


@pytest.mark.parametrize("error", [_lost(), _lost(""), PostgresError("08006"), PostgresError("57P02")])
def test_an_unknown_outcome_is_repeated_only_by_declaration(error: Exception) -> None:
    work, calls = _failing(error, 1)
    with pytest.raises(type(error)) as caught:
        retry_on_serialization_failure(sleep=lambda _seconds: None)(work)("done")
    assert len(calls) == 1
    assert caught.value is error
    [note] = error.__notes__
    assert "idempotent=True" in note

    work, calls = _failing(error, 1)
    declared = retry_on_serialization_failure(idempotent=True, sleep=lambda _seconds: None)
    assert declared(work)("done") == "done"
    assert len(calls) == 2


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("connect", {}, PostgresError("57P03")),
        PostgresError("08001"),
        ConnectionError("lost"),
    ],
)
def test_a_server_that_accepts_no_connection_is_not_asked_again(error: Exception) -> None:
    work, calls = _failing(error, 1)
    with pytest.raises(type(error)):
        retry_on_serialization_failure(idempotent=True, sleep=lambda _seconds: None)(work)("done")
    assert len(calls) == 1


def test_a_conflict_beside_an_unknown_outcome_is_no_permission() -> None:
    work, calls = _failing(ExceptionGroup("tasks", [PostgresError("40001"), _lost()]), 1)
    with pytest.raises(ExceptionGroup):
        retry_on_serialization_failure(sleep=lambda _seconds: None)(work)("done")
    assert len(calls) == 1


def test_a_transaction_of_the_caller_reports_its_first_error() -> None:
    conflict = PostgresError("40001")
    for refused in (PostgresError("25P02"), PendingRollbackError("the transaction has failed")):
        inner_errors = iter([conflict, refused])

        @retry_on_serialization_failure(sleep=lambda _seconds: None)
        def inner() -> None:
            raise next(inner_errors)  # noqa: B023 - called in this round

        with pytest.raises(PostgresError) as caught:
            inner()
        assert caught.value is conflict


def test_nothing_keeps_the_errors_of_repeated_calls() -> None:
    kept: list[weakref.ref[BaseException]] = []

    class KeptError(PostgresError):
        def __init__(self) -> None:
            super().__init__("40001")
            kept.append(weakref.ref(self))

    def work() -> str:
        if not kept:
            raise KeptError
        return "done"

    async def later() -> str:
        return work()

    again = retry_on_serialization_failure(sleep=lambda _seconds: None)
    gc.disable()
    try:
        for run in (again(work), lambda: asyncio.run(again(later)())):
            kept.clear()
            assert run() == "done"
            assert kept[0]() is None
    finally:
        gc.enable()


KINDS: dict[str, Callable[[], Exception]] = {
    "other": lambda: PostgresError("23505"),
    "conflict": lambda: PostgresError("40001"),
    "unknown": _lost,
    "refused": lambda: PostgresError("25P02"),
}


@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), max_size=6),
    attempts=st.integers(1, 5),
    idempotent=st.booleans(),
    world=st.sampled_from(["def", "async def"]),
)
def test_every_history_of_failures_ends_as_declared(
    kinds: list[str], attempts: int, idempotent: bool, world: str
) -> None:
    errors = [KINDS[kind]() for kind in kinds]
    waits: list[float] = []
    calls: list[int] = []

    def work() -> str:
        calls.append(1)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "done"

    async def later() -> str:
        return work()

    # The model: read the history until one failure ends it.
    expected: object = "done"
    count = len(errors) + 1
    for number, kind in enumerate(kinds):
        if kind == "refused" and number:
            expected, count = errors[number - 1], number + 1
            break
        if number == attempts - 1 or not (kind == "conflict" or (kind == "unknown" and idempotent)):
            expected, count = errors[number], number + 1
            break

    again = retry_on_serialization_failure(attempts=attempts, idempotent=idempotent, sleep=waits.append)
    try:
        outcome: object = again(work)() if world == "def" else asyncio.run(again(later)())
    except Exception as error:  # noqa: BLE001 - is compared
        outcome = error
    assert outcome is expected or outcome == expected
    assert (len(calls), len(waits)) == (count, count - 1)
