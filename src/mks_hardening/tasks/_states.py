"""State machine of a task: which step is allowed in which state, and the state it leads to.

``waiting`` for its time or a worker, ``running`` under a lease, and three final states: ``done``, ``dead`` (kept
for inspection) and ``cancelled``. A step that the table does not list changes nothing; this prevents a worker that
lost its lease from finishing a task that another worker has leased.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

__all__ = ["ENDS", "TRANSITIONS", "State", "Step", "sources"]

State = Literal["waiting", "running", "done", "dead", "cancelled"]
Step = Literal[
    "lease", "renew", "finish", "retry", "put_back", "give_up", "cancel", "stop", "replay", "enqueue"
]

TRANSITIONS: Final[Mapping[tuple[State, Step], State]] = {
    ("waiting", "lease"): "running",
    ("waiting", "cancel"): "cancelled",
    # The lease expired: the worker is dead or stalled, and another worker takes over.
    ("running", "lease"): "running",
    ("running", "renew"): "running",
    ("running", "finish"): "done",
    ("running", "retry"): "waiting",
    # The worker does not know the task, which newer code will: nothing was attempted, nothing is counted.
    ("running", "put_back"): "waiting",
    ("running", "give_up"): "dead",
    # A request to cancel, which the task sees at its next progress report.
    ("running", "cancel"): "running",
    ("running", "stop"): "cancelled",
    ("dead", "replay"): "waiting",
    # Enqueued again with the key of a task that was never done: the work is wanted once more.
    ("dead", "enqueue"): "waiting",
    ("cancelled", "replay"): "waiting",
}

ENDS: Final[frozenset[State]] = frozenset({"done", "dead", "cancelled"})


def sources(step: Step) -> tuple[State, ...]:
    """Return the states in which a step is allowed, for the condition of a statement."""
    return tuple(state for state, known in TRANSITIONS if known == step)
