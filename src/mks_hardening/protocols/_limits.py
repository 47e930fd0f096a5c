"""Limiters, and what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["AsyncLimiter", "LimitDecision", "LimitStatus", "Limiter"]


class LimitStatus(Protocol):
    """One limit inside a decision, for header fields."""

    @property
    def name(self) -> str:
        """Name of the limit, unique in its group."""
        ...

    @property
    def quota(self) -> int:
        """Hits allowed in one window."""
        ...

    @property
    def window(self) -> float:
        """Length of the window in seconds."""
        ...


class LimitDecision(Protocol):
    """The answer of a limiter; true when the hit is allowed."""

    def __bool__(self) -> bool: ...

    @property
    def allowed(self) -> bool:
        """Whether the hit is allowed."""
        ...

    @property
    def limits(self) -> Sequence[LimitStatus]:
        """The limits of the group, in the order given."""
        ...

    @property
    def remaining(self) -> Sequence[int]:
        """Hits left for each limit, in the same order."""
        ...

    @property
    def reset_after(self) -> Sequence[float]:
        """Seconds until each limit is fresh again, in the same order."""
        ...

    @property
    def retry_after(self) -> float | None:
        """Seconds until the same hit would be allowed; ``None`` when it was, or never will be."""
        ...


class Limiter(Protocol):
    """Counts hits against the named limits of a group."""

    def hit(self, group: str, key: str, *, cost: int = 1) -> LimitDecision:
        """Take ``cost`` hits of ``key`` in ``group`` if all limits allow it; otherwise take none."""
        ...


class AsyncLimiter(Protocol):
    """A limiter that can be asked on a running event loop; a plain ``Limiter`` is asked in a thread there."""

    async def ahit(self, group: str, key: str, *, cost: int = 1) -> LimitDecision:
        """``Limiter.hit`` for asyncio, with the same counts."""
        ...
