"""Deadlines of responses by path."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from mks_hardening._core.checks import boolean, instances
from mks_hardening._core.durations import seconds as checked_seconds
from mks_hardening._core.web.paths import PathRules, paths_of_rule, values_of_path
from mks_hardening._edge.refusal_response import RefusalResponse
from mks_hardening.exceptions import ConfigurationError

__all__ = ["RequestTimeoutRule", "RequestTimeoutRules", "ResponseDeadline"]


class ResponseDeadline(NamedTuple):
    """A deadline, what it covers, and the response when it has passed."""

    seconds: float
    whole_response: bool
    refusal: RefusalResponse


class RequestTimeoutRule:
    """The deadline for some paths; the first rule of ``RequestTimeoutMiddleware`` whose paths match decides.

    Args:
        path: one path or several; a trailing slash includes everything below. In another spelling of the path,
            such as ``/x/../reports``, the rule can only shorten the deadline.
        seconds: seconds within which the application must begin its response; ``None`` for no deadline.
        whole_response: whether the response must also end within this time (ASGI only). Server-sent events
            (``text/event-stream``) are exempt.

    Raises:
        ConfigurationError: there is no path, or one does not begin with a slash; ``seconds`` is not positive; or
            ``whole_response`` is not a bool, or is true without ``seconds``.
    """

    __slots__ = ("deadline", "paths")

    def __init__(
        self, path: str | Iterable[str], seconds: float | timedelta | None, *, whole_response: bool = False
    ) -> None:
        self.paths: PathRules = paths_of_rule(path)
        boolean(whole_response, parameter="whole_response")
        if whole_response and seconds is None:
            raise ConfigurationError(
                "whole_response requires seconds; without a deadline there is nothing to end",
                parameter="whole_response",
            )
        self.deadline: ResponseDeadline | None = response_deadline(seconds, whole_response=whole_response)

    def covers(self, path: str) -> bool:
        """Return whether the rule applies to the path, or to another spelling of it."""
        return self.paths.covers(path)


class RequestTimeoutRules:
    """The deadlines of ``RequestTimeoutMiddleware`` by path.

    Args:
        seconds: deadline of all other paths.
        rules: the rules, in order.
        can_cancel: whether the middleware can end a response.

    Raises:
        ConfigurationError: something is not a rule, or has ``whole_response`` although nothing can end a response.
    """

    __slots__ = ("_everywhere", "_rules")

    def __init__(
        self, seconds: float | timedelta | None, rules: Iterable[RequestTimeoutRule], *, can_cancel: bool
    ) -> None:
        self._everywhere = response_deadline(seconds, whole_response=False)
        checked = instances(rules, RequestTimeoutRule, parameter="rules")
        self._rules = [(rule.paths, rule.deadline) for rule in checked]
        if not can_cancel and any(deadline and deadline.whole_response for _, deadline in self._rules):
            raise ConfigurationError(
                "rules: whole_response has no effect under WSGI, where nothing can end a response that has begun; "
                "omit it, and set the timeout of the server",
                parameter="rules",
            )

    def deadline(self, path: str) -> ResponseDeadline | None:
        """Return the deadline of a path, or ``None`` if it has none."""
        found = [each for each in values_of_path(path, self._rules, self._everywhere) if each is not None]
        if len(found) < 2:
            return found[0] if found else None
        shortest = min(found, key=lambda each: each.seconds)
        return shortest._replace(whole_response=any(each.whole_response for each in found))


def response_deadline(seconds: float | timedelta | None, *, whole_response: bool) -> ResponseDeadline | None:
    """Return a deadline; ``None`` without seconds.

    Raises:
        ConfigurationError: ``seconds`` is not positive.
    """
    if seconds is None:
        return None
    limit = checked_seconds(seconds, parameter="seconds", allow_zero=False)
    refusal = RefusalResponse(
        "deadline",
        504,
        f"The application did not respond within {limit:g} seconds.",
        setting="MKS_REQUEST_TIMEOUT",
        limit=limit,
    )
    return ResponseDeadline(limit, whole_response, refusal)
