"""Base class of the parts of the two-factor manager, with their shared records, rules and options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import call_store
from mks_hardening.security._security_events import send_notice
from mks_hardening.security.passkeys._response import PasskeyResponse, credential_key, read_response
from mks_hardening.security.passkeys.passkey_results import PasskeyAssertion
from mks_hardening.security.second_factor._factor_record import FactorRecord, RecordTime, StoredPasskey
from mks_hardening.security.second_factor._notifications import emit_and_build_error, emit_event
from mks_hardening.security.second_factor._passkey_rules import PresentedPasskey
from mks_hardening.security.second_factor.factor_results import TwoFactorNotice, VerificationResult

if TYPE_CHECKING:
    from mks_hardening.protocols import PasskeyStore
    from mks_hardening.security.passkeys._challenges import Challenges, Purpose
    from mks_hardening.security.passkeys.relying_party import RelyingParty
    from mks_hardening.security.second_factor._factor_rules import FactorRules
    from mks_hardening.security.second_factor._record_updates import RecordUpdates
    from mks_hardening.security.second_factor.factor_results import FactorChange
    from mks_hardening.security.second_factor.failure_budget import FailureBudget

__all__ = ["FactorComponent", "FactorOptions", "PasskeyContext"]

R = TypeVar("R")

_ASSERTION: Final = ("clientDataJSON", "authenticatorData", "signature")


class FactorOptions(NamedTuple):
    """Validated options of the manager; times in seconds."""

    issuer: str
    enrolment_ttl: float
    recovery_codes: int
    low_water: int
    budget: FailureBudget
    device_ttl: float
    max_devices: int
    on_notice: Callable[[TwoFactorNotice], object] | None


class PasskeyContext(NamedTuple):
    """Site, challenges and store of passkeys."""

    party: RelyingParty
    challenges: Challenges
    store: PasskeyStore

    def presented(
        self, answer: object, purpose: Purpose, *, user_id: str, session: str
    ) -> Op[tuple[PresentedPasskey, PasskeyResponse | None]]:
        """Read a browser's response and consume its challenge."""
        response = read_response(answer, body=_ASSERTION)
        redeemed = None
        # Consumed in any case: a challenge that survived a wrong response could be tried again and again.
        if response is not None:
            redeemed = yield from self.challenges.redeem(
                response.challenge, purpose, user_id=user_id, session=session
            )
        passwordless = purpose == "sign-in"
        return PresentedPasskey(response, redeemed is not None, self.party, passwordless), response

    def forget(self, user_id: str, passkeys: Iterable[StoredPasskey]) -> Op[None]:
        """Release the ownership of passkeys.

        Entries left behind by a failure here are harmless: only passkeys in the record are accepted.
        """
        for passkey in passkeys:
            yield from call_store(self.store.release, credential_key(passkey.credential), user_id)


class FactorComponent:
    """One part of the manager; all parts share the same records."""

    def __init__(
        self,
        records: RecordUpdates,
        rules: FactorRules,
        options: FactorOptions,
        passkey_context: PasskeyContext | None = None,
    ) -> None:
        self._records = records
        self._rules = rules
        self._options = options
        self._passkey_context = passkey_context

    def _presented(self, user_id: str, proof: object) -> Op[object]:
        """Prepare a proof for the rules; consume the challenge of an assertion."""
        if not isinstance(proof, PasskeyAssertion):
            return proof
        # Not the assertion itself: without a ``PasskeyContext`` its challenge has not been checked.
        if self._passkey_context is None:
            return None
        presented, _ = yield from self._passkey_context.presented(
            proof, "verify", user_id=user_id, session=proof.session
        )
        return presented

    def _changed(
        self, change: FactorChange, user_id: str, *, method: str = "", passkey: str = ""
    ) -> Op[None]:
        """Emit the event of a change, and send a notice to the owner."""
        emit_event(change, user_id, method=method)
        hook = self._options.on_notice
        if hook is not None:
            notice = TwoFactorNotice(kind=change, user_id=user_id, passkey=passkey)
            if not (yield from send_notice(hook, notice)):
                emit_event("notice_failed", user_id, reason=change)

    def _with_proof(
        self,
        user_id: str,
        proof: str | None,
        client: str | None,
        change: Callable[[FactorRecord, RecordTime], tuple[FactorRecord, R]],
        *,
        required: bool = True,
    ) -> Op[R]:
        """Change a record if the proof is accepted; without ``required``, an account without factors needs none."""
        presented = yield from self._presented(user_id, proof)

        def decide(record: FactorRecord, moment: RecordTime) -> tuple[FactorRecord, R | VerificationResult]:
            if required or record.enabled:
                record, result = self._rules.attempt(record, moment, user_id, presented, client=client)
                if not result:
                    return record, result
            return change(record, moment)

        outcome = yield from self._records.change(user_id, decide)
        if isinstance(outcome, VerificationResult):
            raise emit_and_build_error(user_id, outcome)
        return outcome
