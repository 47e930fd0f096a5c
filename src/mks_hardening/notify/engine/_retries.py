"""Retries of failed deliveries: when to retry, when to give up, and when a destination counts as down.

A small state machine over a clock: the outbox reports the result of each attempt and queries the next step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mks_hardening.notify.policy import AlertPolicy

__all__ = ["RetryPolicy", "pause_before_retry"]


class RetryPolicy:
    """Consecutive failures of one destination, and the pauses after them.

    Args:
        policy: number of retries and pauses between them.
        random: returns numbers in [0, 1) for the jitter.
    """

    __slots__ = ("_failures", "_not_before", "_policy", "_random")

    def __init__(self, policy: AlertPolicy, *, random: Callable[[], float]) -> None:
        self._policy = policy
        self._random = random
        self._failures = 0
        self._not_before = float("-inf")

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    @property
    def down(self) -> bool:
        """Whether the destination has failed more times in a row than one message is attempted."""
        return self._failures > self._policy.retries

    def answered(self) -> None:
        """Record that the destination is up: it accepted or permanently refused a message."""
        self._failures = 0

    def failed(self, *, now: float, retry_after: float | None) -> None:
        """Record a temporary failure; the next attempt follows after a pause, which the destination may extend."""
        self._failures += 1
        pause = pause_before_retry(self._policy, self._failures, random=self._random)
        # Ignores "Retry-After: 0": there is always a pause.
        self._not_before = now + max(pause, retry_after or 0.0)

    def exhausted(self, tries: int) -> bool:
        """Whether a message with this many failed attempts is given up."""
        return tries > self._policy.retries

    def wait(self, *, now: float) -> float:
        """Return the seconds until the next attempt."""
        return max(0.0, self._not_before - now)


def pause_before_retry(policy: AlertPolicy, failures: int, *, random: Callable[[], float]) -> float:
    """Return the pause in seconds after ``failures`` consecutive failures: exponential, with jitter in one half."""
    longest = min(policy.backoff_max, policy.backoff * 2.0 ** min(failures - 1, 60))
    # The other half is fixed, so that a destination that is down is never retried immediately by chance.
    return longest * (0.5 + random() / 2)
