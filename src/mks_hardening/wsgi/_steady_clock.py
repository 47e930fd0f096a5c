"""Wall time that never steps back within a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["SteadyClock", "shared_clock"]

# Rounding of large floats, and a wall clock that is disciplined while it is read, are no steps.
_NOISE: Final = 0.001


class SteadyClock:
    """Follows the wall clock forwards; when that is set back, goes on by the monotonic clock.

    Processes and hosts share the wall clock, so sessions are stamped with it; but a wall clock that is set back
    would hand every session the time it was set back by.
    """

    __slots__ = ("_monotonic", "_offset", "_wall")

    def __init__(self, clock: Clock) -> None:
        self._wall = clock.time
        self._monotonic = clock.monotonic
        self._offset = self._wall() - self._monotonic()

    def time(self) -> float:
        """Seconds since the epoch; never less than before."""
        return self.read()[0]

    def read(self) -> tuple[float, float]:
        """Seconds since the epoch, never less than before, and the reading of the monotonic clock."""
        # In this order: being interrupted in between makes the offset look smaller, never larger.
        wall = self._wall()
        monotonic = self._monotonic()
        offset = wall - monotonic
        if offset > self._offset:
            self._offset = offset
        elif offset < self._offset - _NOISE:
            wall = monotonic + self._offset
        return wall, monotonic


def shared_clock(store: Any, clock: Clock | None) -> Clock:
    """The clock of all that use one store: the one given, else the store's, else the system's.

    A clock that is given to the first user of a store is lent to it, because a wrapper and a manager that read
    different times would disagree about which sessions live.
    """
    lent: Clock | None = getattr(store, "clock", None)
    if clock is not None and lent is None and hasattr(store, "clock"):
        store.clock = clock
    return clock or lent or SYSTEM_CLOCK
