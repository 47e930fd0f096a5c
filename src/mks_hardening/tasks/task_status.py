"""Status of a task as shown to its owner."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TaskStatus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """Status of a task; contains no error text, which could reveal information that is not the owner's.

    Attributes:
        id: id of the task, known before the commit.
        name: name of the task.
        state: ``waiting``, ``running``, ``done``, ``dead`` or ``cancelled``.
        progress: completed share, 0 to 1.
        stage: current stage as described by the task.
        result: return value of the task; ``None`` until it is done.
        created_at: wall time of enqueuing, seconds since the epoch.
        started_at: wall time at which a worker last leased it, or ``None``.
        finished_at: wall time at which it ended, or ``None``.
        due_at: wall time from which it may run, or at which its lease expires.
        deliveries: number of times a worker leased it since the last regular return.
        attempts: number of retries so far.
        user_id: user who owns the task.
        cancel_requested: whether cancellation was requested.
    """

    id: str
    name: str
    state: str
    progress: float
    stage: str
    result: object
    created_at: float
    started_at: float | None
    finished_at: float | None
    due_at: float | None
    deliveries: int
    attempts: int
    user_id: str | None
    cancel_requested: bool

    @property
    def ended(self) -> bool:
        """Whether the task is in a final state, which only an explicit replay changes."""
        return self.state in {"done", "dead", "cancelled"}
