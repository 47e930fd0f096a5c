"""Limits and what a limiter answers, as plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError

__all__ = ["DEFAULT_RATE_LIMITS", "Decision", "Limit", "LimitState", "Strategy"]

Strategy = Literal["auto", "exact-window", "sliding-window", "fixed-window", "gcra"]

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0

_NAMES: Final = {1.0: "second", MINUTE: "minute", HOUR: "hour", DAY: "day"}


class Limit(NamedTuple):
    """So many hits in so many seconds.

    Attributes:
        name: unique in its group; it appears in response headers.
        quota: hits allowed in one window.
        window: length of the window in seconds.
    """

    name: str
    quota: int
    window: float


class LimitState(NamedTuple):
    """Where one limit stands after a decision.

    Attributes:
        limit: which.
        remaining: hits left.
        reset_after: seconds until the full quota is there again.
        retry_after: seconds until the refused hit would fit; 0 when it fits.
    """

    limit: Limit
    remaining: int
    reset_after: float
    retry_after: float = 0.0


class Decision(NamedTuple):
    """The answer of a limiter; true when the hit is allowed.

    Attributes:
        allowed: whether it is.
        limits: the limits of the group, in the order given.
        remaining: hits left for each.
        reset_after: seconds until each has its full quota again.
        retry_after: seconds until the same hit would be allowed; ``None`` when it was.
        breached: names of the limits that refused it; in a dry run also when it was allowed.
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
        """The decision over a group: allowed if every limit has room, and as late as the last of them."""
        rows = tuple(states)
        late = [row for row in rows if row.retry_after > 0]
        return cls(
            not late,
            tuple(row.limit for row in rows),
            tuple(row.remaining for row in rows),
            tuple(row.reset_after for row in rows),
            max(row.retry_after for row in late) if late else None,
            tuple(row.limit.name for row in late),
        )


def checked_limit(quota: int, window: float, *, name: str = "") -> Limit:
    """A limit whose values are possible; named after its window when no name is given.

    Raises:
        ConfigurationError: quota or window out of range, or a name that a header field cannot hold.
    """
    if type(quota) is not int or not 1 <= quota <= 1_000_000:
        raise ConfigurationError("quota must be an integer from 1 to 1000000", parameter="quota")
    length = seconds(window, parameter="window", allow_zero=False)
    if not 0.001 <= length <= 366 * DAY:
        raise ConfigurationError("window must be from 0.001 seconds to 366 days", parameter="window")
    chosen = name or _NAMES.get(length) or f"{length:g}s"
    if not (chosen.isascii() and chosen.isprintable()) or set(chosen) & set('"\\'):
        raise ConfigurationError(
            "name must be printable ASCII without quotes and backslashes", parameter="name"
        )
    return Limit(chosen, quota, length)


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
