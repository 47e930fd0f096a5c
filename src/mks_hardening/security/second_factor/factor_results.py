"""Result values of second factors, whose ``repr`` hides secrets."""

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
    """Data to show once to a user who sets up an authenticator; the ``repr`` hides the secret.

    Attributes:
        secret: the new secret in base32, for typing it without a camera.
        provisioning_uri: the secret as a URI for the authenticator app.
        expires_at: wall time until which a code must have confirmed it.
    """

    secret: str = field(repr=False)
    provisioning_uri: str = field(repr=False)
    expires_at: float

    @property
    def qr_code(self) -> str:
        """The provisioning URI as a PNG in a ``data:`` URI; created on access, requires the extra ``qr``."""
        from mks_hardening.security.second_factor.codes.qr import qr_code

        return qr_code(self.provisioning_uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationResult:
    """Result of checking a code; true if it was accepted.

    Attributes:
        ok: whether it was accepted.
        method: ``totp``, ``recovery`` or ``passkey``: the kind of the code, if it has the form of one.
        reason: why it was refused: ``wrong``, ``replayed`` (correct but used before; not counted),
            ``malformed`` (not counted), ``locked``, ``not_enrolled``; for a passkey also ``expired`` (its
            challenge was issued for something else, has expired or was used before; not counted) and ``cloned``
            (its counter did not increase; not counted); empty if accepted.
        retry_after: seconds until TOTP codes are checked again; ``None`` without a lock. ``None`` with a lock
            means that waiting does not help, only a recovery code, a remembered device or ``unlock``.
        recovery_codes_left: number of unused recovery codes.
        locked: TOTP codes of this client are refused without a check; recovery codes and passkeys are still
            checked.
        user_verified: a passkey has verified its user (fingerprint, face, PIN): two factors in one.
        factor: identifies the accepted factor for ``is_current``; empty unless accepted.
    """

    ok: bool
    method: Method | None = None
    reason: Reason = ""
    retry_after: float | None = None
    recovery_codes_left: int = 0
    locked: bool = False
    user_verified: bool = False
    factor: str = field(default="", repr=False, compare=False)

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyRegistration:
    """A new passkey.

    Attributes:
        passkey: as shown to its owner.
        recovery_codes: in clear text, this one time, if the passkey is the first factor of the account; else
            ``None``.
    """

    passkey: Passkey
    recovery_codes: RecoveryCodes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeySignIn:
    """Result of a sign-in with a passkey alone; true if accepted. It completes one sign-in.

    Attributes:
        user_id: the user; empty unless accepted.
        result: as returned by ``verify``; its reasons are for the log, not for the user: send the same response
            for all of them.
    """

    user_id: str
    result: VerificationResult
    _unused: list[None] = field(default_factory=lambda: [None], init=False, repr=False, compare=False)

    def __bool__(self) -> bool:
        return self.result.ok

    def consume(self) -> bool:
        """Return whether this is the first use of the result; ``SignIn.passwordless_sign_in`` calls it."""
        try:
            self._unused.pop()  # a list, because the result is immutable; atomic
        except IndexError:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoFactorStatus:
    """Status of the second factors of an account.

    Attributes:
        enabled: a second factor is required to sign in.
        pending: an enrolment awaits its first code.
        locked: TOTP codes of this client are refused without a check; recovery codes are still checked.
        retry_after: seconds until TOTP codes are checked again; ``None`` without a lock, or if waiting does not
            help.
        recovery_codes_left: number of unused recovery codes.
        recovery_codes_low: so few are left that the user should generate new ones.
        totp: whether an authenticator app is enrolled.
        passkeys: number of passkeys.
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
    """A message to the owner of an account after a change of a second factor (ASVS 5.0, 6.3.7).

    Attributes:
        kind: ``enrolled`` (an authenticator app, which replaces any previous one), ``disabled`` (every factor),
            ``recovery_codes_regenerated``, ``passkey_registered`` or ``passkey_revoked``. ``admin_reset`` and
            ``unlock`` cause notices of ``SignIn``.
        user_id: the id of the account.
        passkey: the owner's name for the passkey; may be empty.
    """

    kind: FactorChange
    user_id: str
    passkey: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedDevice:
    """A device that temporarily needs no code, as shown to its owner.

    Attributes:
        id: for ``rename_device`` and ``revoke_device``; reveals nothing about the token.
        name: the owner's name for it; may be empty.
        created_at: wall time; ``None`` if an older release did not store it.
        used_at: wall time of its last use, accurate to a day; ``None`` if an older release did not store it.
        expires_at: wall time from which it is no longer remembered.
        current: whether it is the device whose token was given.
    """

    id: str
    name: str
    created_at: float | None
    used_at: float | None
    expires_at: float
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReencryptionProgress:
    """Result of one batch of re-encryption.

    Attributes:
        examined: number of records read.
        changed: number of records newly encrypted with the first key.
        failed: number of records that could not be read; they are unchanged.
        cursor: pass it to the next call; ``None`` at the end.
    """

    examined: int
    changed: int
    failed: int
    cursor: str | None
