"""One implementation of an operation for synchronous and asynchronous callers.

An operation is a generator that yields effects (a round trip, a pause, a function of the caller) and receives their
results. ``run`` executes the effects directly, ``arun`` awaits them, so that the logic is written only once. With a
``budget``, all round trips of the operation share it, unless they are part of a request, which has its own;
functions of the caller and spawned operations are not charged to it.
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

__all__ = ["Call", "Effect", "Op", "Pause", "Spawn", "arun", "require_sync_result", "run"]

T = TypeVar("T")

_MOST_THREADS: Final = 8
_MOST_TASKS: Final = 32  # per event loop
_threads: set[threading.Thread] = set()
_tasks: set[Any] = set()  # asyncio keeps only weak references to tasks


class Effect(Protocol):
    """An action outside the operation, such as a round trip."""

    def run(self) -> Any:
        """Execute it synchronously and return the result."""
        ...

    async def arun(self) -> Any:
        """Execute it on the running event loop and return the result."""
        ...


Op: TypeAlias = Generator[Effect, Any, T]


def run(operation: Op[T], *, budget: float | None = None) -> T:
    """Run an operation in this thread; outside a request, its round trips share ``budget`` seconds."""
    entered = budget is not None and enter_operation(budget)
    try:
        effect = next(operation)
        while True:
            try:
                answer = effect.run()
            except BaseException as error:  # noqa: BLE001 - passed into the operation, which raises it again
                effect = operation.throw(error)
            else:
                effect = operation.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        if entered:
            leave_operation()


async def arun(operation: Op[T], *, budget: float | None = None) -> T:
    """Run an operation on the running event loop; see ``run``."""
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
        if entered:
            leave_operation()


class Pause:
    """Effect that waits for a number of seconds."""

    __slots__ = ("_seconds",)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self) -> None:
        """Sleep."""
        time.sleep(self._seconds)

    async def arun(self) -> None:
        """Sleep without blocking the event loop."""
        import asyncio

        await asyncio.sleep(self._seconds)


def _in_operation() -> bool:
    budget = current_budget()
    return budget is not None and budget.of_operation


def require_sync_result(answer: T) -> T:
    """Return the result of a function that must be synchronous.

    Raises:
        ConfigurationError: the function is ``async def``; its result would never be awaited, and it would not run.
    """
    # Any awaitable, not only coroutines, as in `Call.arun`.
    if hasattr(answer, "__await__"):
        close = getattr(answer, "close", None)
        if callable(close):  # a coroutine: otherwise Python also warns that it was never awaited
            close()
        raise ConfigurationError(
            "an async def function was given to a synchronous method: call the method of the same name that begins "
            "with a, or give a plain function"
        )
    return answer


class Call:
    """Effect that calls a function of the caller, synchronous or ``async``."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], Any] | Callable[[], Awaitable[Any]]) -> None:
        self._function = function

    def run(self) -> Any:
        """Call the function."""
        if not _in_operation():
            return require_sync_result(self._function())
        with outside_budget():
            return require_sync_result(self._function())

    async def arun(self) -> Any:
        """Call the function, and await its result if that is awaitable."""
        with outside_budget() if _in_operation() else nullcontext():
            result = self._function()
            return await result if hasattr(result, "__await__") else result


class Spawn:
    """Effect that starts another operation in a daemon thread or a task; returns whether it was started.

    Args:
        operation: the operation to start.
        name: name of the thread or task, for debugging.
    """

    __slots__ = ("_name", "_operation")

    def __init__(self, operation: Op[Any], *, name: str) -> None:
        self._operation = operation
        self._name = name

    def run(self) -> bool:
        """Start a thread, unless too many are running."""
        if len(_threads) >= _MOST_THREADS:
            _threads.difference_update([thread for thread in tuple(_threads) if not thread.is_alive()])
            if len(_threads) >= _MOST_THREADS:
                return False
        thread = threading.Thread(target=copy_context().run, args=(self._work,), daemon=True, name=self._name)
        _threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no more threads available, which must not fail the caller
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
        """Start a task, unless too many are running."""
        import asyncio

        loop = asyncio.get_running_loop()
        if sum(task.get_loop() is loop for task in tuple(_tasks)) >= _MOST_TASKS:
            return False
        with outside_budget():  # the task copies this context
            task = loop.create_task(arun(self._operation), name=self._name)
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        return True
