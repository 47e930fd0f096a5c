"""Passkeys of an account: registration, options for browsers, passwordless sign-in, list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import call_store
from mks_hardening.exceptions import ConfigurationError, InvalidCodeError
from mks_hardening.security.passkeys._response import credential_key
from mks_hardening.security.passkeys._webauthn_options import request_options
from mks_hardening.security.passkeys.passkey_results import Passkey, PasskeyOptions
from mks_hardening.security.second_factor._factor_record import EMPTY, FactorRecord, RecordTime
from mks_hardening.security.second_factor._notifications import emit_result
from mks_hardening.security.second_factor._registration import Answer, Registrations, shown_passkey
from mks_hardening.security.second_factor._remembered_devices import shown_name
from mks_hardening.security.second_factor.factor_results import PasskeySignIn, VerificationResult

if TYPE_CHECKING:
    from mks_hardening.security.second_factor.factor_results import Reason

__all__ = ["Passkeys"]


class Passkeys(Registrations):
    """Passkeys of a ``TwoFactorManager``, available as its ``passkeys``.

    Shares the manager's records, failure budget and events. A page passes ``options.public_key`` to the browser
    and sends back ``credential.toJSON()``. Every challenge is valid once, in the session it was issued in, for
    ``challenge_ttl``. Every method has an asyncio version with the prefix ``a``.
    """

    # --- verification and sign-in ----------------------------------------------------------------

    @sync_method
    def begin_verification(self, user_id: str, *, session: str) -> Op[PasskeyOptions]:
        """Return the options for an assertion after the first factor.

        Pass the browser's response to ``verify`` as a ``PasskeyAssertion``.

        Raises:
            InvalidCodeError: ``not_enrolled``: the account has no passkey.
        """
        record, _ = yield from self._records.read(user_id)
        if not record.passkeys:
            raise InvalidCodeError("not_enrolled")
        issued = yield from self._webauthn.challenges.issue("verify", user_id=user_id, session=session)
        known = {one.credential: one.transports for one in record.passkeys}
        return request_options(
            self._webauthn.party, issued, known=known, verified=self._webauthn.party.passwordless
        )

    @async_method(begin_verification)
    def abegin_verification(self) -> None:
        """``begin_verification`` for asyncio."""

    @sync_method
    def begin_sign_in(self, *, session: str) -> Op[PasskeyOptions]:
        """Return the options for a sign-in without name and password; they are the same for all users.

        Args:
            session: identifies the session of the browser before sign-in, for example the id of a session
                without a user.

        Raises:
            ConfigurationError: the relying party is not ``passwordless``.
        """
        self._check_passwordless()
        issued = yield from self._webauthn.challenges.issue("sign-in", user_id="", session=session)
        return request_options(self._webauthn.party, issued, known={}, verified=True)

    @async_method(begin_sign_in)
    def abegin_sign_in(self) -> None:
        """``begin_sign_in`` for asyncio."""

    @sync_method
    def finish_sign_in(self, answer: Answer, *, session: str, client: str | None = None) -> Op[PasskeySignIn]:
        """Check the assertion of a passwordless sign-in and return its user.

        The passkey must have verified its user. Wrong responses are not counted as failures of an account,
        because sending one requires no first factor.

        Raises:
            ConfigurationError: the relying party is not ``passwordless``.
        """
        self._check_passwordless()
        presented, response = yield from self._webauthn.presented(
            answer, "sign-in", user_id="", session=session
        )
        user_id = None
        if response is not None and presented.redeemed:
            user_id = yield from call_store(self._webauthn.store.owner, credential_key(response.credential))
        # The owner is read from the store, not from the user handle, which the client controls.
        if user_id is None:
            reason: Reason = "malformed" if response is None else "wrong" if presented.redeemed else "expired"
            # The event has no user: an unknown credential is not a failure of any account, and must not fill the
            # audit trail of the account it names.
            result = VerificationResult(ok=False, method="passkey", reason=reason)
            emit_result("", result)
            return PasskeySignIn(user_id="", result=result)
        owner = user_id

        def decide(record: FactorRecord, moment: RecordTime) -> tuple[FactorRecord, VerificationResult]:
            return self._rules.attempt(record, moment, owner, presented, client=client)

        result = yield from self._records.change(owner, decide)
        emit_result(owner, result)
        # No id with a refusal: an application that reads only ``user_id`` must not admit anybody.
        return PasskeySignIn(user_id=owner if result else "", result=result)

    @async_method(finish_sign_in)
    def afinish_sign_in(self) -> None:
        """``finish_sign_in`` for asyncio."""

    # --- list ------------------------------------------------------------------------------------

    @sync_method
    def list(self, user_id: str) -> Op[tuple[Passkey, ...]]:
        """Return the passkeys of a user in the order of registration."""
        record, _ = yield from self._records.read(user_id)
        return tuple(shown_passkey(one) for one in sorted(record.passkeys, key=lambda one: one.created_at))

    @async_method(list)  # noqa: A003 - the method above, not the builtin
    def alist(self) -> None:
        """``list`` for asyncio."""

    @sync_method
    def rename(self, user_id: str, passkey_id: str, *, name: str) -> Op[bool]:
        """Rename a passkey; return whether it exists.

        Raises:
            ConfigurationError: the name is not printable, or longer than 64 characters.
        """
        shown = shown_name(name)

        def decide(record: FactorRecord, _: RecordTime) -> tuple[FactorRecord, bool]:
            passkeys = tuple(
                one._replace(name=shown) if one.credential == passkey_id else one for one in record.passkeys
            )
            return record._replace(passkeys=passkeys), _has(record, passkey_id)

        return (yield from self._records.change(user_id, decide))

    @async_method(rename)
    def arename(self) -> None:
        """``rename`` for asyncio."""

    @sync_method
    def revoke(self, user_id: str, passkey_id: str, *, proof: str, client: str | None = None) -> Op[bool]:
        """Remove one passkey; return whether it existed.

        Removing the last factor turns off two-factor authentication and deletes the recovery codes.

        Args:
            user_id: the id of the account.
            passkey_id: from the list.
            proof: a valid code or passkey, which may be the one to be removed.
            client: see ``TwoFactorManager.verify``.

        Raises:
            InvalidCodeError: the proof was not accepted.
        """
        before = yield from self._with_proof(
            user_id, proof, client, lambda record, _: (_without(record, passkey_id), record)
        )
        gone = [one for one in before.passkeys if one.credential == passkey_id]
        yield from self._webauthn.forget(user_id, gone)
        if gone:
            yield from self._changed("passkey_revoked", user_id, method="passkey", passkey=gone[0].name)
            if not _without(before, passkey_id).enabled:
                yield from self._changed("disabled", user_id)
        return bool(gone)

    @async_method(revoke)
    def arevoke(self) -> None:
        """``revoke`` for asyncio."""

    # --- operations ------------------------------------------------------------------------------

    def _check_passwordless(self) -> None:
        if not self._webauthn.party.passwordless:
            raise ConfigurationError(
                "sign-in by passkey alone requires RelyingParty(passwordless=True)", parameter="passwordless"
            )


def _has(record: FactorRecord, passkey_id: str) -> bool:
    return any(one.credential == passkey_id for one in record.passkeys)


def _without(record: FactorRecord, passkey_id: str) -> FactorRecord:
    """Return the record without a passkey; without its last factor the record is empty."""
    if not _has(record, passkey_id):
        return record
    kept = tuple(one for one in record.passkeys if one.credential != passkey_id)
    # A pending enrolment may have been started with this passkey as its proof.
    after = record._replace(passkeys=kept, pending=None)
    return after if after.enabled else EMPTY
