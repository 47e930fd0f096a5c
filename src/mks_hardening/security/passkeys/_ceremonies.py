"""Verification of WebAuthn registrations and assertions, with the package webauthn.

The package checks type, challenge, origin, RP id, presence, flags and signature (WebAuthn level 3, sections 7.1
and 7.2). The caller checks what depends on the account (counter, backup eligibility, owner of the credential).
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
    "check_installed",
    "verify_assertion",
    "verify_registration",
]

ALGORITHMS: Final = (-8, -7, -257)  # EdDSA, ES256, RS256 (COSE)
_LONGEST_KEY: Final = 1100  # bytes; an RSA key of 8192 bits
_MULTI_DEVICE: Final = "multi_device"


class VerifiedRegistration(NamedTuple):
    """A valid new credential; its key is COSE in base64url."""

    credential: str
    public_key: str
    sign_count: int
    backup_eligible: bool
    backed_up: bool
    user_verified: bool
    aaguid: str


class VerifiedAssertion(NamedTuple):
    """Data of a valid assertion."""

    sign_count: int
    backup_eligible: bool
    backed_up: bool
    user_verified: bool


def check_installed() -> None:
    """Check that webauthn is installed.

    Raises:
        MissingDependencyError: webauthn is not installed.
    """
    with optional("webauthn", extra="passkeys"):
        import webauthn  # noqa: F401 - checks only that it is installed


def verify_registration(
    response: PasskeyResponse, *, party: RelyingParty, challenge: bytes
) -> VerifiedRegistration | None:
    """Verify a response of ``navigator.credentials.create()``.

    Returns its credential, or ``None`` if the response is invalid.
    """
    from webauthn import verify_registration_response

    try:
        found = verify_registration_response(
            credential=response.fields,
            expected_challenge=challenge,
            expected_rp_id=party.rp_id,
            expected_origin=list(party.origins),
            require_user_verification=party.passwordless,
        )
    except Exception:  # noqa: BLE001 - whatever its parsers raise, the response is refused
        return None
    # The id in the attested data counts; the other one comes from the page.
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


def verify_assertion(
    response: PasskeyResponse,
    *,
    party: RelyingParty,
    challenge: bytes,
    public_key: str,
    verified: bool,
) -> VerifiedAssertion | None:
    """Verify a response of ``navigator.credentials.get()``.

    Returns its data, or ``None`` if the response is invalid.

    Args:
        response: the response.
        party: the site that requested it.
        challenge: the challenge that was issued.
        public_key: of the credential, as in ``VerifiedRegistration``.
        verified: whether user verification is required.
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
            credential_current_sign_count=0,  # the caller checks the counter and detects clones
            require_user_verification=verified,
        )
    except Exception:  # noqa: BLE001 - as in ``verify_registration``
        return None
    # In a frame of another site the user does not see where the passkey is used (level 3, 13.4.9).
    if response.cross_origin:
        return None
    return VerifiedAssertion(
        sign_count=found.new_sign_count,
        backup_eligible=found.credential_device_type.value == _MULTI_DEVICE,
        backed_up=found.credential_backed_up,
        user_verified=found.user_verified,
    )
