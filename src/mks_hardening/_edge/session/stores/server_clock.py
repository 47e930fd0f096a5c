"""Clock of the Redis server, shared by all web servers regardless of their own clocks."""

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
    """Wall time of the Redis server, continued by this machine's monotonic clock between two synchronizations.

    It lags by the time the response took, at most the store budget; the lag is the same for all hosts with the same
    latency. Before the first synchronization it returns this machine's wall time.

    Args:
        machine: clock of this machine.
    """

    __slots__ = ("_due", "_machine", "_offset")

    def __init__(self, machine: Clock = SYSTEM_CLOCK) -> None:
        self._machine = machine
        self._offset: float | None = None
        self._due = -inf

    def time(self) -> float:
        """Return the seconds since 1970-01-01 UTC by the server's clock."""
        return self._machine.time() if self._offset is None else self.monotonic() + self._offset

    def monotonic(self) -> float:
        """Return the seconds of this machine's monotonic clock."""
        return self._machine.monotonic()

    @property
    def is_set(self) -> bool:
        """Whether the server has responded at least once."""
        return self._offset is not None

    def is_due(self) -> bool:
        """Return whether the last synchronization was more than a minute ago."""
        return self.monotonic() >= self._due

    def learn(self, answer: Sequence[bytes]) -> None:
        """Synchronize with a response to the command TIME: seconds and microseconds."""
        now = self.monotonic()
        self._offset = int(answer[0]) + int(answer[1]) / 1e6 - now
        self._due = now + _SYNC_EVERY
