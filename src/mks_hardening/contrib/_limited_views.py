"""Rate limits of views, for all frameworks: keys, counting, and the fields of responses and log records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

from mks_hardening._core import hooks
from mks_hardening._core.checks import function, strings, whole_number
from mks_hardening._core.origin.proxy_trust import client_key, request_origin
from mks_hardening._core.request_hits import hits_of_request
from mks_hardening._core.web.environ_keys import REFUSAL_KEY, SESSION_KEY
from mks_hardening._core.web.rate_headers import exhausted_limits, missing_fields, rate_limit_headers
from mks_hardening.events import RequestRefused
from mks_hardening.exceptions import (
    BackendUnavailableError,
    ConcurrencyExceededError,
    ConfigurationError,
    PaceTimeoutError,
)
from mks_hardening.wsgi import Refusal
from mks_hardening.wsgi._refusal_response import shown

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision, Limiter

__all__ = [
    "BUSY",
    "TOO_MANY",
    "UNAVAILABLE",
    "Key",
    "check_group",
    "check_limit",
    "client_of",
    "count",
    "groups_of",
    "key_text",
    "limit_fields",
    "mark_groups",
    "retry_after_busy",
    "retry_after_outage",
    "user_of",
    "user_or_client",
]

TOO_MANY: Final = "Too many requests. Wait for the time given in Retry-After."
UNAVAILABLE: Final = "A part of this service is away. Please try again."
BUSY: Final = "As much is under way as may be at once. Please try again."
_DECISIONS: Final = "mks_hardening.limit_decisions"

Environ = dict[str, Any]
Key: TypeAlias = "str | int | float | UUID"
"""Result of the ``key`` function of a limit, usually the id of a row."""
_GROUPS: Final = "__mks_limits__"


def retry_after_busy(error: ConcurrencyExceededError | PaceTimeoutError) -> int:
    """Return seconds for ``Retry-After`` of a busy server, as opposed to a client's limit (RFC 9110, 15.6.4)."""
    if isinstance(error, PaceTimeoutError):
        return max(1, ceil(error.wait - error.timeout))
    return max(1, ceil(error.retry_after or 1))


def retry_after_outage(environ: Environ, error: BackendUnavailableError) -> int:
    """Store the outage for the request log; returns seconds for ``Retry-After``."""
    environ[REFUSAL_KEY] = Refusal(
        wrapper="application", rule="backend", status=503, detail=UNAVAILABLE, seen=shown(str(error))
    )
    return max(1, round(error.retry_after or 2))


def mark_groups(view: Callable[..., object], *groups: str) -> None:
    """Store the groups that limit a view on the view; ``functools.wraps`` copies them to wrappers."""
    setattr(view, _GROUPS, groups)


def groups_of(view: object) -> tuple[str, ...]:
    """Return the groups that ``mark_groups`` has stored."""
    return tuple(getattr(view, _GROUPS, ()))


def user_or_client(environ: Environ, *, user: str | None = None) -> str:
    """Return the key of a request: the signed-in user, else the client address (IPv6: its /64 network).

    Args:
        environ: WSGI environ of the request.
        user: the signed-in user, if the framework knows better than our session.
    """
    if user is None:
        user = getattr(environ.get(SESSION_KEY), "user_id", None)
    return client_of(request_origin(environ).client_ip) if user is None else user_of(user)


def user_of(user: str) -> str:
    """Return the key of a user."""
    return f"user:{user}"


def client_of(address: str) -> str:
    """Return the key of a client address."""
    return f"client:{client_key(address)}"


def key_text(whom: object) -> str:
    """Convert the result of ``key`` for the limiter; 7 and "7" are the same key.

    Raises:
        ConfigurationError: the result has another type, which is known only during a request.
    """
    if not isinstance(whom, str | int | float | UUID):
        raise ConfigurationError(
            f"key must return a text, a number, a UUID or None, not {type(whom).__name__}", parameter="key"
        )
    return str(whom)


def check_limit(
    *,
    key: Callable[..., Key | None] | None,
    cost: int,
    methods: Iterable[str] | None,
    exempt: Callable[..., bool] | None,
) -> frozenset[str] | None:
    """Validate the arguments of a limit that would otherwise fail at the first request.

    Returns:
        The methods that count, in upper case; ``None`` for all.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    for name, called in (("key", key), ("exempt", exempt)):
        if called is not None:
            function(called, parameter=name)
    whole_number(cost, parameter="cost", minimum=0)
    if methods is None:
        return None
    return frozenset(method.upper() for method in strings(methods, parameter="methods", of="methods"))


def check_group(limiter: Limiter, group: str, *, view: str, mend: str) -> None:
    """Check that the group of a limited view is defined.

    Args:
        limiter: the limiter; not checked if it has no ``limit`` method.
        group: name of the group.
        view: name of the view, for the error message.
        mend: code that defines the group, for the error message.

    Raises:
        ConfigurationError: the group is unknown.
    """
    check = getattr(limiter, "limit", None)
    if check is None:
        return
    try:
        check(group, key=str)
    except ConfigurationError as error:
        raise ConfigurationError(f"{view}: {error}; define it by {mend}", parameter="group") from None


def count(limiter: Limiter, environ: Environ, group: str, key: str, *, cost: int = 1) -> LimitDecision:
    """Count a hit and note the decision for the response and, on a refusal, for the request log and the observers.

    All limits of one request are counted together, in any order: a refusal gives back the hits counted so far.
    """
    decision = hits_of_request(environ).take(limiter, group, key, cost=cost)
    environ.setdefault(_DECISIONS, []).append(decision)
    if not decision.allowed:
        environ[REFUSAL_KEY] = Refusal(
            wrapper="rate_limit",
            rule=group,
            status=429,
            detail=TOO_MANY,
            seen=exhausted_limits(decision),
            headers=tuple(rate_limit_headers(decision)),
        )
        if hooks.observers:
            hooks.emit(RequestRefused("rate_limit", group, request_origin(environ).client_ip))
    return decision


def limit_fields(environ: Environ, status: int, present: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the header fields of the tightest limit that the request was counted against; empty if there is none.

    Args:
        environ: WSGI environ of the request.
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
