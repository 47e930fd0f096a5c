"""Rules that select the requests of a rate limit, and what they have in common for both shells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from hashlib import sha256
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import function, instances, offers, strings, whole_number
from mks_hardening._core.function_errors import call_predicate, log_function_error
from mks_hardening._core.operations import require_sync_result
from mks_hardening._core.response_costs import LimitedResponse
from mks_hardening._core.web.paths import paths_of_rule
from mks_hardening._core.web.rate_problem import language_of, rate_limit_problem
from mks_hardening._core.web.request_header import request_header
from mks_hardening._edge.cors.cors_policy import is_preflight
from mks_hardening._edge.rate_limits.group_choice import GroupChoice, checked_group
from mks_hardening._edge.rate_limits.limit_keys import (
    LimitKey,
    counts_by_header,
    counts_by_user,
    limit_by_address,
)
from mks_hardening._edge.refusal_response import RefusalResponse
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening._core.response_costs import FinalCost
    from mks_hardening.exceptions import BackendUnavailableError
    from mks_hardening.protocols import LimitDecision, Limiter

__all__ = [
    "COUNTED",
    "RateLimitRule",
    "check_reserves",
    "checked_key",
    "checked_methods",
    "checked_rules",
    "counts_method",
    "limiter_refusal",
    "rate_limit_refusal",
    "tightest_decision",
]

COUNTED: Final = "the request is counted"
_BY_ADDRESS: Final = "requests are counted by client address"
_LONGEST_KEY: Final = 256
_SETTINGS: Final = "MKS_RATE_LIMITS, MKS_LIMIT_EXEMPT_PATHS"
_NOT_COUNTED: Final = "Requests cannot be counted at the moment. Please try again."
_RETRY_AFTER: Final = 2.0


class RateLimitRule:
    """Selection of requests that count against a group of limits, and the key they are counted by.

    Args:
        group: name of a group of limits in the limiter, or a ``GroupChoice`` that takes the same as ``key``.
        limiter: if given, an unknown group is reported here instead of when the middleware is built.
        methods: methods the rule applies to (``GET`` includes ``HEAD``); ``None`` for all. Preflights of CORS count
            only if ``OPTIONS`` is listed.
        path: one path or several; a trailing slash includes everything below; ``None`` for all paths. Other
            spellings of the same path (``//login``, ``/x/../login``, ``/login/``) match as well.
        key: takes the WSGI environ (in ASGI applications the scope) and returns the key to count by, or ``None`` if
            the rule does not apply. A key that is empty or longer than 256 characters is replaced by its digest; a
            number or UUID counts as its text. If the function raises an error or returns anything else, the request
            is counted by client address, and the error is logged, at most once a minute.
            The default is the client address; see ``limit_by_user``, ``limit_by_header`` and ``limit_by_all`` for
            others. The values of outer middleware are available, under ``"mks_hardening.origin"`` and
            ``"mks_hardening.session"``.
        exempt: takes the same, and returns whether the request is not counted. A request for which it raises an
            error is counted.
        cost: hits that a request counts as.
        final_cost: takes the same and a ``LimitedResponse`` when the response has ended, and returns the number of
            hits that the request counts as in the end, or ``True`` for ``cost`` and ``False`` for 0. Until then
            ``cost`` hits are reserved, so that a request is refused if the limit has been reached, and parallel
            requests together cannot exceed it by more than what each costs above ``cost``. If a request costs more
            than is left, what is left is counted. ``cost`` remains if the application raises an error or the client
            leaves before the response begins, and if the function raises an error.

    Raises:
        ConfigurationError: ``group`` is empty or unknown, a path does not begin with a slash, ``path`` or
            ``methods`` is empty, ``cost`` is not a whole number, or 0 with ``final_cost``; or a function is not
            callable or is asynchronous.
    """

    __slots__ = (
        "_applies_to_all",
        "_exempt",
        "_final_cost",
        "_listed",
        "_methods",
        "_paths",
        "choice",
        "cost",
        "group",
        "is_plain",
        "key",
    )

    def __init__(
        self,
        group: str | GroupChoice,
        *,
        limiter: Limiter | None = None,
        methods: Iterable[str] | None = None,
        path: str | Iterable[str] | None = None,
        key: LimitKey = limit_by_address,
        exempt: Callable[[dict[str, Any]], bool] | None = None,
        cost: int = 1,
        final_cost: Callable[[dict[str, Any], LimitedResponse], int | bool] | None = None,
    ) -> None:
        self.group: str
        self.choice: GroupChoice | None
        self.group, self.choice = checked_group(
            group, message="group must be the name of a group of limits, or a GroupChoice"
        )
        if limiter is not None:
            offers(limiter, "hit", parameter="limiter", kind="a Limiter")
            for name in self.groups:
                _check_group(name, limiter)
        self.key: LimitKey = function(key, parameter="key")
        self._methods = checked_methods(methods)
        paths = (path,) if isinstance(path, str) else path
        listed = None if paths is None else strings(paths, parameter="path", of="paths")
        self._listed = None if listed is None else frozenset(listed)
        self._paths = None if listed is None else paths_of_rule(listed)
        self._applies_to_all = self._methods is None and self._paths is None
        self._exempt = None if exempt is None else function(exempt, parameter="exempt")
        self._final_cost = None if final_cost is None else function(final_cost, parameter="final_cost")
        self.cost: int = whole_number(cost, parameter="cost", minimum=0 if final_cost is None else 1)
        self.is_plain: bool = self.choice is None and self._final_cost is None and self.cost == 1

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that requests may count against: one, or those of the ``GroupChoice``."""
        return (self.group,) if self.choice is None else self.choice.groups

    def applies(self, method: str, path: str) -> bool:
        """Return whether requests with this method and path count."""
        # Frameworks treat "post" as POST, so a lower-case method must not escape the rule.
        return (self._methods is None or method.upper() in self._methods) and (
            self._paths is None or self._paths.covers(path)
        )

    def key_of(self, request: dict[str, Any], method: str, path: str) -> str | None:
        """Return the key to count the request by, of limited length; ``None`` if the rule does not apply."""
        if not (self._applies_to_all or self.applies(method, path)):
            return None
        if method == "OPTIONS" and not counts_method(self._methods, method, request):
            return None
        if self._exempt is not None and call_predicate(
            self._exempt, request, parameter="exempt", otherwise=COUNTED
        ):
            return None
        return checked_key(self.key, request, request, default=limit_by_address, otherwise=_BY_ADDRESS)

    @property
    def has_final_cost(self) -> bool:
        """Whether the cost of a request is decided when its response has ended."""
        return self._final_cost is not None

    def final_cost_of(self, request: dict[str, Any]) -> FinalCost | None:
        """Return the function that decides what the request costs in the end, if there is one."""
        return None if self._final_cost is None else partial(self._final_cost, request)

    def covers(self, other: RateLimitRule) -> bool:
        """Return whether this rule counts all requests of ``other`` by a key that the client cannot choose."""
        return (
            not counts_by_header(self.key)
            and self._exempt is None
            and self._final_cost is None
            and self.cost > 0
            and self._covers_methods(other._methods)
            and (self._listed is None or (other._listed is not None and other._listed <= self._listed))
        )

    def _covers_methods(self, others: frozenset[str] | None) -> bool:
        if self._methods is None:
            return others is None or "OPTIONS" not in others  # which would include preflights
        return others is not None and others <= self._methods

    def check_limiter(self, limiter: Limiter, *, is_sync: bool) -> None:
        """Check that the rule works with a limiter and a kind of application.

        Raises:
            ConfigurationError: the limiter does not have a group, or cannot give hits back for ``final_cost``; or
                the ``GroupChoice`` of a WSGI application is asynchronous.
        """
        for name in self.groups:
            _check_group(name, limiter)
        if self._final_cost is not None:
            check_reserves(limiter)
        if is_sync and self.choice is not None and self.choice.is_async:
            raise ConfigurationError(
                f"the GroupChoice of the rule for {self.group!r} is async def, but this is a WSGI application: "
                "give it a plain function",
                parameter="rules",
            )

    def __repr__(self) -> str:
        return f"RateLimitRule({self.group!r})"


def checked_rules(
    rules: Iterable[RateLimitRule], limiter: Limiter, *, has_session_inside: bool, is_sync: bool
) -> tuple[RateLimitRule, ...]:
    """Return the rules of ``RateLimitMiddleware``.

    Raises:
        ConfigurationError: see ``RateLimitMiddleware``.
    """
    checked = instances(rules, RateLimitRule, parameter="rules")
    if not checked:
        raise ConfigurationError("rules must contain at least one RateLimitRule", parameter="rules")
    for rule in checked:
        rule.check_limiter(limiter, is_sync=is_sync)
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
    return RefusalResponse(
        "limit", 429, str(document["detail"]), (), language=language, setting=_SETTINGS, **members
    )


def limiter_refusal(error: BackendUnavailableError) -> RefusalResponse:
    """Return the 503 response to a request that the limiter could not count."""
    wait = str(max(1, ceil(error.retry_after or _RETRY_AFTER)))
    return RefusalResponse("limiter", 503, _NOT_COUNTED, [("Retry-After", wait)])


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


def checked_key(
    key: Callable[..., object], environ: dict[str, Any], *request: object, default: LimitKey, otherwise: str
) -> str | None:
    """Return the key that a function of the application chooses, of limited length; ``None`` to not count.

    Args:
        key: the function.
        environ: environ or scope of the request.
        request: what the function takes.
        default: chooses the key if the function raises an error or returns something that is no key.
        otherwise: what ``default`` does, for the log.
    """
    error: Exception | None = None
    try:
        chosen = key(*request)
        if isinstance(chosen, str):
            return _bounded(chosen)
        if chosen is None:
            return None
        from uuid import UUID  # not at module level: it is slow to import, and most keys are texts

        if isinstance(require_sync_result(chosen), int | float | UUID):
            return str(chosen)  # 7 and "7" are the same key
    except Exception as raised:  # noqa: BLE001 - the request is counted all the same
        error = raised
    log_function_error(key, error, parameter="key", otherwise=otherwise)
    return default(environ)


def check_reserves(limiter: object) -> None:
    """Check that a limiter can give hits back, as ``final_cost`` requires.

    Raises:
        ConfigurationError: it cannot.
    """
    if not hasattr(limiter, "reserve"):
        raise ConfigurationError(
            "final_cost requires a limiter with the method reserve, such as RateLimiter", parameter="limiter"
        )


def counts_method(methods: frozenset[str] | None, method: str, request: dict[str, Any]) -> bool:
    """Return whether a request counts by its method.

    Args:
        methods: result of ``checked_methods``.
        method: method of the request.
        request: environ or scope of the request.
    """
    method = method.upper()
    if methods is not None:
        return method in methods
    # Browsers send preflights by themselves; counted, they would halve the quota of pages of other origins.
    return method != "OPTIONS" or not is_preflight(
        method, request_header(request, "Origin"), request_header(request, "Access-Control-Request-Method")
    )


def checked_methods(methods: Iterable[str] | None) -> frozenset[str] | None:
    """Return the methods in capitals, with ``HEAD`` if ``GET`` is listed; ``None`` for all.

    Raises:
        ConfigurationError: they are not a collection of texts, or there is none.
    """
    if methods is None:
        return None
    listed = {method.upper() for method in strings(methods, parameter="methods", of="methods")}
    if not listed:
        raise ConfigurationError(
            "methods must contain at least one method; omit it for all methods", parameter="methods"
        )
    # HEAD runs the same code as GET, so it costs the same.
    return frozenset(listed | {"HEAD"} if "GET" in listed else listed)
