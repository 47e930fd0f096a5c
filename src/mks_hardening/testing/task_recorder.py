"""Background tasks in tests: inspect enqueued tasks and run them synchronously on a manual clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from mks_hardening._core.checks import instance, offers
from mks_hardening.testing.frozen_clock import FrozenClock

if TYPE_CHECKING:
    from types import TracebackType

    from mks_hardening.tasks import Tasks, TaskWorker

__all__ = ["EnqueuedTask", "TaskRecorder"]

_PRIORITIES = ("high", "normal", "low")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueuedTask:
    """One enqueued task.

    Attributes:
        id: return value of ``enqueue``.
        name: task name.
        args: positional arguments, without the run.
        kwargs: keyword arguments.
        queue: queue of the task.
        priority: ``high``, ``normal`` or ``low``.
        key: idempotency key.
        user_id: id of the user to whom the task belongs.
    """

    id: str
    name: str
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    queue: str
    priority: str
    key: str | None
    user_id: str | None


class TaskRecorder:
    """Inspects the tasks of an application under test, and runs them on the calling thread.

    ``with TaskRecorder(...) as recorder:`` makes the tasks use ``clock``, and ignores tasks enqueued before. With
    pytest, use the fixture ``mks_tasks``.

    Args:
        tasks: the application's tasks; their table must exist.
        worker: ``TaskWorker(tasks, clock=clock)``, which runs them; it is never started.
        clock: clock that the test advances.
    """

    def __init__(self, tasks: Tasks, *, worker: TaskWorker, clock: FrozenClock) -> None:
        self._tasks = offers(tasks, "task", "begin", parameter="tasks", kind="a Tasks")
        self._worker = offers(worker, "run_pending", "close", parameter="worker", kind="a TaskWorker")
        self._stack = ExitStack()
        self._before = set[str]()
        self.clock: FrozenClock = instance(clock, FrozenClock, parameter="clock")

    def __enter__(self) -> Self:
        self._before = {task.id for task in self._tasks.store.accepted()}
        self._stack.enter_context(self._tasks.store.on_clock(self.clock))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()
        self._stack.close()

    def enqueued(self, name: str | None = None) -> list[EnqueuedTask]:
        """Return the tasks enqueued and committed so far, whether they have run or not; optionally of one name."""
        found = list[EnqueuedTask]()
        for new in self._tasks.store.accepted():
            if new.id not in self._before and name in {None, new.name}:
                args, kwargs = cast("tuple[list[object], dict[str, object]]", json.loads(new.arguments))
                found.append(
                    EnqueuedTask(
                        id=new.id,
                        name=new.name,
                        args=tuple(args),
                        kwargs=kwargs,
                        queue=new.queue,
                        priority=_PRIORITIES[new.priority],
                        key=new.unique_key,
                        user_id=new.user_id,
                    )
                )
        return found

    def assert_enqueued(self, name: str, /, *args: object, **kwargs: object) -> EnqueuedTask:
        """Assert that a task was enqueued exactly once with these arguments, or with any if none are given.

        Raises:
            AssertionError: it was not enqueued, or more than once; the message lists the enqueued tasks.
        """
        found = [
            task
            for task in self.enqueued(name)
            if not (args or kwargs) or (task.args == args and task.kwargs == kwargs)
        ]
        if len(found) != 1:
            wanted = f"{name}{_call(args, kwargs)}" if args or kwargs else name
            raise AssertionError(f"{wanted} was enqueued {len(found)} times, wanted once; {self._summary()}")
        return found[0]

    def assert_nothing_enqueued(self, name: str | None = None) -> None:
        """Assert that no task was enqueued, or none of this name.

        Raises:
            AssertionError: a task was enqueued; the message lists the enqueued tasks.
        """
        if self.enqueued(name):
            raise AssertionError(f"nothing should be enqueued; {self._summary()}")

    def run(self, *, raising: bool = True, most: int = 1000) -> list[str]:
        """Run the tasks that are due, those that they enqueue, and scheduled tasks, until none is due.

        Tasks due later, such as retries, run after ``clock.advance(seconds)``.

        Args:
            raising: whether to raise the exception of a task whose row is dead.
            most: maximum number of tasks, for tasks that enqueue themselves forever.

        Returns:
            The outcome of each task, as in ``mks_hardening.events.TaskChanged``.
        """
        outcomes = list[str]()
        self._worker.enqueue_scheduled()
        # One by one instead of run_pending(): a task may enqueue another that is more urgent.
        while len(outcomes) < most and (task_id := self._tasks.store.next_due()) is not None:
            errors = list[BaseException]()
            outcome = self._worker.run_one(task_id, on_error=errors.append)
            outcomes.append(outcome or "lost")
            # The task's own error with its traceback: "dead" alone would send the developer to the log.
            if raising and outcome == "dead" and errors:
                raise errors[-1]
        return outcomes

    def _summary(self) -> str:
        calls = [f"{task.name}{_call(task.args, task.kwargs)}" for task in self.enqueued()]
        return f"enqueued: {', '.join(calls) or 'nothing'}"


def _call(args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    shown = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    return f"({', '.join(shown)})"
