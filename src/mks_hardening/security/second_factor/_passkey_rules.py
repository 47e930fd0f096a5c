"""Rules of passkeys: which assertion is accepted, and how it changes the record of its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mks_hardening.security.passkeys._ceremonies import verify_assertion

if TYPE_CHECKING:
    from mks_hardening.security.passkeys._response import PasskeyResponse
    from mks_hardening.security.passkeys.relying_party import RelyingParty
    from mks_hardening.security.second_factor._factor_record import FactorRecord, StoredPasskey
    from mks_hardening.security.second_factor.factor_results import Reason

__all__ = ["PasskeyDecision", "PresentedPasskey", "check_assertion"]


class PresentedPasskey(NamedTuple):
    """An assertion whose challenge has been looked up.

    Attributes:
        response: its parts; ``None`` if it could not be read.
        redeemed: whether its challenge was issued for this purpose and not used before.
        party: the site that requested it.
        passwordless: it is the whole sign-in, so it must name its owner and verify the user.
    """

    response: PasskeyResponse | None
    redeemed: bool
    party: RelyingParty
    passwordless: bool = False


class PasskeyDecision(NamedTuple):
    """Result of checking an assertion: the reason of a refusal, or the updated passkey."""

    reason: Reason
    passkey: StoredPasskey | None = None
    user_verified: bool = False


def check_assertion(record: FactorRecord, presented: PresentedPasskey, *, now: float) -> PasskeyDecision:
    """Check whether an assertion is by a passkey of this account (WebAuthn level 3, section 7.2)."""
    response, party = presented.response, presented.party
    if response is None or (presented.passwordless and response.user_handle is None):
        return PasskeyDecision("malformed")
    # Before the signature: without a challenge of ours an assertion proves nothing, however well it is signed.
    if not presented.redeemed:
        return PasskeyDecision("expired")
    known = next((one for one in record.passkeys if one.credential == response.credential), None)
    # The user handle is optional in an assertion after a first factor, but if present it must match.
    if known is None or response.user_handle not in (None, known.handle):
        return PasskeyDecision("wrong")
    if presented.passwordless and not known.user_verified:
        return PasskeyDecision("wrong")  # it was registered as a second factor only
    verified = verify_assertion(
        response,
        party=party,
        challenge=response.challenge,
        public_key=known.public_key,
        verified=presented.passwordless or party.passwordless,
    )
    # Backup eligibility is fixed at creation; a change means that it is another authenticator.
    if verified is None or verified.backup_eligible != known.backup_eligible:
        return PasskeyDecision("wrong")
    # Synchronised passkeys always report 0, which is not a sign of a clone.
    if (verified.sign_count or known.sign_count) and verified.sign_count <= known.sign_count:
        return PasskeyDecision("cloned")  # section 6.1.1: two copies have separate counters
    after = known._replace(
        sign_count=verified.sign_count,
        backed_up=verified.backed_up,
        user_verified=known.user_verified or verified.user_verified,
        used_at=now,
    )
    return PasskeyDecision("", after, verified.user_verified)
