"""Mapping of sign-in results to problems, and rate-limit checks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from knowledge_system.domain.problems import FieldError, Problem
from mks_hardening.security import rate_limit_headers, sign_in_headers

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision
    from mks_hardening.security import ChangeResult, RateLimiter, SignInStep


def check_limit(limiter: RateLimiter | None, group: str, key: str) -> LimitDecision | None:
    """Count one hit; return the limiter's decision, or ``None`` without a limiter.

    Raises:
        Problem: ``rate-limited`` with ``Retry-After`` and the rate-limit headers.
    """
    if limiter is None:
        return None
    decision = limiter.hit(group, key)
    if not decision:
        raise _too_many(decision)
    return decision


def refusal(step: SignInStep, *, refused: str) -> Problem:
    """Return the problem of an unsuccessful sign-in step; ``refused`` is the code for wrong credentials."""
    if step.state == "expired":
        return Problem("sign-in-required")
    if step.decision is not None:
        return Problem("rate-limited", headers=dict(sign_in_headers(step)))
    return code_problem(locked=step.state == "limited", retry_after=step.retry_after, code=refused)


def code_problem(*, locked: bool, retry_after: float | None, code: str = "bad-code") -> Problem:
    """Return the problem of a rejected code, without disclosing more than necessary."""
    if locked and retry_after is None:  # waiting does not help
        return Problem("code-locked")
    if locked:
        return Problem("rate-limited", headers={"Retry-After": _whole(retry_after)})
    return Problem(code)


def change_problem(result: ChangeResult) -> Problem:
    """Return the problem of a rejected password or mail address change."""
    if result.state == "weak":
        return Problem("invalid", errors=[FieldError("new_password", "weak")])
    if result.state == "limited":
        return Problem("rate-limited", headers=dict(sign_in_headers(result)))
    if result.state == "unusable":
        return Problem("invalid", errors=[FieldError("email", "pattern")])
    return Problem(
        {"step_up": "confirmation-required", "refused": "bad-proof"}.get(result.state, "sign-in-required")
    )


def _too_many(decision: LimitDecision) -> Problem:
    headers = dict(rate_limit_headers(decision))
    return Problem("rate-limited", headers={**headers, "Retry-After": _whole(decision.retry_after)})


def _whole(seconds: float | None) -> str:
    return str(max(1, math.ceil(seconds or 1)))
