"""Administrative actions for users who cannot sign in, and the list of their devices.

Every action of an administrator has an actor and a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import call_store
from mks_hardening.security.second_factor._notifications import check_not_blank
from mks_hardening.security.sign_in._attempt_hits import account_limit_key
from mks_hardening.security.sign_in._context import SignInContext, SignInTrace, emit_event, notify_owner
from mks_hardening.security.sign_in._password_step import lift_lock
from mks_hardening.security.sign_in.sign_in_protocols import FactorHelp
from mks_hardening.security.sign_in.sign_in_results import SignInDevice, SignInNotice

if TYPE_CHECKING:
    from mks_hardening.security.sign_in.sign_in_results import Notice

__all__ = [
    "admin_reset",
    "forget_devices",
    "listed_devices",
    "revoke_device",
    "sign_out_disabled",
    "unlock",
]


def unlock(context: SignInContext, user_id: str, *, actor: str, reason: str, end_sessions: bool) -> Op[bool]:
    """Lift the account-wide lock and reset the count of wrong codes; return whether there was either."""
    check_not_blank(actor, parameter="actor")
    check_not_blank(reason, parameter="reason")
    found = yield from lift_lock(context, account_limit_key(user_id, ""))
    # A verifier of another library may lack these methods; unlocking the sign-in works nevertheless.
    factors: object = context.factors
    if isinstance(factors, FactorHelp):
        found = (yield from call_store(factors.unlock, user_id, actor=actor)) or found
    if end_sessions:
        yield from _end_sessions(context, user_id)
    yield from _recorded(context, "unlocked", user_id, actor, reason)
    return found


def admin_reset(context: SignInContext, user_id: str, *, actor: str, reason: str) -> Op[bool]:
    """Remove the second factor, lift every lock and end all sessions; return whether there was a factor."""
    check_not_blank(actor, parameter="actor")
    check_not_blank(reason, parameter="reason")
    found = False
    factors: object = context.factors
    if isinstance(factors, FactorHelp):
        found = yield from call_store(factors.admin_reset, user_id, actor=actor, reason=reason)
    yield from lift_lock(context, account_limit_key(user_id, ""))
    # Before the sessions: the user may have lost the very device that is remembered.
    yield from context.devices.forget(user_id)
    yield from _end_sessions(context, user_id)
    yield from _recorded(context, "factor_reset", user_id, actor, reason)
    return found


def sign_out_disabled(context: SignInContext, user_id: str, *, actor: str, reason: str) -> Op[None]:
    """End all sessions of a disabled account and record the event."""
    check_not_blank(actor, parameter="actor")
    check_not_blank(reason, parameter="reason")
    yield from _end_sessions(context, user_id)
    emit_event("disabled", SignInTrace(client="", user_id=user_id, reason=reason, actor=actor))


def listed_devices(context: SignInContext, user_id: str, token: str | None) -> Op[tuple[SignInDevice, ...]]:
    """Return the remembered devices of an account, newest first."""
    account = yield from call_store(context.accounts.get, user_id)
    if account is None:
        return ()
    now = context.clock.time()
    mark = context.devices.read(token, now=now)
    known = yield from context.devices.of(account, now=now)
    return tuple(
        SignInDevice(
            id=nonce,
            remembered_at=float(issued),
            expires_at=issued + context.devices.ttl,
            current=mark is not None and mark.nonce == nonce,
        )
        for nonce, issued in sorted(known.items(), key=lambda item: -item[1])
    )


def revoke_device(context: SignInContext, user_id: str, device_id: object) -> Op[bool]:
    """Forget one device; return whether it was remembered."""
    if not isinstance(device_id, str) or not (yield from context.devices.forget(user_id, device_id)):
        return False
    emit_event("device_revoked", SignInTrace(client="", user_id=user_id))
    return True


def forget_devices(context: SignInContext, user_id: str) -> Op[int]:
    """Forget all devices; return their number."""
    number = yield from context.devices.forget(user_id)
    if number:
        emit_event("devices_forgotten", SignInTrace(client="", user_id=user_id))
    return number


def _end_sessions(context: SignInContext, user_id: str) -> Op[None]:
    if context.end_sessions is not None:
        yield from call_store(context.end_sessions, user_id)


def _recorded(context: SignInContext, kind: Notice, user_id: str, actor: str, reason: str) -> Op[None]:
    emit_event(kind, SignInTrace(client="", user_id=user_id, reason=reason, actor=actor))
    account = yield from call_store(context.accounts.get, user_id)
    if account is not None:
        notice = SignInNotice(kind=kind, account=account, to=account.email, actor=actor, reason=reason)
        yield from notify_owner(context, notice)
