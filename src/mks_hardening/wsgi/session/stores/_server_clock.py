"""The clock of the Redis server, which all web servers share whatever their own clocks say."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["ServerClock"]

_SYNC_EVERY: Final = 60.0


class ServerClock:
    """Wall time of the server, carried on by this machine's monotonic clock between two readings.

    A reading is late by what its answer took to come, so at most by the store budget; the same for all hosts that
    are equally far away. Until the first one it is this machine's wall clock.

    Args:
        machine: this machine's clocks.
    """

    __slots__ = ("_due", "_machine", "_offset")

    def __init__(self, machine: Clock = SYSTEM_CLOCK) -> None:
        self._machine = machine
        self._offset: float | None = None
        self._due = -inf

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC, as the server reads it."""
        return self._machine.time() if self._offset is None else self.monotonic() + self._offset

    def monotonic(self) -> float:
        """Seconds of this machine, which never step back."""
        return self._machine.monotonic()

    @property
    def is_set(self) -> bool:
        """Whether the server has ever answered."""
        return self._offset is not None

    def is_due(self) -> bool:
        """Whether the server has not been asked for a minute."""
        return self.monotonic() >= self._due

    def learn(self, answer: Sequence[bytes]) -> None:
        """Take what the command TIME has answered: seconds and microseconds."""
        now = self.monotonic()
        self._offset = int(answer[0]) + int(answer[1]) / 1e6 - now
        self._due = now + _SYNC_EVERY
