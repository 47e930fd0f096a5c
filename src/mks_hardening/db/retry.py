"""Runs a transaction again when the database says that it lost against another one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from random import SystemRandom
from typing import Final, ParamSpec, TypeVar

from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError

__all__ = ["is_serialization_failure", "retry_on_serialization_failure"]

P = ParamSpec("P")
R = TypeVar("R")

_LOST: Final = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
_SQLITE_BUSY: Final = 5
_MYSQL_LOST: Final = frozenset({1205, 1213})
_random: Final = SystemRandom()


def is_serialization_failure(error: BaseException) -> bool:
    """Whether running the same transaction again can succeed: serialization failure, deadlock, SQLite busy."""
    origin = getattr(error, "orig", None) or error
    state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    busy = getattr(origin, "sqlite_errorcode", 0) & 0xFF == _SQLITE_BUSY
    number = origin.args[0] if getattr(origin, "args", ()) else None
    return state in _LOST or busy or (type(number) is int and number in _MYSQL_LOST)


def retry_on_serialization_failure(
    *,
    attempts: int = 5,
    backoff: float | timedelta = 0.02,
    backoff_max: float | timedelta = 1.0,
    sleep: Callable[[float], object] = time.sleep,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that opens, runs and commits a whole transaction.

    It is called again after a random wait of up to ``backoff`` doubled each time; the last error leaves as it came.
    The function must have no effects outside its transaction.

    Args:
        attempts: calls at most.
        backoff: upper bound of the first wait in seconds.
        backoff_max: upper bound of every wait in seconds.
        sleep: how to wait.

    Raises:
        ConfigurationError: a parameter is impossible.
    """
    if type(attempts) is not int or attempts < 1:
        raise ConfigurationError("attempts must be a whole number of at least 1", parameter="attempts")
    first = seconds(backoff, parameter="backoff")
    longest = seconds(backoff_max, parameter="backoff_max")

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def again(*args: P.args, **kwargs: P.kwargs) -> R:
            for attempt in range(attempts - 1):
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    if not is_serialization_failure(error):
                        raise
                sleep(_random.uniform(0, min(longest, first * 2**attempt)))
            return function(*args, **kwargs)

        return again

    return decorate
