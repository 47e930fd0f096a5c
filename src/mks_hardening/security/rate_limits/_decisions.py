"""Turn window counts into decisions and emit the rate limit events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mks_hardening._core import hooks
from mks_hardening.events import RateLimitDecided, RateLimitNear
from mks_hardening.security.rate_limits.limit import Decision, LimitState, build_decision

if TYPE_CHECKING:
    from mks_hardening.exceptions import BackendUnavailableError
    from mks_hardening.security.rate_limits._groups import LimitGroup
    from mks_hardening.security.rate_limits._windows import WindowCount

__all__ = ["decision_of", "decision_of_test", "emit_decision", "exempt_decision", "outage_decision"]

_RETRY_WHEN_CLOSED: Final = 1.0
_NEAR_PERCENT: Final = 80


def decision_of(rules: LimitGroup, count: WindowCount) -> Decision:
    """Build the decision for a counted hit.

    Runs on every hit; it uses lists because generator expressions take twice as long.
    """
    remaining, reset_after, retry_after, taken_at, _ = count
    left, resets = tuple(remaining), tuple([reset / 1e6 for reset in reset_after])
    # A hit must fit every limit of the group, so the longest wait determines when to retry.
    longest = 0 if taken_at else max(retry_after)
    if not longest:
        return build_decision(rules.limits, left, resets, None, ())
    breached = [limit.name for limit, wait in zip(rules.limits, retry_after, strict=True) if wait]
    return build_decision(rules.limits, left, resets, longest / 1e6, tuple(breached))


def decision_of_test(rules: LimitGroup, decision: Decision, cost: int) -> Decision:
    """Return the decision for a hit that was tested but not counted.

    A cost above the smallest quota is always refused, without ``retry_after``: it never fits.
    """
    if cost > rules.smallest_quota:
        breached = tuple(limit.name for limit in rules.limits if cost > limit.quota)
        # No retry_after: a client that obeys Retry-After would retry for ever.
        decision = replace(decision, allowed=False, retry_after=None, breached=breached)
    return emit_decision(rules, decision)


def exempt_decision(rules: LimitGroup) -> Decision:
    """Return the decision for an exempt hit, which is not counted."""
    return Decision.of(LimitState(limit, limit.quota, 0.0) for limit in rules.limits)


def outage_decision(rules: LimitGroup, error: BackendUnavailableError) -> Decision:
    """Return the decision during a storage outage of a group whose policy is ``open`` or ``closed``."""
    if rules.policy == "open":
        return exempt_decision(rules)
    wait = error.retry_after or _RETRY_WHEN_CLOSED
    return Decision.of(LimitState(limit, 0, wait, wait) for limit in rules.limits)


def emit_decision(
    rules: LimitGroup, decision: Decision, source: str = "", *, taken: int = 0, key: str = ""
) -> Decision:
    """Emit the events for a decision and return it; in a dry run, a refusal becomes an allowed hit.

    Args:
        rules: the group.
        decision: the decision as counted.
        source: where it comes from (see ``RateLimitDecided``); empty for a test, which emits no event.
        taken: the cost of the hit, where allowed hits were counted.
        key: the key that was hit.
    """
    if source and hooks.observers:
        hooks.emit(RateLimitDecided(rules.name, decision.allowed, source, rules.dry_run))
        if taken and decision.allowed:
            _emit_near_events(rules, decision, taken, key)
    # After the events: a dry run exists to report what would be refused.
    if rules.dry_run and not decision.allowed:
        return replace(decision, allowed=True, retry_after=None)
    return decision


def _emit_near_events(rules: LimitGroup, decision: Decision, taken: int, key: str) -> None:
    """Emit ``RateLimitNear`` for each limit that this hit has brought across 80 % of its quota."""
    for limit, left in zip(rules.limits, decision.remaining, strict=True):
        used = limit.quota - left
        if 100 * (used - taken) < _NEAR_PERCENT * limit.quota <= 100 * used:
            hooks.emit(RateLimitNear(rules.name, limit.name, used, limit.quota, key))
