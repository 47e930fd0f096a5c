"""The rules of passkeys, over the record of their owner: which assertion is accepted, and what it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mks_hardening.security.passkeys._ceremonies import asserted

if TYPE_CHECKING:
    from mks_hardening.security.passkeys._response import PasskeyResponse
    from mks_hardening.security.passkeys.relying_party import RelyingParty
    from mks_hardening.security.second_factor._factor_record import FactorRecord, StoredPasskey
    from mks_hardening.security.second_factor.factor_results import Reason

__all__ = ["PasskeyDecision", "PresentedPasskey", "judged"]


class PresentedPasskey(NamedTuple):
    """An assertion whose challenge has been looked up.

    Attributes:
        response: its parts; ``None`` when it could not be read.
        redeemed: whether its challenge was issued for this, and not answered before.
        party: who asked.
        alone: it is the whole sign-in, so that it must name its owner and verify the person.
    """

    response: PasskeyResponse | None
    redeemed: bool
    party: RelyingParty
    alone: bool = False


class PasskeyDecision(NamedTuple):
    """What is said of an assertion: a reason against it, or the passkey after it."""

    reason: Reason
    passkey: StoredPasskey | None = None
    user_verified: bool = False


def judged(record: FactorRecord, presented: PresentedPasskey, *, now: float) -> PasskeyDecision:
    """Whether an assertion is by a passkey of this account (WebAuthn level 3, section 7.2)."""
    response, party = presented.response, presented.party
    if response is None or (presented.alone and response.user_handle is None):
        return PasskeyDecision("malformed")
    # Before the signature: without a challenge of ours an assertion proves nothing, however well it is signed.
    if not presented.redeemed:
        return PasskeyDecision("expired")
    known = next((one for one in record.passkeys if one.credential == response.credential), None)
    # The handle is optional in an assertion after a first factor, but when it is there it must agree.
    if known is None or response.user_handle not in (None, known.handle):
        return PasskeyDecision("wrong")
    if presented.alone and not known.user_verified:
        return PasskeyDecision("wrong")  # it was added as a second factor only
    said = asserted(
        response,
        party=party,
        challenge=response.challenge,
        public_key=known.public_key,
        verified=presented.alone or party.passwordless,
    )
    # Whether a credential can be backed up is fixed when it is made; a change means another authenticator.
    if said is None or said.backup_eligible != known.backup_eligible:
        return PasskeyDecision("wrong")
    # Synchronised passkeys always say 0, which is no sign of a clone.
    if (said.sign_count or known.sign_count) and said.sign_count <= known.sign_count:
        return PasskeyDecision("cloned")  # section 6.1.1: two of them count on their own
    after = known._replace(
        sign_count=said.sign_count,
        backed_up=said.backed_up,
        user_verified=known.user_verified or said.user_verified,
        used_at=now,
    )
    return PasskeyDecision("", after, said.user_verified)
