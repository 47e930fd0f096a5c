"""From what was counted to what the limiter answers, and who is told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mks_hardening._core import hooks
from mks_hardening.events import RateLimitDecided, RateLimitNear
from mks_hardening.security.rate_limits.limit import Decision, LimitState, decided

if TYPE_CHECKING:
    from mks_hardening.exceptions import BackendUnavailableError
    from mks_hardening.security.rate_limits._groups import LimitGroup
    from mks_hardening.security.rate_limits._windows import WindowCount

__all__ = ["affordable", "decision_of", "exempted", "judged", "outage_decision"]

_RETRY_WHEN_CLOSED: Final = 1.0
_NEAR_PERCENT: Final = 80


def decision_of(rules: LimitGroup, count: WindowCount) -> Decision:
    """On the path of every hit: lists, because generators cost twice as much."""
    remaining, reset_after, retry_after, taken_at, _ = count
    left, resets = tuple(remaining), tuple([reset / 1e6 for reset in reset_after])
    # All limits have to have room, so the one that takes longest says when to come back.
    longest = 0 if taken_at else max(retry_after)
    if not longest:
        return decided(rules.limits, left, resets, None, ())
    breached = [limit.name for limit, wait in zip(rules.limits, retry_after, strict=True) if wait]
    return decided(rules.limits, left, resets, longest / 1e6, tuple(breached))


def affordable(rules: LimitGroup, decision: Decision, cost: int) -> Decision:
    """A hit that was only looked at; one that costs more than a quota never fits, however long one waits."""
    if cost > rules.smallest_quota:
        breached = tuple(limit.name for limit in rules.limits if cost > limit.quota)
        # No time to come back: a client that obeys Retry-After would ask for ever.
        decision = replace(decision, allowed=False, retry_after=None, breached=breached)
    return judged(rules, decision)


def exempted(rules: LimitGroup) -> Decision:
    """A hit that is not counted."""
    return Decision.of(LimitState(limit, limit.quota, 0.0) for limit in rules.limits)


def outage_decision(rules: LimitGroup, error: BackendUnavailableError) -> Decision:
    """What a group says while its storage is away and it does not count in the process."""
    if rules.policy == "open":
        return exempted(rules)
    wait = error.retry_after or _RETRY_WHEN_CLOSED
    return Decision.of(LimitState(limit, 0, wait, wait) for limit in rules.limits)


def judged(
    rules: LimitGroup, decision: Decision, source: str = "", *, taken: int = 0, key: str = ""
) -> Decision:
    """The answer, after observers were told of it.

    Args:
        rules: of the group.
        decision: what was counted.
        source: where; nobody is told of a mere look.
        taken: the cost, where hits were taken if it was allowed.
        key: whose they are.
    """
    if source and hooks.observers:
        hooks.emit(RateLimitDecided(rules.name, decision.allowed, source, rules.dry_run))
        if taken and decision.allowed:
            _tell_near(rules, decision, taken, key)
    # After the observers: seeing what would be refused is the use of a dry run.
    if rules.dry_run and not decision.allowed:
        return replace(decision, allowed=True, retry_after=None)
    return decision


def _tell_near(rules: LimitGroup, decision: Decision, taken: int, key: str) -> None:
    """Once for each time a key comes near: when this hit was the one that crossed the mark."""
    for limit, left in zip(rules.limits, decision.remaining, strict=True):
        used = limit.quota - left
        if 100 * (used - taken) < _NEAR_PERCENT * limit.quota <= 100 * used:
            hooks.emit(RateLimitNear(rules.name, limit.name, used, limit.quota, key))
