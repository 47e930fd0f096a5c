"""Hits that can be given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mks_hardening._core.operations import Op, arun, run

if TYPE_CHECKING:
    from mks_hardening.security.rate_limits.limit import Decision

__all__ = ["Reservation"]


class Reservation:
    """Hits taken in advance; true when they were allowed. ``cancel`` gives them back.

    To count only failures, reserve before the attempt and cancel after a success. Parallel attempts cannot exceed
    the limit, as they could if failures were counted afterwards.
    """

    __slots__ = ("_give_back", "decision")

    def __init__(self, decision: Decision, give_back: Callable[[], Op[None]] | None) -> None:
        self.decision: Decision = decision
        self._give_back = give_back

    def cancel(self) -> None:
        """Give the hits back; calling it twice, or when none were taken, is safe."""
        # Swapped first: if two threads cancel, the hits are given back once.
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            run(give_back())

    async def acancel(self) -> None:
        """``cancel`` for asyncio."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            await arun(give_back())

    def __bool__(self) -> bool:
        return self.decision.allowed

    def __repr__(self) -> str:
        return f"Reservation({self.decision!r})"
