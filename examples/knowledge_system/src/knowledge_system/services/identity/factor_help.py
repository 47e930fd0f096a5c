"""Help for people who are locked out, or have lost their second factor: from the administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knowledge_system.domain.problems import Problem

if TYPE_CHECKING:
    from mks_hardening.security import SignIn, TwoFactorManager

__all__ = ["reset", "unlock"]


def unlock(
    sign_in: SignIn, two_factor: TwoFactorManager | None, user_id: int, *, actor: str, reason: str
) -> bool:
    """Lift the lock of an account and forget all wrong codes; whether there was anything to forget.

    Who asked must be known by other means.

    Raises:
        Problem: ``unavailable`` where second factors are switched off.
    """
    _check_present(two_factor)
    return sign_in.unlock(str(user_id), actor=actor, reason=reason)


def reset(
    sign_in: SignIn, two_factor: TwoFactorManager | None, user_id: int, *, actor: str, reason: str
) -> bool:
    """Take the second factor off, lift every lock and end all sessions; whether there was a factor.

    Raises:
        Problem: ``unavailable`` where second factors are switched off.
    """
    _check_present(two_factor)
    return sign_in.admin_reset(str(user_id), actor=actor, reason=reason)


def _check_present(two_factor: TwoFactorManager | None) -> None:
    if two_factor is None:
        raise Problem("unavailable")
