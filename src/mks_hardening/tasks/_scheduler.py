"""Scheduler: enqueues due slots; any number of schedulers enqueue each slot once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mks_hardening.tasks._naming import SLOT

if TYPE_CHECKING:
    from mks_hardening.tasks.schedule import ScheduleRule
    from mks_hardening.tasks.tasks import Task, Tasks

__all__ = ["Scheduler"]


class Scheduler:
    """Scheduler of all tasks that have a schedule.

    Args:
        tasks: the registered tasks and their store.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._since = dict[str, float]()
        self._seen = dict[str, float]()

    def enqueue_due(self) -> list[str]:
        """Enqueue each slot that has begun and was not enqueued yet; return the task ids."""
        now = self._tasks.store.clock.read()
        scheduled = [
            (task, task.schedule) for task in tuple(self._tasks.known.values()) if task.schedule is not None
        ]
        return [
            task_id for task, rule in scheduled if (task_id := self._enqueue(task, rule, now)) is not None
        ]

    def _enqueue(self, task: Task[..., object], rule: ScheduleRule, now: float) -> str | None:
        # By the clock of the rows, which all hosts share: a host whose clock is ahead would enqueue a slot early.
        begin = rule.slot(now)
        # If the clock was ahead and is corrected, slots must not be delayed until that time.
        since = self._since[task.name] = min(self._since.get(task.name, now), now)
        # Only saves a query: the unique key is what prevents two schedulers from enqueuing the same slot.
        if self._seen.get(task.name) == begin or (rule.missed == "skip" and begin < since):
            return None
        store = self._tasks.store
        # A slot that began before the schedule existed was not missed. It is stored as cancelled, so that the next
        # scheduler knows that the schedule exists.
        is_older = begin < since and not store.has_slot(task.name)
        with self._tasks.begin() as connection:
            task_id = task.using(key=_slot_name(begin)).enqueue(connection)
            if is_older:
                store.cancel(task_id, connection=connection)
        # After the commit: a slot whose transaction failed is retried in the next round.
        self._seen[task.name] = begin
        return None if is_older else task_id


def _slot_name(begin: float) -> str:
    return datetime.fromtimestamp(begin, UTC).strftime(f"{SLOT}%Y-%m-%dT%H:%M:%SZ")
