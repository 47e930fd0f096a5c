"""One description of an operation, two ways to run it.

An operation is a generator that yields what it needs from outside (a round trip, a pause, the caller's function)
and is sent the answer. ``run`` does these things in place, ``arun`` awaits them: the logic exists once for both
worlds. With a ``budget`` all round trips of the operation share it, unless they are part of a request, which has
one; the caller's own function and what is spawned are not in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import nullcontext
from contextvars import copy_context
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from mks_hardening._core.resilience.budget import (
    current_budget,
    enter_operation,
    leave_operation,
    outside_budget,
)
from mks_hardening.exceptions import ConfigurationError

__all__ = ["Call", "Effect", "Op", "Pause", "Spawn", "answered", "arun", "run"]

T = TypeVar("T")

_MOST_THREADS: Final = 8
_MOST_TASKS: Final = 32  # of one event loop
_threads: set[threading.Thread] = set()
_tasks: set[Any] = set()  # asyncio itself keeps tasks only weakly


class Effect(Protocol):
    """Something to be done outside the operation."""

    def run(self) -> Any:
        """Do it here and now."""
        ...

    async def arun(self) -> Any:
        """Do it on the running event loop."""
        ...


Op: TypeAlias = Generator[Effect, Any, T]


def run(operation: Op[T], *, budget: float | None = None) -> T:
    """Run an operation in this thread; outside a request its round trips may take ``budget`` seconds together."""
    entered = budget is not None and enter_operation(budget)
    try:
        effect = next(operation)
        while True:
            try:
                answer = effect.run()
            except BaseException as error:  # noqa: BLE001 - belongs to the operation, which raises it again
                effect = operation.throw(error)
            else:
                effect = operation.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        leave_operation(entered=entered)


async def arun(operation: Op[T], *, budget: float | None = None) -> T:
    """``run`` on the running event loop."""
    entered = budget is not None and enter_operation(budget)
    try:
        effect = next(operation)
        while True:
            try:
                answer = await effect.arun()
            except BaseException as error:  # noqa: BLE001 - as in run
                effect = operation.throw(error)
            else:
                effect = operation.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        leave_operation(entered=entered)


class Pause:
    """Let other callers work for a while."""

    __slots__ = ("_seconds",)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self) -> None:
        """Sleep."""
        time.sleep(self._seconds)

    async def arun(self) -> None:
        """Sleep."""
        import asyncio

        await asyncio.sleep(self._seconds)


def _in_operation() -> bool:
    budget = current_budget()
    return budget is not None and budget.of_operation


def answered(answer: T) -> T:
    """What a function called by ``def`` has answered.

    Raises:
        ConfigurationError: it was ``async def``; nobody would await it, and nothing of it would be done.
    """
    # Any awaitable and not only coroutines, like `Call.arun`.
    if hasattr(answer, "__await__"):
        close = getattr(answer, "close", None)
        if callable(close):  # a coroutine: without this, Python warns on top that it was never awaited
            close()
        raise ConfigurationError(
            "a function that was given here is async def: call the method whose name begins with a, or give a "
            "plain function"
        )
    return answer


class Call:
    """The caller's own function, plain or ``async``."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], Any] | Callable[[], Awaitable[Any]]) -> None:
        self._function = function

    def run(self) -> Any:
        """Call it."""
        if not _in_operation():
            return answered(self._function())
        with outside_budget():
            return answered(self._function())

    async def arun(self) -> Any:
        """Call it, and await what it returns if that is awaitable."""
        with outside_budget() if _in_operation() else nullcontext():
            result = self._function()
            return await result if hasattr(result, "__await__") else result


class Spawn:
    """Another operation, beside this one: a daemon thread or a task. Answers whether it was started.

    Args:
        operation: what it does.
        name: of the thread or the task, for who looks at what a process is doing.
    """

    __slots__ = ("_name", "_operation")

    def __init__(self, operation: Op[Any], *, name: str) -> None:
        self._operation = operation
        self._name = name

    def run(self) -> bool:
        """Start a thread, unless there are many already."""
        if len(_threads) >= _MOST_THREADS:
            _threads.difference_update([thread for thread in tuple(_threads) if not thread.is_alive()])
            if len(_threads) >= _MOST_THREADS:
                return False
        thread = threading.Thread(target=copy_context().run, args=(self._work,), daemon=True, name=self._name)
        _threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had, which is no reason to fail whoever asked
            _threads.discard(thread)
            return False
        return True

    def _work(self) -> None:
        try:
            with outside_budget():
                run(self._operation)
        finally:
            _threads.discard(threading.current_thread())

    async def arun(self) -> bool:
        """Start a task, unless there are many already."""
        import asyncio

        loop = asyncio.get_running_loop()
        if sum(task.get_loop() is loop for task in tuple(_tasks)) >= _MOST_TASKS:
            return False
        with outside_budget():  # the task takes a copy of this context
            task = loop.create_task(arun(self._operation), name=self._name)
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        return True
