"""How long a task waits before it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom
from typing import Final

__all__ = ["retry_delay"]

_BASE: Final = 2.0
_LONGEST: Final = 600.0
# 2.0 ** 1024 raises OverflowError, and a task may be tried a thousand times.
_MOST_DOUBLINGS: Final = 30
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
