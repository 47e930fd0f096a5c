"""Counts of the log records that a handler received."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AlertStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertStats:
    """Counts of the log records that a handler received; ``logged`` is the sum of the five fields after it.

    Attributes:
        logged: records received from log calls.
        delivered: records that the destination accepted as alerts, single or in a summary.
        suppressed: repetitions, reported as a number in a digest.
        spooled: records written to the spool.
        dropped: records lost, because the queue or the spool was full or delivery failed without a spool.
        pending: records without a result so far.
        deliveries: messages that the destination accepted, including digests and replays.
        replayed: alerts delivered from the spool; they were counted by the process that spooled them.
        errors: errors of the notifier itself.
    """

    logged: int = 0
    delivered: int = 0
    suppressed: int = 0
    spooled: int = 0
    dropped: int = 0
    pending: int = 0
    deliveries: int = 0
    replayed: int = 0
    errors: int = 0
