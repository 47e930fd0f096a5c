"""How the queue of tasks stands at one moment, for exporters and administration pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["RecentRuns", "TaskStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentRuns:
    """What became of the tasks of one name that ended lately.

    Attributes:
        done: how many were done.
        dead: how many are on the list of the dead.
        retries: how often they were tried again.
        mean_seconds: mean duration of their last runs; ``None`` when none was started.
        longest_seconds: the longest of them.
    """

    done: int
    dead: int
    retries: int
    mean_seconds: float | None
    longest_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStats:
    """How the queue of tasks stands at one moment.

    Attributes:
        due: its length: tasks that may run and that nobody works at.
        oldest_due: seconds for which the oldest of them has been due.
        delayed: tasks that wait for their time.
        running: tasks under a lease.
        unknown: tasks that were put back because no worker knows their name or takes their arguments.
        oldest_unknown: seconds since the oldest of them was enqueued.
        done: tasks that were done and are still kept.
        dead: tasks on the list of the dead.
        cancelled: tasks that were cancelled and are still kept.
        queues: ``due`` by queue.
        dead_by_name: ``dead`` by name of the task.
        recent: what ended lately, by name of the task.
    """

    due: int = 0
    oldest_due: float | None = None
    delayed: int = 0
    running: int = 0
    unknown: int = 0
    oldest_unknown: float | None = None
    done: int = 0
    dead: int = 0
    cancelled: int = 0
    queues: Mapping[str, int] = field(default_factory=dict[str, int])
    dead_by_name: Mapping[str, int] = field(default_factory=dict[str, int])
    recent: Mapping[str, RecentRuns] = field(default_factory=dict[str, RecentRuns])
