"""Plain values of task rows: a new task, a leased task for a worker, and the values that a step resets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

__all__ = ["LEASED_COLUMNS", "NEW_COLUMNS", "LeasedTask", "NewTask", "released_values", "renewed_values"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """Values of a new row."""

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
    """A task leased by a worker, with its lease."""

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
    """Seconds since a worker that does not know the task first put it back."""


NEW_COLUMNS: Final = tuple(field.name for field in fields(NewTask) if field.name != "delay")
"""Columns of the table that a new task has a value for."""
LEASED_COLUMNS: Final = tuple(field.name for field in fields(LeasedTask) if field.name != "unknown_for")
"""Columns of the table that a leased task has the value of."""


def released_values(error: str) -> dict[str, object]:
    """Return the values of a row that no worker holds, with an error text for operators."""
    return {"owner": None, "error": error, "progress": 0.0, "stage": "", "rung_at": None}


def renewed_values() -> dict[str, object]:
    """Return the values of a row that is run again as if it were new."""
    return {
        "deliveries": 0,
        "attempts": 0,
        "finished_at": None,
        "cancel_requested": False,
        "unknown_since": None,
        **released_values(""),
    }
