"""Deadlines of responses by path."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from mks_hardening._core.checks import boolean, instances
from mks_hardening._core.durations import seconds as checked_seconds
from mks_hardening._core.web.paths import PathRules
from mks_hardening._edge.refusal_response import RefusalResponse

__all__ = ["RequestTimeoutRule", "RequestTimeoutRules", "ResponseDeadline"]


class ResponseDeadline(NamedTuple):
    """A deadline, what it covers, and the response when it has passed."""

    seconds: float
    whole_response: bool
    refusal: RefusalResponse


class RequestTimeoutRule:
    """The deadline for some paths; the first rule of ``RequestTimeoutMiddleware`` whose paths match decides.

    Args:
        path: one path or several; a trailing slash includes everything below. Other spellings of the same path
            match as well.
        seconds: seconds within which the application must begin its response; ``None`` for no deadline.
        whole_response: whether the response must also end within this time (ASGI only). Server-sent events
            (``text/event-stream``) are exempt.

    Raises:
        ConfigurationError: a path does not begin with a slash, ``seconds`` is not positive, or ``whole_response``
            is not a bool.
    """

    __slots__ = ("_paths", "deadline")

    def __init__(
        self, path: str | Iterable[str], seconds: float | timedelta | None, *, whole_response: bool = False
    ) -> None:
        self._paths = PathRules((path,) if isinstance(path, str) else path, parameter="path")
        boolean(whole_response, parameter="whole_response")
        self.deadline: ResponseDeadline | None = response_deadline(seconds, whole_response=whole_response)

    def covers(self, path: str) -> bool:
        """Return whether the rule applies to the path."""
        return self._paths.covers(path)


class RequestTimeoutRules:
    """The deadlines of ``RequestTimeoutMiddleware`` by path."""

    __slots__ = ("_everywhere", "_rules")

    def __init__(self, seconds: float | timedelta | None, rules: Iterable[RequestTimeoutRule]) -> None:
        self._everywhere = response_deadline(seconds, whole_response=False)
        self._rules = instances(rules, RequestTimeoutRule, parameter="rules")

    def deadline(self, path: str) -> ResponseDeadline | None:
        """Return the deadline of a path, or ``None`` if it has none."""
        return next((rule.deadline for rule in self._rules if rule.covers(path)), self._everywhere)


def response_deadline(seconds: float | timedelta | None, *, whole_response: bool) -> ResponseDeadline | None:
    """Return a deadline; ``None`` without seconds.

    Raises:
        ConfigurationError: ``seconds`` is not positive.
    """
    if seconds is None:
        return None
    limit = checked_seconds(seconds, parameter="seconds", allow_zero=False)
    refusal = RefusalResponse(
        "deadline", 504, f"The application did not respond within {limit:g} seconds.", limit=limit
    )
    return ResponseDeadline(limit, whole_response, refusal)
