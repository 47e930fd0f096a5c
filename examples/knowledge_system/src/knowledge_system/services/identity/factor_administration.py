"""Account recovery by administrators: unlocking, and resetting the second factor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knowledge_system.domain.problems import Problem

if TYPE_CHECKING:
    from mks_hardening.security import SignIn, TwoFactorManager


def unlock(
    sign_in: SignIn, two_factor: TwoFactorManager | None, user_id: int, *, actor: str, reason: str
) -> bool:
    """Unlock an account and clear its failed attempts; return whether there were any.

    The administrator must verify the user's identity by other means.

    Raises:
        Problem: ``unavailable`` if second factors are disabled.
    """
    _check_present(two_factor)
    return sign_in.unlock(str(user_id), actor=actor, reason=reason)


def reset(
    sign_in: SignIn, two_factor: TwoFactorManager | None, user_id: int, *, actor: str, reason: str
) -> bool:
    """Remove the second factor, unlock the account and end all sessions; return whether there was a second factor.

    Raises:
        Problem: ``unavailable`` if second factors are disabled.
    """
    _check_present(two_factor)
    return sign_in.admin_reset(str(user_id), actor=actor, reason=reason)


def _check_present(two_factor: TwoFactorManager | None) -> None:
    if two_factor is None:
        raise Problem("unavailable")
