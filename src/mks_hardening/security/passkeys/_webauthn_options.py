"""Options for browsers in JSON form (WebAuthn level 3, sections 5.4 and 5.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mks_hardening.security.passkeys._ceremonies import ALGORITHMS
from mks_hardening.security.passkeys.passkey_results import PasskeyOptions

if TYPE_CHECKING:
    from mks_hardening.security.passkeys._challenges import IssuedChallenge
    from mks_hardening.security.passkeys.relying_party import RelyingParty

__all__ = ["creation_options", "request_options"]


def creation_options(
    party: RelyingParty,
    issued: IssuedChallenge,
    *,
    user: Mapping[str, object],
    known: Mapping[str, Sequence[str]],
) -> PasskeyOptions:
    """Return the options for ``navigator.credentials.create()``.

    They request no attestation, which would reduce the user's privacy.
    """
    # Discoverable and with user verification: otherwise the passkey could not be a sign-in on its own (level 3,
    # 5.4.6).
    wish = "required" if party.passwordless else "preferred"
    return PasskeyOptions(
        public_key={
            "rp": {"id": party.rp_id, "name": party.name},
            "user": user,
            "challenge": issued.challenge,
            "pubKeyCredParams": [{"type": "public-key", "alg": alg} for alg in ALGORITHMS],
            "timeout": int(party.challenge_ttl * 1000),
            "excludeCredentials": _descriptors(known),
            "authenticatorSelection": {
                "residentKey": wish,
                "requireResidentKey": party.passwordless,
                "userVerification": wish,
            },
            "attestation": "none",
        },
        expires_at=issued.expires_at,
    )


def request_options(
    party: RelyingParty, issued: IssuedChallenge, *, known: Mapping[str, Sequence[str]], verified: bool
) -> PasskeyOptions:
    """Return the options for ``navigator.credentials.get()``; without known credentials the user chooses one."""
    return PasskeyOptions(
        public_key={
            "rpId": party.rp_id,
            "challenge": issued.challenge,
            "timeout": int(party.challenge_ttl * 1000),
            "allowCredentials": _descriptors(known),
            "userVerification": "required" if verified else "preferred",
        },
        expires_at=issued.expires_at,
    )


def _descriptors(known: Mapping[str, Sequence[str]]) -> list[dict[str, object]]:
    """Return credentials, with their transports, as the browser expects them."""
    return [
        {"type": "public-key", "id": credential, "transports": [*transports]}
        for credential, transports in known.items()
    ]
