"""Rate limits of views, for all frameworks: keys, counting, and the fields of responses and log records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from mks_hardening import compose
from mks_hardening._core import hooks
from mks_hardening._core.checks import function, whole_number
from mks_hardening._core.function_errors import call_predicate
from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.origin.proxy_trust import client_key
from mks_hardening._core.request_hits import hits_of_request
from mks_hardening._core.web.environ_keys import REFUSAL_KEY, SESSION_KEY
from mks_hardening._core.web.rate_headers import exhausted_limits, missing_fields, rate_limit_headers
from mks_hardening._core.web.rate_problem import TOO_MANY
from mks_hardening._edge.rate_limits.group_choice import GroupChoice, checked_group
from mks_hardening._edge.rate_limits.rate_limit_rule import (
    COUNTED,
    check_reserves,
    checked_key,
    checked_methods,
    counts_method,
)
from mks_hardening._edge.refusal_response import printable_excerpt
from mks_hardening.events import RequestRefused
from mks_hardening.exceptions import (
    BackendUnavailableError,
    ConcurrencyExceededError,
    ConfigurationError,
    PaceTimeoutError,
    RateLimitExceededError,
)
from mks_hardening.security import DEFAULT_RATE_LIMITS
from mks_hardening.wsgi import Refusal

if TYPE_CHECKING:
    from mks_hardening._core.response_costs import FinalCost
    from mks_hardening.protocols import LimitDecision, Limiter
    from mks_hardening.settings import HardeningSettings

__all__ = [
    "OUTAGES_AND_LIMITS",
    "TOO_MANY",
    "Groups",
    "Key",
    "OutageOrLimit",
    "Problem",
    "ViewLimit",
    "check_group",
    "client_of",
    "count",
    "groups_of",
    "is_exempt",
    "limit_fields",
    "limiter_of",
    "mark_exempt",
    "mark_groups",
    "note_decision",
    "problem_of",
    "retry_after_outage",
    "share_decisions",
    "user_of",
]

UNAVAILABLE: Final = "Part of this service is unavailable. Please try again."
BUSY: Final = "Too many requests are being processed at once. Please try again."
_BY_USER: Final = "requests are counted by user or client address"
_DECISIONS: Final = "mks_hardening.limit_decisions"

OUTAGES_AND_LIMITS: Final = (
    BackendUnavailableError,
    RateLimitExceededError,
    ConcurrencyExceededError,
    PaceTimeoutError,
)
"""Errors for which ``problem_of`` has a response."""
OutageOrLimit: TypeAlias = (
    BackendUnavailableError | RateLimitExceededError | ConcurrencyExceededError | PaceTimeoutError
)

Environ = dict[str, Any]
Groups: TypeAlias = Mapping[str, Any]
"""Limits by group name, as for ``RateLimiter``."""
Key: TypeAlias = "str | int | float | UUID"
"""Result of the ``key`` function of a limit, usually the id of a row."""
_GROUPS: Final = "__mks_limits__"
_EXEMPT: Final = "__mks_exempt__"


class Problem(NamedTuple):
    """A refusal or an error as the parts of a response."""

    status: int
    detail: str
    fields: list[tuple[str, str]]


def problem_of(
    environ: Environ,
    error: OutageOrLimit,
) -> Problem:
    """Return the response to an outage or a limit in a view; an outage is noted for the request log."""
    if isinstance(error, RateLimitExceededError):
        return Problem(429, TOO_MANY, rate_limit_headers(error.decision))
    if isinstance(error, BackendUnavailableError):
        return Problem(503, UNAVAILABLE, [("Retry-After", str(retry_after_outage(environ, error)))])
    # The server is busy, as opposed to a limit of the client (RFC 9110, 15.6.4).
    wait = error.wait - error.timeout if isinstance(error, PaceTimeoutError) else error.retry_after or 1
    return Problem(503, BUSY, [("Retry-After", str(max(1, ceil(wait))))])


def retry_after_outage(environ: Environ, error: BackendUnavailableError) -> int:
    """Store the outage for the request log; returns seconds for ``Retry-After``."""
    environ[REFUSAL_KEY] = Refusal(
        wrapper="application",
        rule="backend",
        status=503,
        detail=UNAVAILABLE,
        seen=printable_excerpt(str(error)),
    )
    return max(1, round(error.retry_after or 2))


def limiter_of(settings: HardeningSettings, limiter: Limiter | None, groups: Groups | None) -> Limiter:
    """Return the application's limiter, or one with the default limits and those of ``groups``.

    Raises:
        ConfigurationError: both are given, or a limit is invalid.
    """
    if limiter is None:
        return compose.rate_limiter(settings, {**DEFAULT_RATE_LIMITS, **(groups or {})})
    if groups is not None:
        raise ConfigurationError(
            "give groups or limiter, not both: a limiter has its own groups", parameter="groups"
        )
    return limiter


def mark_groups(view: Callable[..., object], *groups: str) -> None:
    """Store the groups that limit a view on the view; ``functools.wraps`` copies them to wrappers."""
    setattr(view, _GROUPS, groups)


def groups_of(view: object) -> tuple[str, ...]:
    """Return the groups that ``mark_groups`` has stored."""
    return tuple(getattr(view, _GROUPS, ()))


def mark_exempt(view: object) -> None:
    """Mark a view, or a part of an application, as exempt from the limits around it."""
    setattr(view, _EXEMPT, True)


def is_exempt(view: object) -> bool:
    """Return whether ``mark_exempt`` has marked it, or the view that it wraps."""
    return bool(getattr(view, _EXEMPT, False))


def _user_or_client(environ: Environ) -> str:
    """Return the key of a request: the signed-in user, else the client address (IPv6: its /64 network)."""
    user: str | None = getattr(environ.get(SESSION_KEY), "user_id", None)
    return client_of(request_origin(environ).client_ip) if user is None else user_of(user)


def user_of(user: str) -> str:
    """Return the key of a user."""
    return f"user:{user}"


def client_of(address: str) -> str:
    """Return the key of a client address."""
    return f"client:{client_key(address)}"


class ViewLimit:
    """Limit of a view by one group: which requests count, and by which key.

    Args:
        limiter: takes the environ or scope of a request that counts; returns the limiter.
        group: group of the limiter, or a ``GroupChoice`` that takes the same as ``key``.
        key: takes what the framework passes, and returns the key to count by, or ``None`` to not count the request.
            The default, also if it raises an error or returns anything else, is the signed-in user, else the
            client address.
        cost: hits that one request counts as.
        methods: methods that count, ``GET`` including ``HEAD``; by default all except preflights of CORS.
        exempt: takes the same; returns whether the request is not counted. A request for which it raises an error
            is counted.
        final_cost: takes the same and a ``LimitedResponse`` when the response has ended; returns the number of hits
            that the request counts as in the end. See ``RateLimitRule``.
        is_sync: whether a ``GroupChoice`` must not be asynchronous.

    Attributes:
        groups: the groups that requests may count against.

    Raises:
        ConfigurationError: ``group`` is not a name, or another argument would fail at the first request.
    """

    def __init__(
        self,
        limiter: Callable[[Environ], Limiter],
        group: str | GroupChoice,
        *,
        key: Callable[..., Key | None] | None,
        cost: int,
        methods: Iterable[str] | None,
        exempt: Callable[..., bool] | None,
        final_cost: Callable[..., int | bool] | None,
        is_sync: bool = False,
    ) -> None:
        self._limiter = limiter
        self._group, self._choice = checked_group(
            group, message='group must be the name of a group: @limit("auth_login")'
        )
        self.groups: tuple[str, ...] = (self._group,) if self._choice is None else self._choice.groups
        if is_sync:
            self.check_sync()
        self._key = None if key is None else function(key, parameter="key")
        self._exempt = None if exempt is None else function(exempt, parameter="exempt")
        self._final_cost = None if final_cost is None else function(final_cost, parameter="final_cost")
        self._cost = whole_number(cost, parameter="cost", minimum=0 if final_cost is None else 1)
        self._methods = checked_methods(methods)

    def check_sync(self) -> None:
        """Check that the limit can be used on a view that is not asynchronous.

        Raises:
            ConfigurationError: its ``GroupChoice`` is asynchronous.
        """
        if self._choice is not None and self._choice.is_async:
            raise ConfigurationError(
                f"the GroupChoice with the fallback {self._group!r} is async def, but the view is not: give it a "
                "plain function",
                parameter="group",
            )

    def count_request(self, environ: Environ, *request: object) -> LimitDecision | None:
        """Count a request; return the decision if it is refused."""
        key = self._counted_key(environ, request)
        if key is None:
            return None
        group = self._group if self._choice is None else self._choice.choose_group(*request)
        limiter = self._limiter(environ)
        final_cost = self._final_cost_of(limiter, request)
        decision = count(limiter, environ, group, key, cost=self._cost, final_cost=final_cost)
        return None if decision.allowed else decision

    async def acount_request(self, scope: Environ, *request: object) -> LimitDecision | None:
        """``count_request`` for asyncio; a WebSocket counts as a GET."""
        key = self._counted_key(scope, request)
        if key is None:
            return None
        group = self._group if self._choice is None else await self._choice.achoose_group(*request)
        limiter = self._limiter(scope)
        decision = await hits_of_request(scope).ahit(
            limiter, group, key, cost=self._cost, final_cost=self._final_cost_of(limiter, request)
        )
        note_decision(scope, group, decision)
        return None if decision.allowed else decision

    def _final_cost_of(self, limiter: Limiter, request: tuple[object, ...]) -> FinalCost | None:
        if self._final_cost is None:
            return None
        check_reserves(limiter)
        return partial(self._final_cost, *request)

    def _counted_key(self, environ: Environ, request: tuple[object, ...]) -> str | None:
        """Return the key to count a request by, or ``None`` if it is not counted."""
        method: str = environ.get("REQUEST_METHOD") or environ.get("method", "GET")
        if not counts_method(self._methods, method, environ):
            return None
        if self._exempt is not None and call_predicate(
            self._exempt, *request, parameter="exempt", otherwise=COUNTED
        ):
            return None
        if self._key is None:
            return _user_or_client(environ)
        return checked_key(self._key, environ, *request, default=_user_or_client, otherwise=_BY_USER)


def check_group(limiter: Limiter, group: str, *, view: str, fix: str) -> None:
    """Check that the group of a limited view is defined.

    Args:
        limiter: the limiter; not checked if it has no ``limit`` method.
        group: name of the group.
        view: name of the view, for the error message.
        fix: code that defines the group, for the error message.

    Raises:
        ConfigurationError: the group is unknown.
    """
    check = getattr(limiter, "limit", None)
    if check is None:
        return
    try:
        check(group, key=str)
    except ConfigurationError as error:
        raise ConfigurationError(f"{view}: {error}; define it with {fix}", parameter="group") from None


def count(
    limiter: Limiter,
    environ: Environ,
    group: str,
    key: str,
    *,
    cost: int = 1,
    final_cost: FinalCost | None = None,
) -> LimitDecision:
    """Count a hit and note the decision for the response and, on a refusal, for the request log and the observers.

    All limits of one request are counted together, in any order: a refusal gives back the hits counted so far.
    """
    decision = hits_of_request(environ).hit(limiter, group, key, cost=cost, final_cost=final_cost)
    note_decision(environ, group, decision)
    return decision


def share_decisions(scope: Environ) -> None:
    """Prepare a scope so that hits counted in a framework's copies of it are found here too."""
    hits_of_request(scope)
    scope.setdefault(_DECISIONS, [])


def note_decision(environ: Environ, group: str, decision: LimitDecision) -> None:
    """Note a decision for the fields of the response and, on a refusal, for the request log and the observers."""
    environ.setdefault(_DECISIONS, []).append(decision)
    if not decision.allowed:
        environ[REFUSAL_KEY] = Refusal(
            wrapper="rate_limit",
            rule=group,
            status=429,
            detail=TOO_MANY,
            seen=exhausted_limits(decision),
            headers=tuple(rate_limit_headers(decision)),
            setting="MKS_RATE_LIMITS",
        )
        if hooks.observers:
            hooks.emit(RequestRefused("rate_limit", group, request_origin(environ).client_ip))


def limit_fields(environ: Environ, status: int, present: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the header fields of the tightest limit that the request was counted against; empty if there is none.

    Args:
        environ: WSGI environ or ASGI scope of the request.
        status: status code of the response. If it is 429 and none of these limits refused the request, another
            limit did, and the result is empty.
        present: fields that the response already has, which are kept.
    """
    decisions: list[LimitDecision] | None = environ.get(_DECISIONS)
    if not decisions or (status == 429 and all(decision.allowed for decision in decisions)):
        return []
    # Only the limit that the client will reach first (draft-ietf-httpapi-ratelimit-headers).
    tightest = min(decisions, key=lambda decision: (decision.allowed, min(decision.remaining, default=0)))
    return missing_fields(rate_limit_headers(tightest), present)
