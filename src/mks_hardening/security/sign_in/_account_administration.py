"""Administrative actions for users who cannot sign in, and the list of their devices.

Every action of an administrator has an actor and a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import call_store
from mks_hardening.security.second_factor._notifications import check_not_blank
from mks_hardening.security.sign_in._attempt_hits import account_limit_key
from mks_hardening.security.sign_in._context import SignInContext, SignInTrace, emit_event, notify_owner
from mks_hardening.security.sign_in._password_step import lift_lock
from mks_hardening.security.sign_in.sign_in_protocols import FactorAdministration
from mks_hardening.security.sign_in.sign_in_results import SignInDevice, SignInNotice

if TYPE_CHECKING:
    from mks_hardening.security.sign_in.sign_in_results import Notice

__all__ = ["AccountAdministration"]


class AccountAdministration:
    """Devices and locks of accounts, managed by their owners and by administrators."""

    __slots__ = ("_context",)

    def __init__(self, context: SignInContext) -> None:
        self._context = context

    # --- remembered devices ------------------------------------------------------------------------

    @sync_method
    def devices(self, user_id: str, *, token: str | None = None) -> Op[tuple[SignInDevice, ...]]:
        """List the remembered devices of an account, newest first.

        Args:
            user_id: the id of the account.
            token: the device token of the current browser, whose device is marked in the list.
        """
        account = yield from call_store(self._context.accounts.get, user_id)
        if account is None:
            return ()
        now = self._context.clock.time()
        current = self._context.devices.read(token, now=now)
        known = yield from self._context.devices.list_devices(account, now=now)
        return tuple(
            SignInDevice(
                id=nonce,
                remembered_at=float(issued),
                expires_at=issued + self._context.devices.ttl,
                current=current is not None and current.nonce == nonce,
            )
            for nonce, issued in sorted(known.items(), key=lambda item: -item[1])
        )

    @async_method(devices)
    def adevices(self) -> None:
        """``devices`` for asyncio."""

    @sync_method
    def revoke_device(self, user_id: str, device_id: str) -> Op[bool]:
        """Forget one device by its id in the list; return whether it was remembered."""
        if not isinstance(device_id, str) or not (
            yield from self._context.devices.forget(user_id, device_id)
        ):
            return False
        emit_event("device_revoked", SignInTrace(client="", user_id=user_id))
        return True

    @async_method(revoke_device)
    def arevoke_device(self) -> None:
        """``revoke_device`` for asyncio."""

    @sync_method
    def forget_devices(self, user_id: str) -> Op[int]:
        """Forget all devices of an account; return their number."""
        number = yield from self._context.devices.forget(user_id)
        if number:
            emit_event("devices_forgotten", SignInTrace(client="", user_id=user_id))
        return number

    @async_method(forget_devices)
    def aforget_devices(self) -> None:
        """``forget_devices`` for asyncio."""

    # --- administration ---------------------------------------------------------------------------

    @sync_method
    def unlock(self, user_id: str, *, actor: str, reason: str, end_sessions: bool = False) -> Op[bool]:
        """Lift an account-wide lock and reset the count of wrong codes; return whether there was either.

        Args:
            user_id: the id of the account.
            actor: who unlocks it, for the event and the notice.
            reason: why, for the event and the notice.
            end_sessions: whether to end all sessions of the account too (ASVS 5.0, 7.4.5).
        """
        check_not_blank(actor, parameter="actor")
        check_not_blank(reason, parameter="reason")
        found = yield from lift_lock(self._context, account_limit_key(user_id, ""))
        # A verifier of another library may lack these methods; unlocking the sign-in works nevertheless.
        factors: object = self._context.factors
        if isinstance(factors, FactorAdministration):
            found = (yield from call_store(factors.unlock, user_id, actor=actor)) or found
        if end_sessions:
            yield from self._context.end_all_sessions(user_id)
        yield from self._record("unlocked", user_id, actor, reason)
        return found

    @async_method(unlock)
    def aunlock(self) -> None:
        """``unlock`` for asyncio."""

    @sync_method
    def admin_reset(self, user_id: str, *, actor: str, reason: str) -> Op[bool]:
        """Remove the second factor, lift every lock, end all sessions and forget all devices.

        Verify the user's identity by other means first (ASVS 5.0, 6.4.4).

        Args:
            user_id: the id of the account.
            actor: who resets it, for the event and the notice.
            reason: why, for the event and the notice.

        Returns:
            Whether the account had a second factor.
        """
        check_not_blank(actor, parameter="actor")
        check_not_blank(reason, parameter="reason")
        found = False
        factors: object = self._context.factors
        if isinstance(factors, FactorAdministration):
            found = yield from call_store(factors.admin_reset, user_id, actor=actor, reason=reason)
        yield from lift_lock(self._context, account_limit_key(user_id, ""))
        # Before the sessions: the user may have lost the very device that is remembered.
        yield from self._context.devices.forget(user_id)
        yield from self._context.end_all_sessions(user_id)
        yield from self._record("factor_reset", user_id, actor, reason)
        return found

    @async_method(admin_reset)
    def aadmin_reset(self) -> None:
        """``admin_reset`` for asyncio."""

    @sync_method
    def sign_out_disabled(self, user_id: str, *, actor: str, reason: str) -> Op[None]:
        """End all sessions of an account that was disabled, and record who disabled it (ASVS 5.0, 7.4.2).

        Call it after the account is stored as disabled.

        Args:
            user_id: the id of the account.
            actor: who disabled it, for the event.
            reason: why, for the event.
        """
        check_not_blank(actor, parameter="actor")
        check_not_blank(reason, parameter="reason")
        yield from self._context.end_all_sessions(user_id)
        emit_event("disabled", SignInTrace(client="", user_id=user_id, reason=reason, actor=actor))

    @async_method(sign_out_disabled)
    def asign_out_disabled(self) -> None:
        """``sign_out_disabled`` for asyncio."""

    def _record(self, kind: Notice, user_id: str, actor: str, reason: str) -> Op[None]:
        emit_event(kind, SignInTrace(client="", user_id=user_id, reason=reason, actor=actor))
        account = yield from call_store(self._context.accounts.get, user_id)
        if account is not None:
            notice = SignInNotice(kind=kind, account=account, to=account.email, actor=actor, reason=reason)
            yield from notify_owner(self._context, notice)
