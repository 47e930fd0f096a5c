"""Protocols for rate limiters and their decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["AsyncLimiter", "LimitDecision", "LimitStatus", "Limiter"]


class LimitStatus(Protocol):
    """One limit within a decision, for header fields."""

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
    """Decision of a limiter; true if the hit is allowed."""

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
        """Seconds until each limit is fully available again, in the same order."""
        ...

    @property
    def retry_after(self) -> float | None:
        """Seconds until the same hit would be allowed; ``None`` if it was allowed, or never will be."""
        ...


class Limiter(Protocol):
    """Counts hits against the limits of a group; a request for which it raises an error is refused with 503."""

    def hit(self, group: str, key: str, *, cost: int = 1) -> LimitDecision:
        """Record ``cost`` hits of ``key`` in ``group`` if all limits allow it; otherwise record none."""
        ...


class AsyncLimiter(Protocol):
    """Limiter with asynchronous methods; a plain ``Limiter`` is called in a worker thread instead."""

    async def ahit(self, group: str, key: str, *, cost: int = 1) -> LimitDecision:
        """Asynchronous ``Limiter.hit``, with the same counters."""
        ...
