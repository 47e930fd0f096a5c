"""Limits and the decisions of a limiter, as plain values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

__all__ = ["DEFAULT_RATE_LIMITS", "Decision", "Limit", "LimitState"]

Strategy = Literal["auto", "exact-window", "sliding-window", "fixed-window", "gcra"]

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0


class Limit(NamedTuple):
    """A number of hits allowed in a window of time.

    Attributes:
        name: unique in its group; it appears in response headers.
        quota: hits allowed in one window.
        window: length of the window in seconds.
    """

    name: str
    quota: int
    window: float


class LimitState(NamedTuple):
    """The state of one limit after a decision.

    Attributes:
        limit: the limit.
        remaining: hits left.
        reset_after: seconds until the full quota is available again.
        retry_after: seconds until the refused hit would fit; 0 when it fits.
    """

    limit: Limit
    remaining: int
    reset_after: float
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision of a limiter on a hit; true when the hit is allowed.

    Attributes:
        allowed: whether the hit is allowed.
        limits: the limits of the group, in the given order.
        remaining: hits left for each limit.
        reset_after: seconds until each limit has its full quota again.
        retry_after: seconds until the same hit would be allowed; ``None`` when it was allowed, and when it never
            will be because it costs more than a quota.
        breached: names of the limits that refused the hit; in a dry run also when it was allowed.
    """

    allowed: bool
    limits: tuple[Limit, ...]
    remaining: tuple[int, ...]
    reset_after: tuple[float, ...]
    retry_after: float | None = None
    breached: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.allowed

    @classmethod
    def of(cls, states: Iterable[LimitState]) -> Decision:
        """Combine the states of a group's limits: the hit is allowed if it fits every limit."""
        rows = tuple(states)
        late = [row for row in rows if row.retry_after > 0]
        return cls(
            allowed=not late,
            limits=tuple(row.limit for row in rows),
            remaining=tuple(row.remaining for row in rows),
            reset_after=tuple(row.reset_after for row in rows),
            retry_after=max(row.retry_after for row in late) if late else None,
            breached=tuple(row.limit.name for row in late),
        )


def _group(**quotas: int) -> tuple[Limit, ...]:
    windows = {"minute": MINUTE, "hour": HOUR, "day": DAY}
    return tuple(Limit(name, quota, windows[name]) for name, quota in quotas.items())


DEFAULT_RATE_LIMITS: Final[dict[str, tuple[Limit, ...]]] = {
    "auth_login": _group(minute=5, hour=20, day=100),
    "auth_register": _group(hour=3, day=10),
    "auth_password_reset": _group(hour=3),
    "auth_2fa_verify": _group(minute=10, hour=50),
    "search": _group(minute=30, hour=500),
    "api_read": _group(minute=100, hour=5000),
    "api_write": _group(minute=20, hour=200),
    "api_delete": _group(minute=10, hour=100),
    "admin": _group(minute=200),
    "file_upload": _group(minute=5, hour=50),
}
"""Groups that most applications need: sign-in, reading, writing and so on. Use the client address as the key."""
