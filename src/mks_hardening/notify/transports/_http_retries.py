"""Retries of webhook requests: which responses allow a retry, and the requested pause (RFC 9110, 10.2.3)."""

from __future__ import annotations

from datetime import UTC
from typing import Final

__all__ = ["RETRY_AFTER_CAP", "is_retryable_status", "retry_after_seconds"]

# Besides 5xx: the same request may succeed later (RFC 9110, 15.5.9; RFC 8470; RFC 6585).
_TRY_AGAIN: Final = frozenset({408, 425, 429})

# A destination may request a pause, but not an unlimited one.
RETRY_AFTER_CAP: Final = 300.0


def is_retryable_status(status: int) -> bool:
    """Return whether a response with this status is only temporary."""
    return status >= 500 or status in _TRY_AGAIN


def retry_after_seconds(value: str | None, *, now: float) -> float | None:
    """Return the pause that a ``Retry-After`` field requests, at most 300 s; ``None`` if it is invalid.

    Args:
        value: delay in seconds or an HTTP date.
        now: wall time in seconds since the epoch.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        # Nine digits are 31 years; int() of a field with a million digits would take minutes.
        return min(float(text[:9]), RETRY_AFTER_CAP)
    moment = _http_date(text)
    return None if moment is None else min(max(0.0, moment - now), RETRY_AFTER_CAP)


def _http_date(text: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text[:64])
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
