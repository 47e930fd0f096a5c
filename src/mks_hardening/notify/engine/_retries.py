"""When a failed delivery is tried again, when it is given up, and when a destination counts as down.

A small state machine over a clock: the outbox reports how a try ended and asks what follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mks_hardening.notify.policy import AlertPolicy

__all__ = ["RetryPolicy", "pause_before_retry"]


class RetryPolicy:
    """Failures of one destination in a row.

    Args:
        policy: number of retries and pauses between them.
        random: numbers in [0, 1) for the jitter.
    """

    __slots__ = ("_failures", "_not_before", "_policy", "_random")

    def __init__(self, policy: AlertPolicy, *, random: Callable[[], float]) -> None:
        self._policy = policy
        self._random = random
        self._failures = 0
        self._not_before = float("-inf")

    @property
    def failing(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    @property
    def down(self) -> bool:
        """Whether the destination failed more often in a row than one alert is tried."""
        return self._failures > self._policy.retries

    def answered(self) -> None:
        """The destination accepted, or refused for good: it is there."""
        self._failures = 0

    def failed(self, *, now: float, retry_after: float | None) -> None:
        """A try failed for now; the next one comes after a pause, which the destination may make longer."""
        self._failures += 1
        pause = pause_before_retry(self._policy, self._failures, random=self._random)
        # "Retry-After: 0" is no reason to ask without a pause.
        self._not_before = now + max(pause, retry_after or 0.0)

    def exhausted(self, tries: int) -> bool:
        """Whether an alert that failed so often is given up."""
        return tries > self._policy.retries

    def wait(self, *, now: float) -> float:
        """Seconds until the next try."""
        return max(0.0, self._not_before - now)


def pause_before_retry(policy: AlertPolicy, failures: int, *, random: Callable[[], float]) -> float:
    """Seconds until the next try after ``failures`` failed ones in a row: exponential, half of it by chance."""
    longest = min(policy.backoff_max, policy.backoff * 2.0 ** min(failures - 1, 60))
    # Half of it is certain, so that a destination that is down is not tried at once by chance.
    return longest * (0.5 + random() / 2)
