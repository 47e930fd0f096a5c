"""One budget for all round trips of an operation, in both worlds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mks_hardening._core.operations import Call, Op, Pause, Spawn, arun, run
from mks_hardening._core.resilience.budget import (
    Budget,
    current_budget,
    enter_operation,
    outside_budget,
    request_budget,
)

Runner = Callable[..., Any]


def in_a_loop(operation: Op[Any], **options: Any) -> Any:
    async def main() -> Any:
        result = await arun(operation, **options)
        assert current_budget() is None
        return result

    return asyncio.run(main())


@pytest.fixture(params=[run, in_a_loop], ids=["plain", "asyncio"])
def runner(request: pytest.FixtureRequest) -> Runner:
    found: Runner = request.param
    return found


class Look:
    """A round trip that only looks which budget it is charged to."""

    def run(self) -> Budget | None:
        return current_budget()

    async def arun(self) -> Budget | None:
        return current_budget()


def looks() -> Op[list[Budget | None]]:
    first = yield Look()
    yield Pause(0)
    second = yield Look()
    return [first, second]


def test_all_round_trips_of_an_operation_share_one_budget(runner: Runner) -> None:
    first, second = runner(looks(), budget=0.25)
    assert first is second is not None
    assert first.remaining == 0.25
    assert current_budget() is None


def test_without_a_budget_there_is_none(runner: Runner) -> None:
    assert runner(looks()) == [None, None]


def test_in_a_request_its_budget_holds() -> None:
    with request_budget(1.0) as request:
        assert run(looks(), budget=0.25) == [request, request]
        assert current_budget() is request

    async def main() -> None:
        with request_budget(1.0) as around:
            assert await arun(looks(), budget=0.25) == [around, around]
            assert current_budget() is around

    asyncio.run(main())


def test_an_operation_inside_an_operation_shares_it(runner: Runner) -> None:
    def outer() -> Op[Any]:
        mine = yield Look()
        inner = yield Call(lambda: None)
        assert inner is None
        assert not enter_operation(9.0)
        assert current_budget() is mine
        return mine

    assert runner(outer(), budget=0.25).remaining == 0.25


def test_the_callers_own_function_is_not_in_it(runner: Runner) -> None:
    def operation() -> Op[Any]:
        before = yield Look()
        inside = yield Call(current_budget)
        after = yield Look()
        assert before is after
        return inside

    assert runner(operation(), budget=0.25) is None
    with request_budget(1.0) as request:
        assert run(operation(), budget=0.25) is request


def test_an_asynchronous_function_of_the_caller_is_not_in_it_either() -> None:
    async def function() -> Budget | None:
        await asyncio.sleep(0)
        return current_budget()

    def operation() -> Op[Any]:
        return (yield Call(function))

    assert in_a_loop(operation(), budget=0.25) is None


def test_an_operation_that_raises_gives_the_budget_back(runner: Runner) -> None:
    def operation() -> Op[None]:
        yield Look()
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        runner(operation(), budget=0.25)
    assert current_budget() is None


def spawned(seen: list[Any], done: threading.Event, names: list[str] | None = None) -> Op[None]:
    seen.append((yield Look()))
    if names is not None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        names.append(threading.current_thread().name if task is None else task.get_name())
    done.set()


def test_work_in_the_background_spends_nobodys_budget() -> None:
    seen: list[Any] = []
    done = threading.Event()

    names: list[str] = []

    def operation() -> Op[bool]:
        return (yield Spawn(spawned(seen, done, names), name="mks-planted"))

    with request_budget(1.0):
        assert run(operation())
    assert done.wait(5)

    async def main() -> None:
        with request_budget(1.0) as request:
            assert await arun(operation(), budget=0.25)
            assert current_budget() is request
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(main())
    assert seen == [None, None]
    assert names == ["mks-planted"] * 2


def test_no_thread_to_be_had_is_said_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot_start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", cannot_start)

    def operation() -> Op[bool]:
        return (yield Spawn(spawned([], threading.Event()), name="mks-planted"))

    for _ in range(20):
        assert run(operation()) is False


def test_outside_means_outside() -> None:
    with request_budget(1.0) as request:
        with outside_budget():
            assert current_budget() is None
        assert current_budget() is request
