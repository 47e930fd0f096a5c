"""Time budget: how long all backend calls of a request, or of one operation outside a request, may take together.

A budget counts the time spent *inside* such calls, not the age of the request: a page that computes for two
seconds still has its whole budget, and ten slow calls share one budget.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
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
    "restore_budget",
    "start_request_budget",
]

STORE_BUDGET: Final = 0.1
"""Default budget of one store operation, in seconds."""
LIMITS_BUDGET: Final = 0.04
"""Default budget of a limit check, in seconds; limits run before everything else and can do without a response."""


class Budget:
    """Seconds left for calls that leave the process.

    Concurrent calls (threads or tasks of one request) cost the elapsed time, not the sum of their durations.

    Args:
        seconds: total for all calls.
        clock: monotonic clock.
        of_operation: whether it belongs to a single library operation, so that functions of the caller are not
            charged to it.
    """

    __slots__ = ("_clock", "_left", "_lost", "_running", "_since", "of_operation")

    def __init__(self, seconds: float, *, clock: Clock = SYSTEM_CLOCK, of_operation: bool = False) -> None:
        self._left = seconds
        self.of_operation = of_operation
        self._clock = clock
        # A set rather than a counter: adding and removing are atomic, so no lock is needed, which a fork could
        # leave held.
        self._running: set[object] = set()
        self._since = 0.0
        self._lost: float | None = None

    @property
    def remaining(self) -> float:
        """Seconds left; never negative."""
        return self.left(self._clock.monotonic())

    def left(self, now: float, *, lost: float | None = None) -> float:
        """Return the seconds left at ``now``, including the time of calls in flight; never negative.

        Args:
            now: monotonic time.
            lost: reading of the event loop's counter (``LoopTime.lost``), if there is one.
        """
        return max(0.0, self._left - (self._elapsed(now, lost) if self._running else 0.0))

    def begin(self, call: object, now: float, *, lost: float | None = None) -> None:
        """Record the start of a call; times as for ``left``."""
        if not self._running:
            self._since = now
            self._lost = lost
        self._running.add(call)

    def end(self, call: object, now: float, *, lost: float | None = None) -> None:
        """Record the end of a call; times as for ``left``."""
        self._running.discard(call)
        if not self._running:
            self._left -= self._elapsed(now, lost)
            self._since = now

    def _elapsed(self, now: float, lost: float | None) -> float:
        elsewhere = 0.0 if lost is None or self._lost is None else lost - self._lost
        return max(0.0, now - self._since - max(0.0, elsewhere))

    def __repr__(self) -> str:
        return f"Budget(remaining={self.remaining:.3f})"


_budget: Final[ContextVar[Budget | None]] = ContextVar("mks_hardening.budget", default=None)

current_budget: Final[Callable[[], Budget | None]] = _budget.get
"""Return the budget of the current request, or ``None`` outside a request; called for every backend call."""


def start_request_budget(seconds: float, *, clock: Clock = SYSTEM_CLOCK) -> Budget:
    """Set one shared budget for all further calls in this context; it ends with the context."""
    budget = Budget(seconds, clock=clock)
    _budget.set(budget)
    return budget


def restore_budget(before: Budget | None) -> None:
    """Set the budget that was current before ``start_request_budget``, where its context does not end with it."""
    _budget.set(before)


@contextmanager
def request_budget(seconds: float, *, clock: Clock = SYSTEM_CLOCK) -> Generator[Budget]:
    """Set one shared budget for the calls inside the ``with`` block."""
    before = _budget.get()
    try:
        yield start_request_budget(seconds, clock=clock)
    finally:
        _budget.set(before)


def enter_operation(seconds: float) -> bool:
    """Give one operation its own budget unless the context already has one; return whether it was set."""
    if _budget.get() is not None:
        return False
    _budget.set(Budget(seconds, of_operation=True))
    return True


def leave_operation() -> None:
    """Remove the budget that ``enter_operation`` set."""
    _budget.set(None)


@contextmanager
def outside_budget() -> Generator[None]:
    """Charge no budget inside the ``with`` block: for functions of the caller and background work."""
    before = _budget.get()
    _budget.set(None)
    try:
        yield
    finally:
        _budget.set(before)
