"""Enqueuing what is due by schedule; any number of schedulers enqueue each slot once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mks_hardening.tasks.registry import Task, Tasks

__all__ = ["Scheduler"]


class Scheduler:
    """Looks at the schedules of all tasks.

    Args:
        tasks: what may run, and where the rows are.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._since: float | None = None  # read at the first look: making a worker asks no database
        self._seen = dict[str, float]()

    def enqueue_due(self) -> list[str]:
        """Enqueue each slot that has begun and was not seen yet; the ids."""
        now = self._tasks.store.clock.read()
        # A clock that was ahead and is set right must not hold back what skips missed slots until then.
        self._since = now if self._since is None else min(self._since, now)
        scheduled = [task for task in tuple(self._tasks.known.values()) if task.schedule is not None]
        return [task_id for task in scheduled if (task_id := self._enqueue(task, now)) is not None]

    def _enqueue(self, task: Task[..., object], now: float) -> str | None:
        rule = task.schedule
        if rule is None:
            return None
        # By the clock of the rows, which all hosts share: one that is ahead would enqueue a slot early.
        begin = rule.slot(now)
        # Only spares a query: what keeps two schedulers apart is the unique key.
        if self._seen.get(task.name) == begin or (rule.missed == "skip" and begin < (self._since or now)):
            return None
        with self._tasks.begin() as connection:
            task_id = task.using(key=_slot_name(begin)).enqueue(connection)
        # After the commit: a slot whose transaction failed is tried at the next look.
        self._seen[task.name] = begin
        return task_id


def _slot_name(begin: float) -> str:
    return datetime.fromtimestamp(begin, UTC).strftime("slot:%Y-%m-%dT%H:%M:%SZ")
