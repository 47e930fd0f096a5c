"""Turns of a paced call, told without waiting for them."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from mks_hardening._core.operations import Pause
from mks_hardening.security import RateLimiter

__all__ = ["turn"]


def _at_once(_: Pause) -> None:
    pass


def turn(limiter: RateLimiter, *args: Any, **options: Any) -> float:
    """Seconds that a call would have to wait; its turn is reserved as if it had."""
    with patch.object(Pause, "run", _at_once):
        return limiter.pace(*args, **options).wait()
