"""Background tasks in tests: what was enqueued, and running it here and now by a clock that is moved by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from mks_hardening._core.checks import instance, offers
from mks_hardening.testing.clock import FrozenClock

if TYPE_CHECKING:
    from types import TracebackType

    from mks_hardening.tasks import Tasks, TaskWorker

__all__ = ["EnqueuedTask", "TaskRecorder"]

_PRIORITIES = ("high", "normal", "low")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueuedTask:
    """One task that was enqueued.

    Attributes:
        id: what ``enqueue`` returned.
        name: of the task.
        args: positional arguments, without the run.
        kwargs: named arguments.
        queue: of the task.
        priority: ``high``, ``normal`` or ``low``.
        key: its idempotency key.
        user_id: whose it is.
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
    """Looks at the tasks of an application under test, and runs them on the calling thread.

    ``with TaskRecorder(...) as recorder:`` lets their times go by ``clock``, and forgets what was there before. In
    pytest there is the fixture ``mks_tasks``.

    Args:
        tasks: of the application; their table must exist.
        worker: runs them, ``TaskWorker(tasks, clock=clock)``; it is never started.
        clock: moved by the test.
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
        """What was enqueued and committed so far, whether it has run or not; of one name where that is given."""
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
        """That this was enqueued once with exactly these arguments; without any, that it was enqueued once at all.

        Raises:
            AssertionError: it was not, or more than once; says what was enqueued.
        """
        found = [
            task
            for task in self.enqueued(name)
            if not (args or kwargs) or (task.args == args and task.kwargs == kwargs)
        ]
        if len(found) != 1:
            wanted = f"{name}{_call(args, kwargs)}" if args or kwargs else name
            raise AssertionError(f"{wanted} was enqueued {len(found)} times, wanted once; {self._said()}")
        return found[0]

    def assert_nothing_enqueued(self, name: str | None = None) -> None:
        """That nothing was enqueued, or nothing of this name.

        Raises:
            AssertionError: says what was.
        """
        if self.enqueued(name):
            raise AssertionError(f"nothing should be enqueued; {self._said()}")

    def run(self, *, raising: bool = True, most: int = 1000) -> list[str]:
        """Run what is due, what that enqueues, and what is due by schedule, until nothing is.

        What waits for a later time, as retries do, waits for ``clock.advance(seconds)``.

        Args:
            raising: raise what a task raised, once its row is dead.
            most: tasks, for those that enqueue themselves for ever.

        Returns:
            What became of each, in the words of ``mks_hardening.events.TaskChanged``.
        """
        outcomes = list[str]()
        self._worker.enqueue_scheduled()
        # One by one and not run_pending(): a task may enqueue another that is more urgent.
        while len(outcomes) < most and (task_id := self._tasks.store.next_due()) is not None:
            errors = list[BaseException]()
            outcome = self._worker.run_one(task_id, on_error=errors.append)
            outcomes.append(outcome or "lost")
            # The task's own error with its traceback: "dead" alone would send the author into the log.
            if raising and outcome == "dead" and errors:
                raise errors[-1]
        return outcomes

    def _said(self) -> str:
        calls = [f"{task.name}{_call(task.args, task.kwargs)}" for task in self.enqueued()]
        return f"enqueued: {', '.join(calls) or 'nothing'}"


def _call(args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    shown = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    return f"({', '.join(shown)})"
