"""Snapshot of the task queues, for exporters and administration pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["RecentRuns", "TaskStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentRuns:
    """Outcome of the recently ended tasks of one name.

    Attributes:
        done: number of tasks that are done.
        dead: number of dead tasks.
        retries: number of retries.
        mean_seconds: mean duration of their last runs in seconds; ``None`` if none was started.
        longest_seconds: longest duration of these runs in seconds.
    """

    done: int
    dead: int
    retries: int
    mean_seconds: float | None
    longest_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStats:
    """Snapshot of the task queues.

    Attributes:
        due: queue length: tasks that may run and are not leased.
        oldest_due: seconds for which the oldest of them has been due.
        delayed: number of tasks that wait for their time.
        running: number of tasks under a lease.
        unknown: number of tasks that were put back because no worker knows their name or accepts their arguments.
        oldest_unknown: seconds since the oldest of them was enqueued.
        done: number of done tasks whose rows still exist.
        dead: number of dead tasks.
        cancelled: number of cancelled tasks whose rows still exist.
        queues: ``due`` by queue.
        dead_by_name: ``dead`` by task name.
        recent: recently ended tasks, by task name.
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
