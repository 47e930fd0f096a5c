"""Verification of codes, status of an account, and administrative actions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from mks_hardening._core.checks import choice, strings
from mks_hardening._core.durations import seconds
from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening.exceptions import DecodeError
from mks_hardening.security.second_factor._component import FactorComponent
from mks_hardening.security.second_factor._factor_record import EMPTY, FactorRecord, RecordTime
from mks_hardening.security.second_factor._factor_rules import METHODS
from mks_hardening.security.second_factor._notifications import check_not_blank, emit_event, emit_result
from mks_hardening.security.second_factor.codes.recovery_codes import RecoveryCodes, generate_recovery_codes
from mks_hardening.security.second_factor.factor_results import TwoFactorStatus, VerificationResult
from mks_hardening.security.second_factor.failure_budget import client_digest

if TYPE_CHECKING:
    from mks_hardening.security.second_factor._component import PasskeyContext
    from mks_hardening.security.second_factor.factor_results import Method

__all__ = ["Verification"]


class Verification(FactorComponent):
    """Verify codes and manage locks."""

    @sync_method
    def verify(
        self,
        user_id: str,
        code: str,
        *,
        client: str | None = None,
        device: str | None = None,
        trusted: bool = False,
        methods: Sequence[Method] = METHODS,
    ) -> Op[VerificationResult]:
        """Check a code and consume it.

        A recovery code or passkey is checked even while TOTP codes are locked: neither can be guessed, and
        otherwise anyone who knows the password could lock the owner out.

        Args:
            user_id: the id of the account; the first factor has been checked already.
            code: as typed. A TOTP code is six ASCII digits, optionally with spaces around them and one in the
                middle, as apps display it; anything else is ``malformed`` and not counted. Or the response of a
                passkey to ``passkeys.begin_verification``, as a ``PasskeyAssertion``.
            client: identifies the client, for example ``client_key(ip)``. Each client has its own failure
                budget, so that one that guesses does not lock out the others.
            device: token of ``remember_device``, if the browser sent one. A remembered device has a budget of
                its own, unaffected by the guesses of others, and is forgotten when it has used up that budget.
            trusted: whether the caller has recognised a device of the owner by other means, as ``SignIn`` does.
                Such a client bypasses the limit of the account; its own budget still applies.
            methods: the accepted kinds of codes.

        Raises:
            DecodeError: the stored record or secret cannot be read, for example because its key is missing.
            ConfigurationError: ``methods`` contains an unknown value, or ``user_id`` or ``client`` is not a string.
        """
        # A misspelt value would refuse every code as malformed.
        for method in strings(methods, parameter="methods", of="methods") if methods is not METHODS else ():
            choice(method, METHODS, parameter="methods")
        # Once, outside of ``decide``, which may be repeated: looking up a challenge consumes it.
        presented = yield from self._presented(user_id, code)

        def decide(record: FactorRecord, moment: RecordTime) -> tuple[FactorRecord, VerificationResult]:
            return self._rules.attempt(
                record,
                moment,
                user_id,
                presented,
                client=client,
                device=device,
                trusted=trusted,
                methods=methods,
            )

        result = yield from self._records.change(user_id, decide)
        emit_result(user_id, result)
        if result.method == "recovery" and result and result.recovery_codes_left <= self._options.low_water:
            emit_event("recovery_codes_low", user_id)
        return result

    @async_method(verify)
    def averify(self) -> None:
        """``verify`` for asyncio."""

    @sync_method
    def is_current(self, user_id: str, result: VerificationResult) -> Op[bool]:
        """Return whether the factor of an accepted result still belongs to the account.

        A result is about the moment of its check: the factor may be removed or replaced before you act on it.
        """
        record, _ = yield from self._records.read(user_id)
        return result.factor in self._rules.factor_fingerprints(record, user_id)

    @async_method(is_current)
    def ais_current(self) -> None:
        """``is_current`` for asyncio."""

    @sync_method
    def regenerate_recovery_codes(
        self, user_id: str, *, proof: str, client: str | None = None
    ) -> Op[RecoveryCodes]:
        """Issue new recovery codes, which replace all previous ones.

        Args:
            user_id: the id of the account.
            proof: a valid code, which is consumed.
            client: see ``verify``.

        Raises:
            InvalidCodeError: the proof was not accepted.
        """
        codes = generate_recovery_codes(self._options.recovery_codes)

        def change(record: FactorRecord, _: RecordTime) -> tuple[FactorRecord, RecoveryCodes]:
            return self._rules.with_recovery_codes(record, user_id, codes), codes

        yield from self._with_proof(user_id, proof, client, change)
        yield from self._changed("recovery_codes_regenerated", user_id)
        return codes

    @async_method(regenerate_recovery_codes)
    def aregenerate_recovery_codes(self) -> None:
        """``regenerate_recovery_codes`` for asyncio."""

    @sync_method
    def status(self, user_id: str, *, client: str | None = None) -> Op[TwoFactorStatus]:
        """Return the status of the account, with the lock that applies to this client."""
        record, now = yield from self._records.read(user_id)
        lock = self._options.budget.lock_of(record.failures, client_digest(user_id, client), now)
        left = len(record.recovery)
        return TwoFactorStatus(
            enabled=record.enabled,
            pending=record.pending is not None and now < record.pending.expires_at,
            locked=lock is not None,
            retry_after=None if lock is None else lock.retry_after,
            recovery_codes_left=left,
            recovery_codes_low=record.enabled and left <= self._options.low_water,
            totp=record.secret is not None,
            passkeys=len(record.passkeys),
        )

    @async_method(status)
    def astatus(self) -> None:
        """``status`` for asyncio."""

    @sync_method
    def verified_within(self, user_id: str, seconds_ago: float | timedelta) -> Op[bool]:
        """Return whether a code of this user was accepted within the last ``seconds_ago`` seconds, in any session.

        For step-up of one session, store the time of ``verify`` in that session instead.
        """
        longest = seconds(seconds_ago, parameter="seconds_ago")
        record, now = yield from self._records.read(user_id)
        return record.verified_at is not None and now - record.verified_at <= longest

    @async_method(verified_within)
    def averified_within(self) -> None:
        """``verified_within`` for asyncio."""

    @sync_method
    def unlock(self, user_id: str, *, actor: str) -> Op[bool]:
        """Reset the count of wrong codes; return whether there were any.

        Args:
            user_id: the id of the account.
            actor: who unlocks it, for the event.
        """
        check_not_blank(actor, parameter="actor")

        def decide(record: FactorRecord, _: RecordTime) -> tuple[FactorRecord, bool]:
            return record._replace(failures=EMPTY.failures), record.failures != EMPTY.failures

        changed = yield from self._records.change(user_id, decide)
        # Emitted even if nothing was locked: the action of an administrator belongs in the audit trail.
        emit_event("unlocked", user_id, actor=actor)
        return changed

    @async_method(unlock)
    def aunlock(self) -> None:
        """``unlock`` for asyncio."""

    @sync_method
    def admin_reset(self, user_id: str, *, actor: str, reason: str) -> Op[bool]:
        """Remove the factors of an account without a code; return whether there was a record.

        Works on a damaged record too. Verify the user's identity by other means first, notify the owner and end
        the sessions.

        Args:
            user_id: the id of the account.
            actor: who resets it, for the event.
            reason: why, for the event.
        """
        check_not_blank(actor, parameter="actor")
        check_not_blank(reason, parameter="reason")
        # Before the record is removed, because only the record lists the passkeys.
        if self._passkey_context is not None:
            yield from self._forget_passkeys(self._passkey_context, user_id)
        removed = yield from self._records.remove(user_id)
        emit_event("reset", user_id, reason=reason, actor=actor)
        return removed

    @async_method(admin_reset)
    def aadmin_reset(self) -> None:
        """``admin_reset`` for asyncio."""

    def _forget_passkeys(self, passkey_context: PasskeyContext, user_id: str) -> Op[None]:
        try:
            record, _ = yield from self._records.read(user_id)
        except DecodeError:  # the record is removed anyway
            return
        yield from passkey_context.forget(user_id, record.passkeys)
