"""How much time one request, or one operation outside a request, may spend on servers, all calls together.

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

__all__ = [
    "LIMITS_BUDGET",
    "STORE_BUDGET",
    "Budget",
    "current_budget",
    "enter_operation",
    "leave_operation",
    "outside_budget",
    "request_budget",
    "start_request_budget",
]

STORE_BUDGET: Final = 0.1
"""Seconds that one operation of a store may take, where nothing else is said."""
LIMITS_BUDGET: Final = 0.04
"""The same for limits, which can go on without an answer and are asked before everything else."""


class Budget:
    """Seconds left for calls that leave the process.

    Calls side by side (threads or tasks of one request) cost the time that passes, not the sum of their times.

    Args:
        seconds: what all calls together may take.
        clock: monotonic clock.
        of_operation: whether it belongs to one operation of ours, so that the caller's own functions are not in it.
    """

    __slots__ = ("_clock", "_left", "_lost", "_running", "_since", "of_operation")

    def __init__(self, seconds: float, *, clock: Clock = SYSTEM_CLOCK, of_operation: bool = False) -> None:
        self._left = seconds
        self.of_operation = of_operation
        self._clock = clock
        # A set and no counter: adding and removing are one step each, so that threads need no lock here, which a
        # fork could leave held.
        self._running: set[object] = set()
        self._since = 0.0
        self._lost: float | None = None

    @property
    def remaining(self) -> float:
        """Seconds left; never negative."""
        return self.left(self._clock.monotonic())

    def left(self, now: float, *, lost: float | None = None) -> float:
        """Seconds left at a time, while perhaps some calls are under way; never negative.

        Args:
            now: the time.
            lost: what the counter of the event loop says (``LoopTime.lost``), where there is one.
        """
        return max(0.0, self._left - (self._elapsed(now, lost) if self._running else 0.0))

    def begin(self, call: object, now: float, *, lost: float | None = None) -> None:
        """A call begins; times as for ``left``."""
        if not self._running:
            self._since = now
            self._lost = lost
        self._running.add(call)

    def end(self, call: object, now: float, *, lost: float | None = None) -> None:
        """A call ends; times as for ``left``."""
        self._running.discard(call)
        if not self._running:
            self._left -= self._elapsed(now, lost)
            self._since = now

    def _elapsed(self, now: float, lost: float | None) -> float:
        away = 0.0 if lost is None or self._lost is None else lost - self._lost
        return max(0.0, now - self._since - max(0.0, away))

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


def enter_operation(seconds: float) -> bool:
    """Give one operation a budget of its own, unless what is around it has one; whether it did."""
    if _budget.get() is not None:
        return False
    _budget.set(Budget(seconds, of_operation=True))
    return True


def leave_operation(*, entered: bool) -> None:
    """End what ``enter_operation`` began."""
    if entered:
        _budget.set(None)


@contextmanager
def outside_budget() -> Generator[None]:
    """Spend nobody's budget inside the ``with`` block: the caller's own function, or work in the background."""
    before = _budget.get()
    _budget.set(None)
    try:
        yield
    finally:
        _budget.set(before)
