"""Enrolment and removal of a second factor: a pending secret, confirmed by its first code."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.checks import instance, whole_number
from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening.exceptions import ConfigurationError, InvalidCodeError
from mks_hardening.security.second_factor._component import FactorComponent
from mks_hardening.security.second_factor._factor_record import (
    EMPTY,
    FactorRecord,
    PendingSecret,
    RecordTime,
)
from mks_hardening.security.second_factor._factor_rules import PERIOD
from mks_hardening.security.second_factor._notifications import emit_event
from mks_hardening.security.second_factor.codes.recovery_codes import RecoveryCodes, generate_recovery_codes
from mks_hardening.security.second_factor.codes.totp import generate_secret, provisioning_uri
from mks_hardening.security.second_factor.factor_results import Enrolment

__all__ = ["Enrolments"]

_MOST_AHEAD: Final = 10
"""Number of steps by which the clock of the other library may have been ahead."""


class Enrolments(FactorComponent):
    """Turn second factors on and off."""

    @sync_method
    def begin_enrolment(
        self, user_id: str, *, account_name: str, proof: str | None = None, client: str | None = None
    ) -> Op[Enrolment]:
        """Create a secret to be confirmed; an existing factor stays active until then.

        Require the password again first: if the account has no factor yet, the session is the only proof.

        Args:
            user_id: the id of the account.
            account_name: name shown by the authenticator app.
            proof: a valid code or passkey, required if the account has a factor, so that a stolen session
                cannot replace it.
            client: see ``verify``.

        Raises:
            InvalidCodeError: the account has a factor and the proof was not accepted.
            ConfigurationError: the account name cannot be part of a provisioning URI.
        """
        # All of this can fail on an invalid name, and must do so before a proof is consumed.
        secret = generate_secret()
        uri = provisioning_uri(secret, account_name=account_name, issuer=self._options.issuer)
        sealed = self._rules.seal_pending(secret, user_id)

        def change(record: FactorRecord, moment: RecordTime) -> tuple[FactorRecord, float]:
            expires_at = moment.latest + self._options.enrolment_ttl
            return record._replace(pending=PendingSecret(sealed, expires_at)), expires_at

        # A thief of a session must not move the factor to their own phone (ASVS 5.0, 7.5.1).
        expires_at = yield from self._with_proof(user_id, proof, client, change, required=False)
        emit_event("enrolment_begun", user_id)
        return Enrolment(secret=secret, provisioning_uri=uri, expires_at=expires_at)

    @async_method(begin_enrolment)
    def abegin_enrolment(self) -> None:
        """``begin_enrolment`` for asyncio."""

    @sync_method
    def cancel_enrolment(self, user_id: str) -> Op[bool]:
        """Delete the pending secret; return whether there was one. An active factor stays active."""

        def decide(record: FactorRecord, _: RecordTime) -> tuple[FactorRecord, bool]:
            return record._replace(pending=None), record.pending is not None

        cancelled = yield from self._records.change(user_id, decide)
        if cancelled:
            emit_event("enrolment_cancelled", user_id)
        return cancelled

    @async_method(cancel_enrolment)
    def acancel_enrolment(self) -> None:
        """``cancel_enrolment`` for asyncio."""

    @sync_method
    def confirm_enrolment(self, user_id: str, code: str, *, client: str | None = None) -> Op[RecoveryCodes]:
        """Activate the pending secret with its first code, which is consumed, and issue recovery codes.

        A previous secret is replaced, together with its recovery codes and remembered devices; passkeys remain.

        Args:
            user_id: the id of the account.
            code: the first code; a wrong one counts towards the same budget as those of ``verify``.
            client: see ``verify``.

        Returns:
            The recovery codes, in clear text this one time.

        Raises:
            InvalidCodeError: the code is ``wrong`` or ``malformed`` (the pending secret remains), the enrolment
                is ``expired`` or there is ``no_enrolment``, or it is ``locked`` after too many wrong codes.
        """
        # Generated outside of ``decide``, which a conflict repeats: the codes that are shown must be those that
        # were stored.
        codes = generate_recovery_codes(self._options.recovery_codes)

        def decide(record: FactorRecord, moment: RecordTime) -> tuple[FactorRecord, InvalidCodeError | None]:
            after, error = self._rules.confirm(record, moment, user_id, code, client=client)
            return (after if error else self._rules.with_recovery_codes(after, user_id, codes)), error

        error = yield from self._records.change(user_id, decide)
        if error is not None:
            emit_event("enrolment_refused", user_id, reason=error.reason)
            raise error
        yield from self._changed("enrolled", user_id)
        return codes

    @async_method(confirm_enrolment)
    def aconfirm_enrolment(self) -> None:
        """``confirm_enrolment`` for asyncio."""

    @sync_method
    def adopt_secret(self, user_id: str, secret: str, *, last_step: int = -1) -> Op[bool]:
        """Activate a factor that was confirmed elsewhere, to import accounts from another library.

        The authenticator app keeps working, provided that its codes have six digits, 30 seconds and SHA-1. The
        account has no recovery codes until ``regenerate_recovery_codes``. An account that already has a factor
        stays unchanged, so that an import can be repeated, and can run while users sign in.

        Args:
            user_id: the id of the account.
            secret: base32, case-insensitive; spaces and padding are ignored.
            last_step: the step of the last accepted code, in units of 30 seconds since 1970, so that the code
                is not accepted again; -1 if unknown.

        Returns:
            Whether the factor was activated.

        Raises:
            ConfigurationError: the secret is not base32 of at least 128 bits, or the step is not a whole number
                or lies in the future.
        """
        step = whole_number(last_step, parameter="last_step", minimum=-1)
        instance(secret, str, parameter="secret")
        sealed = self._rules.seal_adopted(secret, user_id)

        def decide(record: FactorRecord, moment: RecordTime) -> tuple[FactorRecord, bool]:
            # With a wall time by mistake, no code would work for many years.
            if step > moment.wall // PERIOD + _MOST_AHEAD:
                raise ConfigurationError(
                    "last_step must be a step of 30 seconds since 1970 that has begun", parameter="last_step"
                )
            if record.enabled:
                return record, False
            # The later of both steps: repeating an import must not make a used code valid again.
            return record._replace(secret=sealed, last_step=max(step, record.last_step), pending=None), True

        adopted = yield from self._records.change(user_id, decide)
        if adopted:
            emit_event("enrolled", user_id, method="totp", reason="adopted")
        return adopted

    @async_method(adopt_secret)
    def aadopt_secret(self) -> None:
        """``adopt_secret`` for asyncio."""

    @sync_method
    def disable(self, user_id: str, *, proof: str, client: str | None = None) -> Op[None]:
        """Turn off and delete every factor, with passkeys and remembered devices.

        End the user's other sessions as well.

        Args:
            user_id: the id of the account.
            proof: a valid code, which is consumed.
            client: see ``verify``.

        Raises:
            InvalidCodeError: the proof was not accepted.
        """
        passkeys = yield from self._with_proof(
            user_id, proof, client, lambda record, _: (EMPTY, record.passkeys)
        )
        # After the record, which alone decides. A crash in between leaves ownership entries that admit nobody; in
        # the other order it would leave passkeys in the record that no longer work.
        if self._passkey_context is not None:
            yield from self._passkey_context.forget(user_id, passkeys)
        yield from self._changed("disabled", user_id)

    @async_method(disable)
    def adisable(self) -> None:
        """``disable`` for asyncio."""
