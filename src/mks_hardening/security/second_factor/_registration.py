"""Registration of passkeys."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import call_store
from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security.passkeys._ceremonies import VerifiedRegistration, verify_registration
from mks_hardening.security.passkeys._response import base64url, credential_key, read_response
from mks_hardening.security.passkeys._webauthn_options import creation_options
from mks_hardening.security.passkeys.passkey_results import Passkey, PasskeyOptions
from mks_hardening.security.second_factor._component import FactorComponent, FactorOptions, PasskeyContext
from mks_hardening.security.second_factor._factor_record import FactorRecord, RecordTime, StoredPasskey
from mks_hardening.security.second_factor._factor_rules import with_passkey
from mks_hardening.security.second_factor._notifications import emit_event
from mks_hardening.security.second_factor._remembered_devices import shown_name
from mks_hardening.security.second_factor.codes.recovery_codes import generate_recovery_codes
from mks_hardening.security.second_factor.factor_results import PasskeyRegistration

if TYPE_CHECKING:
    from mks_hardening.security.passkeys._response import PasskeyResponse
    from mks_hardening.security.second_factor._factor_rules import FactorRules
    from mks_hardening.security.second_factor._record_updates import RecordUpdates
    from mks_hardening.security.second_factor.codes.recovery_codes import RecoveryCodes

__all__ = ["Answer", "Registrations", "shown_passkey"]

Answer = str | Mapping[str, object]

_HANDLE_BYTES: Final = 32
# All ids are sent in ``excludeCredentials``, and the whole record is rewritten with each use.
_MOST: Final = 20
_ATTESTATION: Final = ("clientDataJSON", "attestationObject")


class Registrations(FactorComponent):
    """Begin and finish the registration of a passkey."""

    def __init__(
        self,
        records: RecordUpdates,
        rules: FactorRules,
        options: FactorOptions,
        passkey_context: PasskeyContext,
    ) -> None:
        super().__init__(records, rules, options, passkey_context)
        self._webauthn = passkey_context

    @sync_method
    def begin_registration(
        self,
        user_id: str,
        *,
        session: str,
        account_name: str,
        display_name: str = "",
        proof: str | None = None,
        client: str | None = None,
    ) -> Op[PasskeyOptions]:
        """Return the options for creating a passkey.

        Require the password again first: if the account has no factor yet, the session is the only proof.

        Args:
            user_id: the id of the account.
            session: a value unique to this session, for example its id; the response must come from the same
                session.
            account_name: the name the user signs in with, shown by browsers.
            display_name: the user's name, also shown; by default the account name.
            proof: a valid code or passkey, required if the account has a factor.
            client: see ``TwoFactorManager.verify``.

        Raises:
            InvalidCodeError: the proof was not accepted, or there are ``too_many`` passkeys (20).
            ConfigurationError: a name is not printable or longer than 64 characters, the account name is blank,
                or the session is blank or longer than 1024 characters.
        """
        account = shown_name(account_name, parameter="account_name", blank=False)
        shown = shown_name(display_name, parameter="display_name") or account
        record = yield from self._with_proof(
            user_id, proof, client, lambda record, _: (record, record), required=False
        )
        if len(record.passkeys) >= _MOST:
            raise InvalidCodeError("too_many")
        # One user handle for all passkeys of an account: authenticators then replace the passkey of the same
        # account instead of listing it twice (level 3, section 5.4.3). It is random, because it is stored on the
        # device and must not identify the user (14.6.1).
        handle = (
            record.passkeys[0].handle if record.passkeys else base64url(secrets.token_bytes(_HANDLE_BYTES))
        )
        # Empty if the account has no factor: then no proof is required.
        fingerprints = self._rules.factor_fingerprints(record, user_id)
        note = " ".join([*sorted(fingerprints), handle])
        issued = yield from self._webauthn.challenges.issue(
            "register", user_id=user_id, session=session, note=note
        )
        emit_event("enrolment_begun", user_id, method="passkey")
        user = {"id": handle, "name": account, "displayName": shown}
        known = {one.credential: one.transports for one in record.passkeys}
        return creation_options(self._webauthn.party, issued, user=user, known=known)

    @async_method(begin_registration)
    def abegin_registration(self) -> None:
        """``begin_registration`` for asyncio."""

    @sync_method
    def finish_registration(
        self, user_id: str, answer: Answer, *, session: str, name: str = ""
    ) -> Op[PasskeyRegistration]:
        """Add the passkey that a browser created.

        Args:
            user_id: the id of the account.
            answer: ``credential.toJSON()``, as JSON text or as data.
            session: as in ``begin_registration``.
            name: shown to the owner in the list.

        Raises:
            InvalidCodeError: the response is ``malformed``, ``wrong`` or ``expired``. ``expired`` means that
                its challenge is too old, was used before, belongs to another session, was issued while the
                account had no factor and now has one, or was issued before a factor was replaced or removed.
                ``known``: the passkey is registered already. ``synced``: the site accepts no synchronised
                passkeys. ``too_many``: the account has 20 passkeys.
            ConfigurationError: the name is not printable, or longer than 64 characters.
        """
        # The name is checked before the challenge is consumed, so that an invalid one can be corrected.
        shown = shown_name(name)
        response = read_response(answer, body=_ATTESTATION)
        if response is None:
            raise _refused(user_id, "malformed")
        note = yield from self._webauthn.challenges.redeem(
            response.challenge, "register", user_id=user_id, session=session
        )
        if note is None:
            raise _refused(user_id, "expired")
        made = verify_registration(response, party=self._webauthn.party, challenge=response.challenge)
        if made is None:
            raise _refused(user_id, "wrong")
        if made.backup_eligible and not self._webauthn.party.allow_synced:
            raise _refused(user_id, "synced")
        # Claimed before it is stored in the record: of two users with one credential id, one gets it (level 3,
        # section 7.1, step 26). An owner left behind by a crash blocks nobody, because authenticators never create
        # an id twice.
        owner = yield from call_store(
            self._webauthn.store.assign_owner, credential_key(made.credential), user_id
        )
        if owner != user_id:
            raise _refused(user_id, "known")
        return (yield from self._added(user_id, made, note, shown, response))

    @async_method(finish_registration)
    def afinish_registration(self) -> None:
        """``finish_registration`` for asyncio."""

    def _added(
        self, user_id: str, made: VerifiedRegistration, note: str, name: str, response: PasskeyResponse
    ) -> Op[PasskeyRegistration]:
        codes = generate_recovery_codes(self._options.recovery_codes)
        *begun, handle = note.split(" ")

        def decide(
            record: FactorRecord, moment: RecordTime
        ) -> tuple[FactorRecord, tuple[StoredPasskey, RecoveryCodes | None] | str]:
            # Checked again here: between the assignment and this write another tab may have registered the same
            # device.
            if any(one.credential == made.credential for one in record.passkeys):
                return record, "known"
            # The factor that proved the request may have been replaced or removed since then by its owner or an
            # administrator, because it was lost: whoever has it must not get a passkey. A registration started
            # without a proof, because the account had no factor, is void once it has one.
            fingerprints = self._rules.factor_fingerprints(record, user_id)
            if not fingerprints.issuperset(begun) or (fingerprints and not begun):
                return record, "expired"
            if len(record.passkeys) >= _MOST:
                return record, "too_many"
            passkey = StoredPasskey(
                **made._asdict(),
                handle=handle,
                name=name,
                created_at=moment.latest,
                used_at=None,
                transports=response.transports,
            )
            after = with_passkey(record, passkey)._replace(verified_at=moment.latest)
            # The recovery codes remain valid: a second key must not void codes that the user has printed.
            if record.enabled:
                return after, (passkey, None)
            # A pending secret was also requested without a proof.
            after = after._replace(pending=None)
            return self._rules.with_recovery_codes(after, user_id, codes), (passkey, codes)

        outcome = yield from self._records.change(user_id, decide)
        if isinstance(outcome, str):
            raise _refused(user_id, outcome)
        passkey, issued = outcome
        yield from self._changed("passkey_registered", user_id, method="passkey", passkey=name)
        return PasskeyRegistration(passkey=shown_passkey(passkey), recovery_codes=issued)


def shown_passkey(passkey: StoredPasskey) -> Passkey:
    """Return a passkey as shown to its owner."""
    return Passkey(
        id=passkey.credential,
        name=passkey.name,
        created_at=passkey.created_at,
        used_at=passkey.used_at,
        synced=passkey.backup_eligible,
        backed_up=passkey.backed_up,
        user_verified=passkey.user_verified,
        aaguid=passkey.aaguid,
    )


def _refused(user_id: str, reason: str) -> InvalidCodeError:
    emit_event("enrolment_refused", user_id, method="passkey", reason=reason)
    return InvalidCodeError(reason)
