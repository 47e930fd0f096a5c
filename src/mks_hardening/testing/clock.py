"""A clock that is moved by hand."""

from __future__ import annotations

from datetime import UTC, datetime

from mks_hardening._core.checks import number

__all__ = ["FrozenClock"]


class FrozenClock:
    """A clock that stands still until it is moved.

    Args:
        start: wall time at the beginning, in seconds since the epoch or as an aware datetime.
    """

    __slots__ = ("_monotonic", "_wall")

    def __init__(self, start: float | datetime = 1_700_000_000.0) -> None:
        at: object = start.timestamp() if isinstance(start, datetime) else start
        self._wall = number(at, parameter="start", minimum=-1e12)
        self._monotonic = 1_000.0

    def time(self) -> float:
        """Wall time in seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Monotonic time in seconds."""
        return self._monotonic

    def now(self) -> datetime:
        """Wall time as an aware UTC datetime."""
        return datetime.fromtimestamp(self._wall, UTC)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass on both clocks.

        Raises:
            ValueError: they are negative.
        """
        if seconds < 0:
            raise ValueError("time passes forwards; use step_wall for a wall clock that is set back")
        self._wall += seconds
        self._monotonic += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back without time passing, as an operator or NTP does."""
        self._wall += seconds

    def __repr__(self) -> str:
        return f"FrozenClock(time={self._wall}, monotonic={self._monotonic})"
