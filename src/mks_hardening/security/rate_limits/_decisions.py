"""Turn window counts into decisions and emit the rate limit events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from mks_hardening._core import hooks
from mks_hardening.events import RateLimitDecided, RateLimitNear
from mks_hardening.security.rate_limits._windows import WindowCount
from mks_hardening.security.rate_limits.limit import Decision

if TYPE_CHECKING:
    from mks_hardening.exceptions import BackendUnavailableError
    from mks_hardening.security.rate_limits._groups import LimitGroup
    from mks_hardening.security.rate_limits.limit import Limit

__all__ = ["decide", "exempt_count", "outage_count"]

_RETRY_WHEN_CLOSED: Final = 1.0
_NEAR_PERCENT: Final = 80


def decide(rules: LimitGroup, key: str, cost: int, count: WindowCount) -> Decision:
    """Build the decision for a hit and emit its events; in a dry run, a refusal becomes an allowed hit.

    Runs on every hit; it uses lists because generator expressions take twice as long.
    """
    remaining, reset_after, retry_after, taken_at, _, _, source = count
    left, resets = tuple(remaining), tuple([reset / 1e6 for reset in reset_after])
    # A hit must fit every limit of the group, so the longest wait determines when to retry.
    longest = 0 if taken_at else max(retry_after)
    if not longest:
        decision = build_decision(rules.limits, left, resets, None, ())
    else:
        breached = [limit.name for limit, wait in zip(rules.limits, retry_after, strict=True) if wait]
        decision = build_decision(rules.limits, left, resets, longest / 1e6, tuple(breached))
    if source:
        if hooks.observers:
            hooks.emit(RateLimitDecided(rules.name, decision.allowed, source, rules.dry_run))
            if taken_at is not None:
                _emit_near_events(rules, decision, cost, key)
    elif cost > rules.smallest_quota:
        # No retry_after: a client that obeys Retry-After would retry for ever.
        never = tuple(limit.name for limit in rules.limits if cost > limit.quota)
        decision = replace(decision, allowed=False, retry_after=None, breached=never)
    # After the events: a dry run exists to report what would be refused.
    if rules.dry_run and not decision.allowed:
        return replace(decision, allowed=True, retry_after=None)
    return decision


def exempt_count(rules: LimitGroup, source: str) -> WindowCount:
    """Return the result of a hit that is allowed without being counted."""
    nothing = [0] * len(rules.limits)
    return WindowCount([limit.quota for limit in rules.limits], nothing, nothing, source=source)


def outage_count(rules: LimitGroup, error: BackendUnavailableError) -> WindowCount:
    """Return the result of a hit during a storage outage, in a group whose policy is ``open`` or ``closed``."""
    if rules.policy == "open":
        return exempt_count(rules, "open")
    waits = [max(1, round((error.retry_after or _RETRY_WHEN_CLOSED) * 1e6))] * len(rules.limits)
    return WindowCount([0] * len(rules.limits), waits, waits, source="closed")


def _emit_near_events(rules: LimitGroup, decision: Decision, taken: int, key: str) -> None:
    """Emit ``RateLimitNear`` for each limit that this hit has brought across 80 % of its quota."""
    for limit, left in zip(rules.limits, decision.remaining, strict=True):
        used = limit.quota - left
        if 100 * (used - taken) < _NEAR_PERCENT * limit.quota <= 100 * used:
            hooks.emit(RateLimitNear(rules.name, limit.name, used, limit.quota, key))


class _MutableDecision:
    """A mutable object with the fields of ``Decision``, used to build one."""

    __slots__ = ("allowed", "breached", "limits", "remaining", "reset_after", "retry_after")


def build_decision(
    limits: tuple[Limit, ...],
    remaining: tuple[int, ...],
    reset_after: tuple[float, ...],
    retry_after: float | None,
    breached: tuple[str, ...],
) -> Decision:
    """Build a decision, which is allowed when ``retry_after`` is ``None``.

    Runs on every hit: the constructor of a frozen dataclass takes longer than all the counting.
    """
    made: Any = _MutableDecision()
    made.allowed = retry_after is None
    made.limits = limits
    made.remaining = remaining
    made.reset_after = reset_after
    made.retry_after = retry_after
    made.breached = breached
    # Python permits this because both classes have the same slots; the object is frozen from here on.
    made.__class__ = Decision
    return cast(Decision, made)
