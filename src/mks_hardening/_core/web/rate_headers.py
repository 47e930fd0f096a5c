"""Rate limit header fields of a decision: ``X-RateLimit-*``, the IETF draft fields, ``Retry-After``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import ceil, inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any, AnyStr, Final, Literal, get_args

from mks_hardening._core.checks import choice, shows
from mks_hardening._core.memo import Memo

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision

__all__ = ["HeaderStyle", "exhausted_limits", "missing_fields", "rate_limit_headers", "wait_in_seconds"]

_LARGEST: Final = 999_999_999_999_999
"""Maximum of a structured integer (RFC 9651, 3.3.1)."""
_STRING: Final = re.compile(r"[ -~]*")
_ESCAPED: Final = re.compile(r'["\\]')
_UNFIT: Final = re.compile(rb"[^ !#$&-~]")
_STATE: Final = (
    "ratelimit",
    "ratelimit-policy",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
)
_STATE_NAMES: Final[frozenset[Any]] = frozenset((*_STATE, *(name.encode() for name in _STATE)))
_ADDED_NAMES: Final[frozenset[Any]] = _STATE_NAMES | {"retry-after", b"retry-after"}
_name: Final = itemgetter(0)

HeaderStyle = Literal["x", "ietf", "both"]
_STYLES: Final[tuple[HeaderStyle, ...]] = get_args(HeaderStyle)


def rate_limit_headers(decision: LimitDecision, *, style: HeaderStyle = "both") -> list[tuple[str, str]]:
    """Return header fields that inform a client about its rate limits.

    The ``X-`` fields describe the tightest limit; ``RateLimit-Policy`` and ``RateLimit`` list all of them
    (draft-ietf-httpapi-ratelimit-headers). Seconds are rounded up, so that a client that waits is allowed;
    ``Retry-After`` (RFC 9110, 10.2.3) is sent only on rejections where waiting helps, and is at least 1.

    Raises:
        ConfigurationError: the object is not a decision, or the style is unknown.
    """
    try:
        limits, allowed = decision.limits, decision.allowed
    except AttributeError:
        shows(decision, "allowed", "limits", parameter="decision", kind="a Decision")
        raise
    if style not in _STYLES:
        choice(style, _STYLES, parameter="style")
    headers: list[tuple[str, str]] = []
    rows: list[tuple[str, int, int]] = []
    policies: list[str] = []
    states: list[str] = []
    # Runs on every counted request; one loop, because each comprehension is a call.
    for limit, left, reset in zip(limits, decision.remaining, decision.reset_after, strict=True):
        name, quota, policy = _TEXTS[limit.name, limit.quota, limit.window]
        row = quota, _whole(left), _whole(reset)
        rows.append(row)
        policies.append(policy)
        states.append(f"{name};r={row[1]};t={row[2]}")
    if rows and style != "ietf":
        quota, left, reset = rows[0] if len(rows) == 1 else rows[_tightest(decision)]
        headers += (
            ("X-RateLimit-Limit", quota),
            ("X-RateLimit-Remaining", f"{left}"),
            ("X-RateLimit-Reset", f"{reset}"),
        )
    if rows and style != "x":
        headers += (("RateLimit-Policy", ", ".join(policies)), ("RateLimit", ", ".join(states)))
    if not allowed:
        wait = wait_in_seconds(decision)
        if wait is not None:
            headers.append(("Retry-After", str(wait)))
    return headers


def missing_fields(
    fields: list[tuple[AnyStr, AnyStr]], present: Iterable[tuple[AnyStr, AnyStr]]
) -> list[tuple[AnyStr, AnyStr]]:
    """Return the fields that a response does not set itself; fields of two limits are never mixed.

    Args:
        fields: result of ``rate_limit_headers``, as text, or as bytes with lower-case names, as ASGI has them.
        present: fields of the response.
    """
    left_out = _LEFT_OUT[tuple(map(_name, present))]
    return [field for field in fields if field[0].lower() not in left_out] if left_out else fields


def _tightest(decision: LimitDecision) -> int:
    left, resets = decision.remaining, decision.reset_after
    return min(range(len(left)), key=lambda index: (left[index], -resets[index]))


def wait_in_seconds(decision: LimitDecision) -> int | None:
    """Return when to retry, in whole seconds of at least one; ``None`` if waiting does not help."""
    wait = decision.retry_after
    # A user's limiter may return infinity for never.
    return None if wait is None or not wait < inf else max(1, _whole(wait))


def exhausted_limits(decision: LimitDecision) -> str:
    """Return the exhausted limits of a rejection as text for a log record; all limits if none is exhausted."""
    rows = [*zip(decision.limits, decision.remaining, strict=True)]
    full = [f"{limit.quota} in {limit.window:g} s" for limit, left in rows if left <= 0]
    partly = [f"{left} of {limit.quota} left in {limit.window:g} s" for limit, left in rows]
    return ", ".join(full or partly) or "no limit named"


def _whole(number: float) -> int:
    """Return a number for a header field, rounded up, whatever a user's limiter has computed; NaN gives 0."""
    if 0 <= number <= _LARGEST:
        return ceil(number)
    return _LARGEST if number > 0 else 0


def _quoted(name: str) -> str:
    """Return a name as a structured string (RFC 9651, 3.3.3), whatever a decision built by hand contains.

    With other characters it becomes a display string (3.3.8).
    """
    if _STRING.fullmatch(name):
        return f'"{_ESCAPED.sub(_backslash, name)}"'
    return f'%"{_UNFIT.sub(_percent, name.encode("utf-8", "replace")).decode("ascii")}"'


def _backslash(match: re.Match[str]) -> str:
    return "\\" + match[0]


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02x" % match[0][0]


def _texts(limit: tuple[str, float, float]) -> tuple[str, str, str]:
    """Return the texts of a limit that are the same in every response: name, quota and policy."""
    name, quota, window = _quoted(limit[0]), _whole(limit[1]), _whole(limit[2])
    return name, f"{quota}", f"{name};q={quota};w={window}"


def _left_out(names: tuple[Any, ...]) -> frozenset[Any]:
    own = _ADDED_NAMES.intersection([name.lower() for name in names])
    return own if _STATE_NAMES.isdisjoint(own) else own | _STATE_NAMES


_TEXTS: Final[Memo[tuple[str, float, float], tuple[str, str, str]]] = Memo(_texts)
# Responses repeat, so their names are looked up as a whole.
_LEFT_OUT: Final[Memo[tuple[Any, ...], frozenset[Any]]] = Memo(_left_out, entries=1024, longest=4096)
