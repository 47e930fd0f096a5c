"""What the second factor answers: plain values that cannot be misread and do not print secrets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mks_hardening.security.passkeys.passkey_results import Passkey
    from mks_hardening.security.second_factor.codes.recovery_codes import RecoveryCodes

__all__ = [
    "Enrolment",
    "PasskeyRegistration",
    "PasskeySignIn",
    "ReencryptionProgress",
    "RememberedDevice",
    "TwoFactorNotice",
    "TwoFactorStatus",
    "VerificationResult",
]

FactorChange = Literal[
    "enrolled", "disabled", "recovery_codes_regenerated", "passkey_registered", "passkey_revoked"
]
Method = Literal["totp", "recovery", "passkey"]
Reason = Literal["", "wrong", "replayed", "malformed", "locked", "not_enrolled", "expired", "cloned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What to show once to a person who sets up an authenticator; its repr hides the secret.

    Attributes:
        secret: the new secret in base32, to be typed where a camera is missing.
        provisioning_uri: the same for the authenticator app.
        expires_at: wall time until which a code must have confirmed it.
    """

    secret: str = field(repr=False)
    provisioning_uri: str = field(repr=False)
    expires_at: float

    @property
    def qr_code(self) -> str:
        """The provisioning URI as a PNG in a ``data:`` URI; made when asked for, needs the extra ``qr``."""
        from mks_hardening.security.second_factor.codes.qr import qr_code

        return qr_code(self.provisioning_uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationResult:
    """Whether a code was accepted; true when it was.

    Attributes:
        ok: accepted.
        method: ``totp``, ``recovery`` or ``passkey``: what the code was, if it could be one.
        reason: why not: ``wrong``, ``replayed`` (right but used; not counted), ``malformed`` (not counted),
            ``locked``, ``not_enrolled``; of a passkey also ``expired`` (its challenge was not issued for this, is
            too old or was answered before; not counted) and ``cloned`` (its counter ran backwards; not counted);
            empty when accepted.
        retry_after: seconds until a TOTP code is looked at again; ``None`` without a lock, and where waiting does
            not help: then a recovery code, a remembered device or ``unlock`` does.
        recovery_codes_left: recovery codes not used yet.
        locked: no TOTP code of this client is looked at now; a recovery code and a passkey are.
        user_verified: a passkey has verified its user (fingerprint, face, PIN): two factors in one.
    """

    ok: bool
    method: Method | None = None
    reason: Reason = ""
    retry_after: float | None = None
    recovery_codes_left: int = 0
    locked: bool = False
    user_verified: bool = False

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyRegistration:
    """A passkey that was registered.

    Attributes:
        passkey: as its owner sees it.
        recovery_codes: in clear for the only time, where this is the first factor of the account; else ``None``.
    """

    passkey: Passkey
    recovery_codes: RecoveryCodes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeySignIn:
    """Whether a passkey alone has signed somebody in; true when it has.

    Attributes:
        user_id: who; empty unless accepted.
        result: as of ``verify``; its reasons are for the log, not for the person: answer all of them alike.
    """

    user_id: str
    result: VerificationResult

    def __bool__(self) -> bool:
        return self.result.ok


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoFactorStatus:
    """Where an account stands.

    Attributes:
        enabled: a second factor is needed to sign in.
        pending: an enrolment waits for its first code.
        locked: no TOTP code of this client is looked at now; a recovery code is.
        retry_after: seconds until one is; ``None`` without a lock, and where waiting does not help.
        recovery_codes_left: recovery codes not used yet.
        recovery_codes_low: so few are left that the user should make new ones.
        totp: an authenticator app is enrolled.
        passkeys: passkeys registered.
    """

    enabled: bool
    pending: bool
    locked: bool
    retry_after: float | None
    recovery_codes_left: int
    recovery_codes_low: bool
    totp: bool
    passkeys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoFactorNotice:
    """What the owner of an account is to be told when a second factor has changed (ASVS 5.0, 6.3.7).

    Attributes:
        kind: ``enrolled`` (an authenticator app, in the place of a former one), ``disabled`` (every factor),
            ``recovery_codes_regenerated``, ``passkey_registered`` or ``passkey_revoked``. Of ``admin_reset`` and
            ``unlock`` the notices of ``SignIn`` tell.
        user_id: whose.
        passkey: what its owner calls the passkey; may be empty.
    """

    kind: FactorChange
    user_id: str
    passkey: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedDevice:
    """A device that needs no code for a while, as its owner sees it in a list.

    Attributes:
        id: for ``rename_device`` and ``revoke_device``; tells nothing of the token.
        name: what the owner calls it; may be empty.
        created_at: wall time; ``None`` where an older release did not keep it.
        used_at: wall time of its last use, to the day; ``None`` likewise.
        expires_at: wall time from which it is a stranger again.
        current: it is the one whose token was given.
    """

    id: str
    name: str
    created_at: float | None
    used_at: float | None
    expires_at: float
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReencryptionProgress:
    """One batch of re-encryption.

    Attributes:
        examined: records looked at.
        changed: records now encrypted with the first key.
        failed: records that could not be read; they are unchanged.
        cursor: give it to the next call; ``None`` at the end.
    """

    examined: int
    changed: int
    failed: int
    cursor: str | None
