"""Enqueuing what is due by schedule; any number of schedulers enqueue each slot once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mks_hardening.tasks._naming import SLOT

if TYPE_CHECKING:
    from mks_hardening.tasks.tasks import Task, Tasks

__all__ = ["Scheduler"]


class Scheduler:
    """Looks at the schedules of all tasks.

    Args:
        tasks: what may run, and where the rows are.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._since = dict[str, float]()
        self._seen = dict[str, float]()

    def enqueue_due(self) -> list[str]:
        """Enqueue each slot that has begun and was not seen yet; the ids."""
        now = self._tasks.store.clock.read()
        scheduled = [task for task in tuple(self._tasks.known.values()) if task.schedule is not None]
        return [task_id for task in scheduled if (task_id := self._enqueue(task, now)) is not None]

    def _enqueue(self, task: Task[..., object], now: float) -> str | None:
        rule = task.schedule
        if rule is None:
            return None
        # By the clock of the rows, which all hosts share: one that is ahead would enqueue a slot early.
        begin = rule.slot(now)
        # A clock that was ahead and is set right must not hold slots back until then.
        since = self._since[task.name] = min(self._since.get(task.name, now), now)
        # Only spares a query: what keeps two schedulers apart is the unique key.
        if self._seen.get(task.name) == begin or (rule.missed == "skip" and begin < since):
            return None
        store = self._tasks.store
        # Nobody missed a slot that began before the schedule existed. It is kept as cancelled, so that the next
        # scheduler knows the schedule.
        is_older = begin < since and not store.has_slot(task.name)
        with self._tasks.begin() as connection:
            task_id = task.using(key=_slot_name(begin)).enqueue(connection)
            if is_older:
                store.cancel(task_id, connection=connection)
        # After the commit: a slot whose transaction failed is tried at the next look.
        self._seen[task.name] = begin
        return None if is_older else task_id


def _slot_name(begin: float) -> str:
    return datetime.fromtimestamp(begin, UTC).strftime(f"{SLOT}%Y-%m-%dT%H:%M:%SZ")
