"""What became of the records that a handler took."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AlertStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertStats:
    """What became of the records a handler took: ``logged`` is the sum of the five that follow.

    Attributes:
        logged: records taken from log calls.
        delivered: records the destination accepted as an alert of their own, alone or in a summary.
        suppressed: repetitions, reported as a number in a digest.
        spooled: records written to the spool.
        dropped: records lost, because the queue or the spool was full or delivery failed without a spool.
        pending: records still on their way.
        deliveries: messages the destination accepted, with digests and replays.
        replayed: alerts delivered from the spool; whoever spooled them has counted them.
        faults: errors of the notifier itself.
    """

    logged: int = 0
    delivered: int = 0
    suppressed: int = 0
    spooled: int = 0
    dropped: int = 0
    pending: int = 0
    deliveries: int = 0
    replayed: int = 0
    faults: int = 0
