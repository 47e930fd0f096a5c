"""Remembered devices: listing and revoking them."""

from __future__ import annotations

from knowledge_system.domain.problems import Problem
from knowledge_system.web import cookies, current_request
from knowledge_system.web.sign_in.sign_in_helpers import FRESH_SECONDS
from mks_hardening.security import SignInDevice


def own_devices() -> tuple[SignInDevice, ...]:
    """Return the user's remembered devices, latest first; that of this browser is marked ``current``."""
    return current_request.services().sign_in.devices(
        str(current_request.actor().id), token=cookies.kept(cookies.DEVICE)
    )


def revoke(device_id: str) -> None:
    """Revoke one of the user's devices, after recent re-authentication (ASVS 5.0, 7.5.2).

    Raises:
        Problem: ``confirmation-required``, ``not-found``.
    """
    owner = _confirmed()
    current = any(device.current for device in own_devices() if device.id == device_id)
    if not current_request.services().sign_in.revoke_device(owner, device_id):
        raise Problem("not-found")
    if current:
        cookies.forget(cookies.DEVICE)
    current_request.services().trail.note("device.revoke", owner, actor=owner, which="one")


def revoke_all() -> None:
    """Revoke all of the user's devices, after recent re-authentication.

    Raises:
        Problem: ``confirmation-required``.
    """
    owner = _confirmed()
    cookies.forget(cookies.DEVICE)
    if current_request.services().sign_in.forget_devices(owner):
        current_request.services().trail.note("device.revoke", owner, actor=owner, which="every one")


def _confirmed() -> str:
    if not current_request.services().sign_in.confirmed_within(current_request.handle(), FRESH_SECONDS):
        raise Problem("confirmation-required")
    return str(current_request.actor().id)
