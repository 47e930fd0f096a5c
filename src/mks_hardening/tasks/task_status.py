"""What can be said of a task to the person whose it is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TaskStatus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """A task as it stands; holds no error text, which may hold what is not the reader's.

    Attributes:
        id: of the task, known before the commit.
        name: of the function.
        state: ``waiting``, ``running``, ``done``, ``dead`` or ``cancelled``.
        progress: share that is done, 0 to 1.
        stage: what is being done, in the task's words.
        result: what the task returned; ``None`` until it is done.
        created_at: wall time of the enqueuing, seconds since the epoch.
        started_at: wall time at which a worker took it last, if one has.
        finished_at: wall time of the end, if it has ended.
        due_at: wall time from which it may run, or until which its lease lasts.
        deliveries: how often it was taken by a worker since its last orderly return.
        attempts: how often it asked to be run again.
        user_id: whose it is.
        cancel_requested: whether it has been asked to stop.
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
        """Whether nothing will happen to it any more by itself."""
        return self.state in {"done", "dead", "cancelled"}
