"""Signing in: limits first, then the password, then the second factor; one answer for every kind of failure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from knowledge_system.problems import Problem
from knowledge_system.services import accounts
from mks_hardening.security import client_key, rate_limit_headers

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from knowledge_system.rules import Actor
    from mks_hardening.protocols import LimitDecision
    from mks_hardening.security import RateLimiter, TwoFactorManager, VerificationResult

__all__ = ["RATE_LIMITS", "check_code", "check_limit", "check_password", "refused_code"]

# Beside the library's own groups: one address may try many names, as an office behind one router does, but not all.
RATE_LIMITS = {"auth_login_address": "60 per minute; 600 per hour"}


def check_limit(limiter: RateLimiter | None, group: str, key: str) -> None:
    """Take one hit.

    Raises:
        Problem: ``rate-limited`` with ``Retry-After`` and the header fields of the limit.
    """
    if limiter is None:
        return
    decision = limiter.hit(group, key)
    if not decision:
        raise _too_many(decision)


def check_password(
    session: Session, limiter: RateLimiter | None, *, username: str, password: str, address: str
) -> Actor:
    """The person with this name and password; only failures count against the limits.

    Raises:
        Problem: ``bad-credentials`` for an unknown name and a wrong password alike, ``rate-limited``.
    """
    client = client_key(address)
    with (
        _counting_failures(limiter, "auth_login_address", client),
        _counting_failures(limiter, "auth_login", f"{client} {username.casefold()}"),
    ):
        actor = accounts.authenticate(session, username=username, password=password)
        if actor is None:
            raise Problem("bad-credentials")
    return actor


def check_code(
    two_factor: TwoFactorManager, limiter: RateLimiter | None, *, user_id: int, code: str, address: str
) -> VerificationResult:
    """The result of a code that was accepted; only failures count against the limit.

    Raises:
        Problem: ``bad-code``, or ``rate-limited`` while the second factor is locked.
    """
    client = client_key(address)
    with _counting_failures(limiter, "auth_2fa_verify", f"{client} {user_id}"):
        result = two_factor.verify(str(user_id), code, client=client)
        if not result:
            raise refused_code(locked=result.locked, retry_after=result.retry_after)
    return result


def refused_code(*, locked: bool, retry_after: float | None, code: str = "bad-code") -> Problem:
    """Why a code was refused, without saying more than the person needs."""
    if locked:
        return Problem("rate-limited", headers={"Retry-After": _whole(retry_after)})
    return Problem(code)


@contextmanager
def _counting_failures(limiter: RateLimiter | None, group: str, key: str) -> Iterator[None]:
    """Take a hit before the attempt and give it back when the attempt raises nothing."""
    if limiter is None:
        yield
        return
    reservation = limiter.reserve(group, key)
    if not reservation:
        raise _too_many(reservation.decision)
    yield
    reservation.cancel()


def _too_many(decision: LimitDecision) -> Problem:
    headers = dict(rate_limit_headers(decision))
    return Problem("rate-limited", headers={**headers, "Retry-After": _whole(decision.retry_after)})


def _whole(seconds: float | None) -> str:
    return str(max(1, math.ceil(seconds or 1)))
