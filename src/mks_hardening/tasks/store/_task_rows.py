"""Rows as plain values: what is written when a task is accepted, and what a worker gets."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LeasedTask", "NewTask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """What is written when a task is accepted."""

    id: str
    name: str
    arguments: str
    context: str
    queue: str
    priority: int
    due_at: float | None
    delay: float
    unique_key: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedTask:
    """A task that a worker has taken, with the lease that it holds."""

    id: str
    name: str
    arguments: str
    context: str
    owner: str
    deliveries: int
    attempts: int
    unique_key: str | None
    user_id: str | None
    cancel_requested: bool
    unknown_for: float | None
    """Seconds since a worker that does not know its name has put it back first."""
