"""How long a task waits before it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import SystemRandom
from typing import Final

from mks_hardening._core.checks import number
from mks_hardening._core.durations import seconds

__all__ = ["asked_delay", "checked_delay", "retry_delay"]


_BASE: Final = 2.0
_LONGEST: Final = 600.0
# 2.0 ** 1024 raises OverflowError, and a task may be tried a thousand times.
_MOST_DOUBLINGS: Final = 30
_LONGEST_DELAY: Final = 100 * 366 * 86_400.0
"""Seconds: what is to run later than in a hundred years would never run."""
_random: Final = SystemRandom()


def retry_delay(attempt: int, *, draw: Callable[[], float] = _random.random) -> float:
    """Seconds until the next attempt: anything up to 2 s doubled each time, at most 600 s (full jitter).

    Args:
        attempt: how many have failed, from 1.
        draw: gives a number from 0 to 1.
    """
    ceiling = min(_LONGEST, _BASE * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))
    # The whole range and not half of it: tasks that failed together over one outage come back evenly spread
    # (Brooker, Exponential Backoff And Jitter, 2015).
    return ceiling * draw()


def checked_delay(given: float | timedelta, *, parameter: str, minimum: float = 0.0) -> float:
    """Seconds until a task may run.

    Raises:
        ConfigurationError: that is no duration, below the minimum, or longer than a hundred years.
    """
    delay = seconds(given, parameter=parameter, minimum=minimum)
    return number(delay, parameter=parameter, minimum=minimum, maximum=_LONGEST_DELAY)


def asked_delay(after: float | timedelta) -> float:
    """Seconds until a task runs again that has asked for it; a moment that has passed is now.

    Raises:
        ConfigurationError: as of ``checked_delay``.
    """
    return max(0.0, checked_delay(after, parameter="after", minimum=-_LONGEST_DELAY))
