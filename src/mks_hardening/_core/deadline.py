"""How much time one request may spend on servers outside the process, all calls together.

A budget counts the time spent *inside* such calls, not the age of the request: a page that computes for two
seconds still has its whole budget, and ten slow calls do not have ten budgets.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.protocols import Clock

__all__ = ["Budget", "current_budget", "request_budget", "start_request_budget"]


class Budget:
    """Seconds left for calls that leave the process.

    Args:
        seconds: what all calls together may take.
        clock: monotonic clock.
    """

    __slots__ = ("_clock", "_left")

    def __init__(self, seconds: float, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._left = seconds
        self._clock = clock

    @property
    def remaining(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self._left)

    def spend(self, seconds: float) -> None:
        """Take time off the budget."""
        self._left -= seconds

    @contextmanager
    def spending(self) -> Generator[None]:
        """Take off the time that the ``with`` block needs."""
        start = self._clock.monotonic()
        try:
            yield
        finally:
            self._left -= self._clock.monotonic() - start

    def __repr__(self) -> str:
        return f"Budget(remaining={self.remaining:.3f})"


_budget: Final[ContextVar[Budget | None]] = ContextVar("mks_hardening.budget", default=None)


def current_budget() -> Budget | None:
    """The budget of the request at hand, or ``None`` outside a request."""
    return _budget.get()


def start_request_budget(seconds: float, *, clock: Clock = SYSTEM_CLOCK) -> Budget:
    """Give all calls from here on, in this context, one budget together; it ends with the context."""
    budget = Budget(seconds, clock=clock)
    _budget.set(budget)
    return budget


@contextmanager
def request_budget(seconds: float, *, clock: Clock = SYSTEM_CLOCK) -> Generator[Budget]:
    """Give the calls inside the ``with`` block one budget together."""
    before = _budget.get()
    try:
        yield start_request_budget(seconds, clock=clock)
    finally:
        _budget.set(before)
