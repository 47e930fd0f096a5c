"""Rules that select the requests of a rate limit, and what they have in common for both shells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import instances, offers, strings
from mks_hardening._core.web.paths import PathRules
from mks_hardening._core.web.rate_problem import language_of, rate_limit_problem
from mks_hardening._edge.rate_limits.limit_keys import (
    LimitKey,
    counts_by_header,
    counts_by_user,
    limit_by_address,
)
from mks_hardening._edge.refusal_response import RefusalResponse
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from typing import Any

    from mks_hardening.protocols import LimitDecision, Limiter

__all__ = ["RateLimitRule", "checked_rules", "rate_limit_refusal", "tightest_decision"]

_LONGEST_KEY: Final = 256


class RateLimitRule:
    """Selection of requests that count against a group of limits, and the key they are counted by.

    Args:
        group: name of a group of limits in the limiter.
        limiter: if given, an unknown group is reported here instead of when the middleware is built.
        methods: methods the rule applies to (``GET`` includes ``HEAD``); ``None`` for all.
        path: one path or several; a trailing slash includes everything below; ``None`` for all paths. Other
            spellings of the same path (``//login``, ``/x/../login``, ``/login/``) match as well.
        key: takes the WSGI environ (in ASGI applications the scope) and returns the key to count by, or ``None`` if
            the rule does not apply. A key that is empty or longer than 256 characters is replaced by its digest.
            The default is the client address; see ``limit_by_user``, ``limit_by_header`` and ``limit_by_all`` for
            others. The values of outer middleware are available, under ``"mks_hardening.origin"`` and
            ``"mks_hardening.session"``.

    Raises:
        ConfigurationError: ``group`` is empty or unknown, a path does not begin with a slash, or ``key`` is not
            callable.
    """

    __slots__ = ("_listed", "_methods", "_paths", "group", "key")

    def __init__(
        self,
        group: str,
        *,
        limiter: Limiter | None = None,
        methods: Iterable[str] | None = None,
        path: str | Iterable[str] | None = None,
        key: LimitKey = limit_by_address,
    ) -> None:
        if not isinstance(group, str) or not group:
            raise ConfigurationError("group must be the name of a group of limits", parameter="group")
        if limiter is not None:
            offers(limiter, "hit", parameter="limiter", kind="a Limiter")
            _check_group(group, limiter)
        if not callable(key):
            raise ConfigurationError("key must be callable", parameter="key")
        self.group: str = group
        self.key: LimitKey = key
        self._methods = _methods(methods)
        paths = (path,) if isinstance(path, str) else path
        listed = None if paths is None else strings(paths, parameter="path", of="paths")
        self._listed = None if listed is None else frozenset(listed)
        self._paths = None if listed is None else PathRules(listed, parameter="path")

    def applies(self, method: str, path: str) -> bool:
        """Return whether requests with this method and path count."""
        # Frameworks treat "post" as POST, so a lower-case method must not escape the rule.
        return (self._methods is None or method.upper() in self._methods) and (
            self._paths is None or self._paths.covers(path)
        )

    def key_of(self, request: dict[str, Any], method: str, path: str) -> str | None:
        """Return the key to count the request by, of limited length; ``None`` if the rule does not apply."""
        key = self.key(request) if self.applies(method, path) else None
        return None if key is None else _bounded(key)

    def covers(self, other: RateLimitRule) -> bool:
        """Return whether this rule counts all requests of ``other`` by a key that the client cannot choose."""
        return (
            not counts_by_header(self.key)
            and (self._methods is None or (other._methods is not None and other._methods <= self._methods))
            and (self._listed is None or (other._listed is not None and other._listed <= self._listed))
        )

    def __repr__(self) -> str:
        return f"RateLimitRule({self.group!r})"


def checked_rules(
    rules: Iterable[RateLimitRule], limiter: Limiter, *, has_session_inside: bool
) -> tuple[RateLimitRule, ...]:
    """Return the rules of ``RateLimitMiddleware``.

    Raises:
        ConfigurationError: see ``RateLimitMiddleware``.
    """
    checked = instances(rules, RateLimitRule, parameter="rules")
    if not checked:
        raise ConfigurationError("rules must contain at least one RateLimitRule", parameter="rules")
    for rule in checked:
        _check_group(rule.group, limiter)
        if has_session_inside and counts_by_user(rule.key):
            raise ConfigurationError(
                f"the rule for {rule.group!r} counts by limit_by_user, but runs outside of the session, "
                "where no user is known: use the limit decorator on your views, or your own key function",
                parameter="rules",
            )
        if counts_by_header(rule.key) and not any(other.covers(rule) for other in checked):
            raise ConfigurationError(
                f"the rule for {rule.group!r} counts by limit_by_header, and a client that sends a new value each "
                "time is never refused: add a rule with limit_by_address for the same requests, or set "
                "limit_by_header(..., verified=True) if a proxy or middleware outside checks the header",
                parameter="rules",
            )
    return checked


def rate_limit_refusal(decision: LimitDecision, accept_language: str) -> RefusalResponse:
    """Return the 429 response to a rejection, in the language that the client prefers."""
    language = language_of(accept_language)
    document = rate_limit_problem(decision, language=language)
    members = {name: value for name, value in document.items() if name not in ("status", "detail")}
    return RefusalResponse("limit", 429, str(document["detail"]), (), language=language, **members)


def tightest_decision(decisions: Sequence[LimitDecision]) -> LimitDecision:
    """Return the decision with the fewest hits left."""
    return decisions[0] if len(decisions) == 1 else min(decisions, key=_fewest_remaining)


def _check_group(group: str, limiter: Limiter) -> None:
    """Check that the limiter has the group; a custom limiter need not list its ``groups``."""
    groups: Collection[str] | None = getattr(limiter, "groups", None)
    if groups is not None and group not in groups:
        raise ConfigurationError(
            f"group {group!r} is unknown to the limiter; it has {', '.join(sorted(groups))}",
            parameter="group",
        )


def _bounded(key: str) -> str:
    """Return a key that every limiter accepts; clients control its text, which may be empty or very long."""
    if 0 < len(key) <= _LONGEST_KEY:
        return key
    return "digest:" + sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _fewest_remaining(decision: LimitDecision) -> int:
    return min(decision.remaining, default=0)


def _methods(methods: Iterable[str] | None) -> frozenset[str] | None:
    if methods is None:
        return None
    listed = {method.upper() for method in strings(methods, parameter="methods", of="methods")}
    # HEAD runs the same code as GET, so it costs the same.
    return frozenset(listed | {"HEAD"} if "GET" in listed else listed)
