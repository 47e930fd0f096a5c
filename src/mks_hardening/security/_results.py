"""What the second factor answers: plain values that cannot be misread and do not print secrets."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = [
    "Enrolment",
    "Method",
    "Reason",
    "ReencryptionProgress",
    "TwoFactorStatus",
    "VerificationResult",
]

Method = Literal["totp", "recovery"]
Reason = Literal["", "wrong", "replayed", "malformed", "locked", "not_enrolled"]


class Enrolment:
    """What to show once to a person who sets up an authenticator; its repr hides the secret.

    Attributes:
        secret: the new secret in base32, to be typed where a camera is missing.
        provisioning_uri: the same for the authenticator app.
        expires_at: wall time until which a code must have confirmed it.
    """

    __slots__ = ("expires_at", "provisioning_uri", "secret")

    def __init__(self, secret: str, *, provisioning_uri: str, expires_at: float) -> None:
        self.secret: str = secret
        self.provisioning_uri: str = provisioning_uri
        self.expires_at: float = expires_at

    @property
    def qr_code(self) -> str:
        """The provisioning URI as a PNG in a ``data:`` URI; made when asked for, needs the extra ``qr``."""
        from mks_hardening.security.qr import qr_code

        return qr_code(self.provisioning_uri)

    def __repr__(self) -> str:
        return f"Enrolment(expires_at={self.expires_at:.0f})"


class VerificationResult(NamedTuple):
    """Whether a code was accepted; true when it was.

    Attributes:
        ok: accepted.
        method: ``totp`` or ``recovery``: what the code was, if it could be either.
        reason: why not: ``wrong``, ``replayed`` (right but used), ``malformed`` (not counted), ``locked``,
            ``not_enrolled``; empty when accepted.
        retry_after: seconds until a code is looked at again; ``None`` without a lock, and for an account that
            must be unlocked.
        recovery_codes_left: recovery codes not used yet.
        locked: no further code of this client is looked at now.
    """

    ok: bool
    method: Method | None = None
    reason: Reason = ""
    retry_after: float | None = None
    recovery_codes_left: int = 0
    locked: bool = False

    def __bool__(self) -> bool:
        return self.ok


class TwoFactorStatus(NamedTuple):
    """Where an account stands.

    Attributes:
        enabled: a second factor is needed to sign in.
        pending: an enrolment waits for its first code.
        locked: no code of this client is looked at now.
        retry_after: seconds until one is; ``None`` without a lock, and for an account that must be unlocked.
        recovery_codes_left: recovery codes not used yet.
        recovery_codes_low: so few are left that the user should make new ones.
    """

    enabled: bool
    pending: bool
    locked: bool
    retry_after: float | None
    recovery_codes_left: int
    recovery_codes_low: bool


class ReencryptionProgress(NamedTuple):
    """One batch of re-encryption.

    Attributes:
        examined: records looked at.
        changed: records now encrypted with the first key.
        failed: records that could not be read or were contended; they are unchanged.
        cursor: give it to the next call; ``None`` at the end.
    """

    examined: int
    changed: int
    failed: int
    cursor: str | None
