"""How many messages a destination is sent: a token bucket over a clock."""

from __future__ import annotations

from typing import Final

__all__ = ["TokenBucket"]

# Slack tolerates short bursts before it insists on one message a second.
_BURST: Final = 3


class TokenBucket:
    """Allows ``rate`` messages a second after a burst.

    Args:
        rate: messages a second, above 0.
    """

    __slots__ = ("_rate", "_refilled", "_tokens")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = float(_BURST)
        # From the beginning of time: the bucket is full at the first look.
        self._refilled = float("-inf")

    def wait(self, *, now: float) -> float:
        """Seconds until a message is allowed."""
        self._tokens = min(float(_BURST), self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._rate

    def take(self) -> None:
        """Count a message; asked for after ``wait`` allowed it."""
        self._tokens -= 1
