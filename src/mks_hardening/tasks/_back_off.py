"""Delays before a task is retried."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import SystemRandom
from typing import Final

from mks_hardening._core.checks import number
from mks_hardening._core.durations import seconds

__all__ = ["checked_delay", "requested_delay", "retry_delay"]


_BASE: Final = 2.0
_LONGEST: Final = 600.0
# 2.0 ** 1024 raises OverflowError, and a task may have a thousand attempts.
_MOST_DOUBLINGS: Final = 30
_LONGEST_DELAY: Final = 100 * 366 * 86_400.0
"""Limit in seconds: a task that is delayed by more than a hundred years would never run."""
_random: Final = SystemRandom()


def retry_delay(attempt: int, *, draw: Callable[[], float] = _random.random) -> float:
    """Return the seconds until the next attempt: random up to 2 s, doubled each time, at most 600 s (full jitter).

    Args:
        attempt: number of failed attempts, from 1.
        draw: returns a random number from 0 to 1.
    """
    ceiling = min(_LONGEST, _BASE * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))
    # Full jitter instead of half: tasks that failed together in one outage are retried evenly spread
    # (Brooker, Exponential Backoff And Jitter, 2015).
    return ceiling * draw()


def checked_delay(given: float | timedelta, *, parameter: str, minimum: float = 0.0) -> float:
    """Convert a delay to seconds.

    Raises:
        ConfigurationError: it is not a duration, below the minimum, or longer than a hundred years.
    """
    delay = seconds(given, parameter=parameter, minimum=minimum)
    return number(delay, parameter=parameter, minimum=minimum, maximum=_LONGEST_DELAY)


def requested_delay(after: float | timedelta) -> float:
    """Convert the delay that a task requested for its next run to seconds; a negative one means now.

    Raises:
        ConfigurationError: as for ``checked_delay``.
    """
    return max(0.0, checked_delay(after, parameter="after", minimum=-_LONGEST_DELAY))
