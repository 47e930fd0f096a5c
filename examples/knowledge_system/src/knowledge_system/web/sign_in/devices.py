"""Remembered devices: the list of one person, and revoking them one by one or together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knowledge_system.domain.problems import Problem
from knowledge_system.web import cookies, current_request
from knowledge_system.web.sign_in.shared import FRESH_SECONDS

if TYPE_CHECKING:
    from mks_hardening.security import SignInDevice

__all__ = ["own_devices", "revoke", "revoke_all"]


def own_devices() -> tuple[SignInDevice, ...]:
    """The remembered devices of the signed-in person, the latest first; this browser's is marked ``current``."""
    return current_request.parts().sign_in.devices(
        str(current_request.actor().id), token=cookies.kept(cookies.DEVICE)
    )


def revoke(device_id: str) -> None:
    """Forget one of one's own devices, for somebody who has just proved who it is (ASVS 5.0, 7.5.2).

    Raises:
        Problem: ``confirmation-required``, ``not-found``.
    """
    owner = _confirmed()
    current = any(device.current for device in own_devices() if device.id == device_id)
    if not current_request.parts().sign_in.revoke_device(owner, device_id):
        raise Problem("not-found")
    if current:
        cookies.forget(cookies.DEVICE)
    current_request.parts().trail.note("device.revoke", owner, actor=owner, which="one")


def revoke_all() -> None:
    """Forget all of one's own devices, for somebody who has just proved who it is.

    Raises:
        Problem: ``confirmation-required``.
    """
    owner = _confirmed()
    cookies.forget(cookies.DEVICE)
    if current_request.parts().sign_in.forget_devices(owner):
        current_request.parts().trail.note("device.revoke", owner, actor=owner, which="every one")


def _confirmed() -> str:
    if not current_request.parts().sign_in.confirmed_within(current_request.handle(), FRESH_SECONDS):
        raise Problem("confirmation-required")
    return str(current_request.actor().id)
