"""Options for browsers in JSON form (WebAuthn level 3, sections 5.4 and 5.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mks_hardening.security.passkeys._ceremonies import ALGORITHMS
from mks_hardening.security.passkeys.passkey_results import PasskeyOptions

if TYPE_CHECKING:
    from mks_hardening.security.passkeys._challenges import IssuedChallenge
    from mks_hardening.security.passkeys.relying_party import RelyingParty

__all__ = ["KnownCredential", "creation_options", "request_options"]


class KnownCredential(NamedTuple):
    """A credential that is registered already."""

    credential: str
    transports: tuple[str, ...]


def creation_options(
    party: RelyingParty,
    issued: IssuedChallenge,
    *,
    user: Mapping[str, object],
    known: Sequence[KnownCredential],
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
            "excludeCredentials": [_descriptor(one) for one in known],
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
    party: RelyingParty, issued: IssuedChallenge, *, known: Sequence[KnownCredential], verified: bool
) -> PasskeyOptions:
    """Return the options for ``navigator.credentials.get()``; without known credentials the user chooses one."""
    return PasskeyOptions(
        public_key={
            "rpId": party.rp_id,
            "challenge": issued.challenge,
            "timeout": int(party.challenge_ttl * 1000),
            "allowCredentials": [_descriptor(one) for one in known],
            "userVerification": "required" if verified else "preferred",
        },
        expires_at=issued.expires_at,
    )


def _descriptor(known: KnownCredential) -> dict[str, object]:
    return {"type": "public-key", "id": known.credential, "transports": [*known.transports]}
