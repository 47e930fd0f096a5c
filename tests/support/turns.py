"""Turns of a paced call, without waiting for them."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from mks_hardening._core.operations import Pause
from mks_hardening.security import RateLimiter

__all__ = ["turn"]


def _at_once(_: Pause) -> None:
    pass


def turn(limiter: RateLimiter, *args: Any, **options: Any) -> float:
    """Reserve a turn, and return the seconds that the call would have to wait."""
    with patch.object(Pause, "run", _at_once):
        return limiter.pace(*args, **options).wait()
