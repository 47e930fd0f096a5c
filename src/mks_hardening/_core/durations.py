"""Durations passed by users (seconds or ``timedelta``), converted to seconds as floats."""

from __future__ import annotations

from datetime import timedelta
from math import inf, isfinite

from mks_hardening.exceptions import ConfigurationError

__all__ = ["seconds"]


def seconds(
    value: float | timedelta, *, parameter: str, minimum: float = 0.0, allow_zero: bool = True
) -> float:
    """Return the duration in seconds.

    Raises:
        ConfigurationError: not a finite number or ``timedelta``, below ``minimum``, or zero if that is rejected.
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            result = float(value)
        except OverflowError:
            result = inf
    else:
        raise ConfigurationError(
            f"{parameter} must be a number of seconds or a timedelta, not {type(value).__name__}",
            parameter=parameter,
        )
    if not isfinite(result) or result < minimum or (result == 0 and not allow_zero):
        bound = f"at least {minimum:g}" if allow_zero or minimum > 0 else "more than 0"
        raise ConfigurationError(f"{parameter} must be {bound} seconds and finite", parameter=parameter)
    return result
