"""System clock; the only module that reads the machine's clocks."""

from __future__ import annotations

import time as _time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import offers

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["SYSTEM_CLOCK", "SystemClock", "given_clock"]


class SystemClock:
    """The machine's wall clock and monotonic clock, both in seconds."""

    __slots__ = ()

    # Bound directly to the C functions: a reading costs one call, not two.
    time = staticmethod(_time.time)
    monotonic = staticmethod(_time.monotonic)

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        return datetime.fromtimestamp(self.time(), UTC)

    def __repr__(self) -> str:
        return "SystemClock()"


SYSTEM_CLOCK: Final = SystemClock()


def given_clock(clock: Clock | None) -> Clock:
    """Return the given clock, or the system clock for ``None``.

    Raises:
        ConfigurationError: the object is not a clock.
    """
    if clock is None:
        return SYSTEM_CLOCK
    return offers(clock, "time", "monotonic", parameter="clock", kind="a Clock")
