"""The door to the package webauthn: is this a new credential, is this assertion the credential's own?

It checks type, challenge, origin, RP id, presence, flags and signature (WebAuthn level 3, sections 7.1 and 7.2).
What depends on the account (counter, backup eligibility, whose credential it is) is decided by the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.optional_imports import optional
from mks_hardening.security.passkeys._response import base64url

if TYPE_CHECKING:
    from mks_hardening.security.passkeys._response import PasskeyResponse
    from mks_hardening.security.passkeys.relying_party import RelyingParty

__all__ = [
    "ALGORITHMS",
    "VerifiedAssertion",
    "VerifiedRegistration",
    "asserted",
    "check_installed",
    "registered",
]

ALGORITHMS: Final = (-8, -7, -257)  # EdDSA, ES256, RS256 (COSE)
_LONGEST_KEY: Final = 1100  # bytes; an RSA key of 8192 bits
_MULTI_DEVICE: Final = "multi_device"


class VerifiedRegistration(NamedTuple):
    """A new credential; its key is COSE in base64url."""

    credential: str
    public_key: str
    sign_count: int
    backup_eligible: bool
    backed_up: bool
    user_verified: bool
    aaguid: str


class VerifiedAssertion(NamedTuple):
    """What a valid assertion says."""

    sign_count: int
    backup_eligible: bool
    backed_up: bool
    user_verified: bool


def check_installed() -> None:
    """Say at once what is missing.

    Raises:
        MissingDependencyError: webauthn is not installed.
    """
    with optional("webauthn", extra="passkeys"):
        import webauthn  # noqa: F401 - only whether it is there


def registered(
    response: PasskeyResponse, *, party: RelyingParty, challenge: bytes
) -> VerifiedRegistration | None:
    """The credential that this answer to ``navigator.credentials.create()`` makes, if it is valid."""
    from webauthn import verify_registration_response

    try:
        found = verify_registration_response(
            credential=response.fields,
            expected_challenge=challenge,
            expected_rp_id=party.rp_id,
            expected_origin=list(party.origins),
            require_user_verification=party.passwordless,
        )
    except Exception:  # noqa: BLE001 - whatever its parsers stumble over, the answer is refused
        return None
    # The id in the signed data counts; the one beside it is what the page says.
    credential = base64url(found.credential_id)
    if response.cross_origin or credential != response.credential:
        return None
    if len(found.credential_public_key) > _LONGEST_KEY:
        return None
    return VerifiedRegistration(
        credential=credential,
        public_key=base64url(found.credential_public_key),
        sign_count=found.sign_count,
        backup_eligible=found.credential_device_type.value == _MULTI_DEVICE,
        backed_up=found.credential_backed_up,
        user_verified=found.user_verified,
        aaguid=found.aaguid,
    )


def asserted(
    response: PasskeyResponse,
    *,
    party: RelyingParty,
    challenge: bytes,
    public_key: str,
    verified: bool,
) -> VerifiedAssertion | None:
    """What this answer to ``navigator.credentials.get()`` says, if the credential's key signed it.

    Args:
        response: the answer.
        party: who asked.
        challenge: what was asked.
        public_key: of the credential, as ``VerifiedRegistration`` has it.
        verified: whether the person must have been verified.
    """
    from webauthn import verify_authentication_response
    from webauthn.helpers import base64url_to_bytes

    try:
        found = verify_authentication_response(
            credential=response.fields,
            expected_challenge=challenge,
            expected_rp_id=party.rp_id,
            expected_origin=list(party.origins),
            credential_public_key=base64url_to_bytes(public_key),
            credential_current_sign_count=0,  # the counter is judged by the caller, who can tell a clone
            require_user_verification=verified,
        )
    except Exception:  # noqa: BLE001 - as in registered
        return None
    # In a frame of another site the person does not see where the passkey is used (level 3, 13.4.9).
    if response.cross_origin:
        return None
    return VerifiedAssertion(
        sign_count=found.new_sign_count,
        backup_eligible=found.credential_device_type.value == _MULTI_DEVICE,
        backed_up=found.credential_backed_up,
        user_verified=found.user_verified,
    )
