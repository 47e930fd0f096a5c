"""One description of an operation, two ways to run it.

An operation is a generator that yields what it needs from outside (a round trip, a pause, the caller's function)
and is sent the answer. ``run`` does these things in place, ``arun`` awaits them: the logic exists once for both
worlds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import nullcontext
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from mks_hardening._core.deadline import request_budget

if TYPE_CHECKING:
    from mks_hardening._core.redis_client import RedisClient
    from mks_hardening._core.redis_script import Script

__all__ = ["Call", "Effect", "Op", "Pause", "Pipeline", "RunScript", "Spawn", "arun", "run"]

T = TypeVar("T")

_MOST_THREADS: Final = 8
_PATIENCE: Final = 60.0
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


def run(operation: Op[T]) -> T:
    """Run an operation in this thread."""
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


async def arun(operation: Op[T]) -> T:
    """Run an operation on the running event loop."""
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


class Pipeline:
    """Redis commands in one round trip.

    ``patient`` is for what may take longer than a request's store budget: maintenance, and waiting for another.
    """

    __slots__ = ("_client", "_commands", "_idempotent", "_patient")

    def __init__(
        self,
        client: RedisClient,
        commands: Sequence[Sequence[Any]],
        *,
        idempotent: bool = False,
        patient: bool = False,
    ) -> None:
        self._client = client
        self._commands = commands
        self._idempotent = idempotent
        self._patient = patient

    def run(self) -> Any:
        """Send them."""
        with request_budget(_PATIENCE) if self._patient else nullcontext():
            if len(self._commands) == 1:
                return [self._client.call(*self._commands[0], idempotent=self._idempotent)]
            return self._client.pipeline(self._commands, idempotent=self._idempotent)

    async def arun(self) -> Any:
        """Send them."""
        with request_budget(_PATIENCE) if self._patient else nullcontext():
            if len(self._commands) == 1:
                return [await self._client.acall(*self._commands[0], idempotent=self._idempotent)]
            return await self._client.apipeline(self._commands, idempotent=self._idempotent)


class RunScript:
    """One run of a Lua script."""

    __slots__ = ("_args", "_keys", "_script")

    def __init__(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> None:
        self._script = script
        self._keys = keys
        self._args = args

    def run(self) -> Any:
        """Run it."""
        return self._script.run(self._keys, self._args)

    async def arun(self) -> Any:
        """Run it."""
        return await self._script.arun(self._keys, self._args)


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


class Call:
    """The caller's own function, plain or ``async``."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], Any] | Callable[[], Awaitable[Any]]) -> None:
        self._function = function

    def run(self) -> Any:
        """Call it."""
        return self._function()

    async def arun(self) -> Any:
        """Call it, and await what it returns if that is awaitable."""
        result = self._function()
        return await result if hasattr(result, "__await__") else result


class Spawn:
    """Another operation, beside this one: a daemon thread or a task. Answers whether it was started."""

    __slots__ = ("_operation",)

    def __init__(self, operation: Op[Any]) -> None:
        self._operation = operation

    def run(self) -> bool:
        """Start a thread, unless there are many already."""
        if len(_threads) >= _MOST_THREADS:
            _threads.difference_update([thread for thread in tuple(_threads) if not thread.is_alive()])
            if len(_threads) >= _MOST_THREADS:
                return False
        thread = threading.Thread(
            target=copy_context().run, args=(self._work,), daemon=True, name="mks-cache-refresh"
        )
        _threads.add(thread)
        thread.start()
        return True

    def _work(self) -> None:
        try:
            run(self._operation)
        finally:
            _threads.discard(threading.current_thread())

    async def arun(self) -> bool:
        """Start a task."""
        import asyncio

        task = asyncio.get_running_loop().create_task(arun(self._operation))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        return True
