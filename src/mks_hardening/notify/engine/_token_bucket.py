"""Rate limit of messages to a destination: a token bucket over a clock."""

from __future__ import annotations

from typing import Final

__all__ = ["TokenBucket"]

# Slack tolerates short bursts before it enforces one message per second.
_BURST: Final = 3


class TokenBucket:
    """Token bucket that allows ``rate`` messages per second after a burst.

    Args:
        rate: messages per second, above 0.
    """

    __slots__ = ("_rate", "_refilled", "_tokens")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = float(_BURST)
        # Minus infinity: the bucket is full at the first call.
        self._refilled = float("-inf")

    def wait(self, *, now: float) -> float:
        """Return the seconds until a message is allowed."""
        self._tokens = min(float(_BURST), self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._rate

    def take(self) -> None:
        """Consume a token; call it after ``wait`` has returned 0."""
        self._tokens -= 1
