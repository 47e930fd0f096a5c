"""The life of a task as a table: which step is possible in which state, and where it leads.

``waiting`` for its time or a worker, ``running`` under a lease, and three ends: ``done``, ``dead`` (kept to be
looked at) and ``cancelled``. A step that the table does not list changes nothing; that is how a worker that lost
its lease cannot finish a task that another one has taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

__all__ = ["ENDS", "TRANSITIONS", "State", "Step", "after", "sources"]

State = Literal["waiting", "running", "done", "dead", "cancelled"]
Step = Literal[
    "claim", "renew", "finish", "retry", "put_back", "give_up", "cancel", "stop", "replay", "enqueue"
]

TRANSITIONS: Final[Mapping[tuple[State, Step], State]] = {
    ("waiting", "claim"): "running",
    ("waiting", "cancel"): "cancelled",
    # A lease that ran out: the worker is dead or stalled, and another one takes over.
    ("running", "claim"): "running",
    ("running", "renew"): "running",
    ("running", "finish"): "done",
    ("running", "retry"): "waiting",
    # The worker does not know the name, which is new code's business: nothing was tried, nothing is counted.
    ("running", "put_back"): "waiting",
    ("running", "give_up"): "dead",
    # A request to stop, which the task sees at its next progress report.
    ("running", "cancel"): "running",
    ("running", "stop"): "cancelled",
    ("dead", "replay"): "waiting",
    # The key of a task that was never done: the work is wanted once more.
    ("dead", "enqueue"): "waiting",
    ("cancelled", "replay"): "waiting",
}

ENDS: Final[frozenset[State]] = frozenset({"done", "dead", "cancelled"})


def after(state: State, step: Step) -> State | None:
    """The state that a step leads to, or ``None`` where it is not possible."""
    return TRANSITIONS.get((state, step))


def sources(step: Step) -> tuple[State, ...]:
    """The states in which a step is possible, for the condition of a statement."""
    return tuple(state for state, known in TRANSITIONS if known == step)
