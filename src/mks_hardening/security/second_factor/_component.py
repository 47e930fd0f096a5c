"""What the parts of the manager have in common: records, rules, and the terms they were agreed on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import ask
from mks_hardening.security._security_events import send_notice
from mks_hardening.security.passkeys._response import PasskeyResponse, credential_key, read_response
from mks_hardening.security.passkeys.passkey_results import PasskeyAssertion
from mks_hardening.security.second_factor._factor_record import FactorMoment, FactorRecord, StoredPasskey
from mks_hardening.security.second_factor._notifications import refusal, tell
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

ASSERTION: Final = ("clientDataJSON", "authenticatorData", "signature")


class FactorOptions(NamedTuple):
    """Numbers and names that were checked when the manager was built; times in seconds."""

    issuer: str
    enrolment_ttl: float
    recovery_codes: int
    low_water: int
    budget: FailureBudget
    device_ttl: float
    max_devices: int
    on_notice: Callable[[TwoFactorNotice], object] | None


class PasskeyContext(NamedTuple):
    """What passkeys need beside the records."""

    party: RelyingParty
    challenges: Challenges
    store: PasskeyStore

    def presented(
        self, answer: object, purpose: Purpose, *, user_id: str, session: str
    ) -> Op[tuple[PresentedPasskey, PasskeyResponse | None]]:
        """An answer of a browser, with its challenge used up."""
        response = read_response(answer, body=ASSERTION)
        redeemed = None
        # Used up whatever comes of it: a challenge that survived a wrong answer could be tried again and again.
        if response is not None:
            redeemed = yield from self.challenges.redeem(
                response.challenge, purpose, user_id=user_id, session=session
            )
        alone = purpose == "sign-in"
        return PresentedPasskey(response, redeemed is not None, self.party, alone=alone), response

    def forget(self, user_id: str, passkeys: Iterable[StoredPasskey]) -> Op[None]:
        """They are nobody's any more. What is left behind here lets nobody in: the record decides."""
        for passkey in passkeys:
            yield from ask(self.store.release, credential_key(passkey.credential), user_id)


class FactorComponent:
    """One part of the manager; all of them stand on the same records."""

    def __init__(
        self,
        records: RecordUpdates,
        rules: FactorRules,
        terms: FactorOptions,
        desk: PasskeyContext | None = None,
    ) -> None:
        self._records = records
        self._rules = rules
        self._terms = terms
        self._desk = desk

    def _presented(self, user_id: str, proof: object) -> Op[object]:
        """A proof as the rules read it: an assertion together with what was asked."""
        if not isinstance(proof, PasskeyAssertion):
            return proof
        # Not the assertion itself: without a desk nobody has looked at its challenge.
        if self._desk is None:
            return None
        presented, _ = yield from self._desk.presented(
            proof, "verify", user_id=user_id, session=proof.session
        )
        return presented

    def _changed(
        self, change: FactorChange, user_id: str, *, method: str = "", passkey: str = ""
    ) -> Op[None]:
        """Tell of a change: as an event, and to the owner."""
        tell(change, user_id, method=method)
        hook = self._terms.on_notice
        if hook is not None:
            notice = TwoFactorNotice(kind=change, user_id=user_id, passkey=passkey)
            if not (yield from send_notice(hook, notice)):
                tell("notice_failed", user_id, reason=change)

    def _with_proof(
        self, user_id: str, proof: str, client: str | None, change: Callable[[FactorRecord], FactorRecord]
    ) -> Op[FactorRecord]:
        """Change a record in exchange for a proof; the record as it was before the change."""
        presented = yield from self._presented(user_id, proof)

        def decide(
            record: FactorRecord, moment: FactorMoment
        ) -> tuple[FactorRecord, tuple[FactorRecord, VerificationResult]]:
            after, result = self._rules.attempt(record, moment, user_id, presented, client=client)
            return (change(after) if result else after), (after, result)

        before, result = yield from self._records.change(user_id, decide)
        if not result:
            raise refusal(user_id, result)
        return before
