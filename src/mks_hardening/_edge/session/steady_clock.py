"""A wall clock that never steps back within a process."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import call_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from mks_hardening.protocols import Clock, SessionStore

__all__ = ["SteadyClock", "clock_of", "settle"]

# Rounding of large floats, and a wall clock that is being adjusted while it is read, are not steps.
_NOISE: Final = 0.001


class SteadyClock:
    """Clock that follows the wall clock forwards; if that is set back, it continues by the monotonic clock.

    Processes and hosts share the wall clock, so sessions are stamped with it. But a wall clock that is set back
    would extend every session by the same amount.
    """

    __slots__ = ("_monotonic", "_offset", "_wall")

    def __init__(self, clock: Clock) -> None:
        self._wall = clock.time
        self._monotonic = clock.monotonic
        # The clock of a server is unknown before its first response; this machine's may be ahead of it.
        known: bool = getattr(clock, "is_set", True)
        self._offset = self._wall() - self._monotonic() if known else -inf

    def time(self) -> float:
        """Return the seconds since the epoch, which never decrease."""
        return self.read()[0]

    def read(self) -> tuple[float, float]:
        """Return the seconds since the epoch, which never decrease, and the reading of the monotonic clock."""
        read_wall, read_monotonic = self._wall, self._monotonic  # calling an attribute takes twice as long
        # In this order: an interruption in between makes the offset smaller, never larger.
        wall = read_wall()
        monotonic = read_monotonic()
        offset = wall - monotonic
        if offset > self._offset:
            self._offset = offset
        elif offset < self._offset - _NOISE:
            wall = monotonic + self._offset
        return wall, monotonic


def clock_of(store: SessionStore, clock: Clock | None) -> Clock:
    """Return the given clock; by default that of the store, which all its users share, else the system clock."""
    if clock is not None:
        return given_clock(clock)
    own: Clock | None = getattr(store, "clock", None)
    return own if own is not None else SYSTEM_CLOCK


def settle(store: SessionStore) -> Op[None]:
    """Let a store with its own clock synchronize it, before a time is taken from it without a look-up."""
    own: Callable[[], None] | None = getattr(store, "settle", None)
    if own is not None:
        yield from call_store(own)
