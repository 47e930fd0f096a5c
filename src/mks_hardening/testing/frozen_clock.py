"""A clock that is advanced manually."""

from __future__ import annotations

from datetime import UTC, datetime

from mks_hardening._core.checks import number

__all__ = ["FrozenClock"]


class FrozenClock:
    """Clock that stands still until it is advanced.

    Args:
        start: initial wall time, in seconds since the epoch or as an aware datetime.
    """

    __slots__ = ("_monotonic", "_wall")

    def __init__(self, start: float | datetime = 1_700_000_000.0) -> None:
        at: object = start.timestamp() if isinstance(start, datetime) else start
        self._wall = number(at, parameter="start", minimum=-1e12)
        self._monotonic = 1_000.0

    def time(self) -> float:
        """Return the wall time in seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""
        return self._monotonic

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        return datetime.fromtimestamp(self._wall, UTC)

    def advance(self, seconds: float) -> None:
        """Advance both clocks by ``seconds``.

        Raises:
            ValueError: the number is negative.
        """
        if seconds < 0:
            raise ValueError("time cannot go back; use step_wall to set the wall clock back")
        self._wall += seconds
        self._monotonic += seconds

    def step_wall(self, seconds: float) -> None:
        """Adjust the wall clock forward or back without time passing, as an operator or NTP does."""
        self._wall += seconds

    def __repr__(self) -> str:
        return f"FrozenClock(time={self._wall}, monotonic={self._monotonic})"
