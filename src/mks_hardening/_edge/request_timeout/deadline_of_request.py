"""The deadline of one request, which the application may read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from mks_hardening._core.durations import seconds
from mks_hardening._core.web.environ_keys import DEADLINE_KEY
from mks_hardening.exceptions import RequestTimeoutError

__all__ = ["RequestDeadline", "outer_ends_first", "request_deadline"]


class RequestDeadline:
    """How much time the application has left for its response; see ``request_deadline``.

    Attributes:
        seconds: seconds from the beginning of the request to its deadline.
        was_noticed: whether the application has been told that the deadline has passed.
    """

    __slots__ = ("_at", "_monotonic", "seconds", "was_noticed")

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._at = monotonic() + seconds
        self.seconds: float = seconds
        self.was_noticed: bool = False

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; never negative."""
        return max(0.0, self._at - self._monotonic())

    def timeout(self, at_most: float | timedelta | None = None) -> float:
        """Return the seconds that the next call to another service may take.

        Args:
            at_most: maximum seconds for this call; ``None`` for all that is left.

        Raises:
            ConfigurationError: ``at_most`` is not a positive number of seconds.
            RequestTimeoutError: the deadline has passed. Let it pass: the client gets 504.
        """
        limit = None if at_most is None else seconds(at_most, parameter="at_most", allow_zero=False)
        left = self.remaining
        if not left:
            self.was_noticed = True
            raise RequestTimeoutError(self.seconds)
        return left if limit is None else min(left, limit)

    def __repr__(self) -> str:
        return f"RequestDeadline(seconds={self.seconds:g}, remaining={self.remaining:.3f})"


def request_deadline(request: Mapping[str, Any]) -> RequestDeadline | None:
    """Return the deadline that ``RequestTimeoutMiddleware`` has set; ``None`` without one.

    Args:
        request: WSGI environ or ASGI scope.
    """
    return request.get(DEADLINE_KEY)


def outer_ends_first(request: Mapping[str, Any], own: RequestDeadline) -> bool:
    """Return whether an outer middleware has set a deadline that ends no later than this one.

    Args:
        request: WSGI environ or ASGI scope.
        own: deadline of the inner middleware.
    """
    outer = request_deadline(request)
    return outer is not None and outer.remaining <= own.remaining
