"""Rules of second factors: pure functions from one record to the next.

Nothing here reads a store or emits an event; ``_record_updates`` does the reading and writing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeGuard

from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security.second_factor._digests import KeyedDigests, new_digest_key
from mks_hardening.security.second_factor._factor_record import (
    DeviceRecord,
    FactorRecord,
    RecordTime,
    StoredPasskey,
)
from mks_hardening.security.second_factor._passkey_rules import PresentedPasskey, check_assertion
from mks_hardening.security.second_factor.codes.recovery_codes import (
    RecoveryCodes,
    new_salt,
    normalize_recovery_code,
)
from mks_hardening.security.second_factor.codes.totp import decode_secret, matching_step, typed_code
from mks_hardening.security.second_factor.factor_results import Method, Reason, VerificationResult
from mks_hardening.security.second_factor.failure_budget import client_digest

if TYPE_CHECKING:
    from mks_hardening.security.second_factor.failure_budget import FailureBudget, FailureLock
    from mks_hardening.security.secret_box import SecretBox

__all__ = ["METHODS", "PERIOD", "FactorRules", "device_of", "is_token", "with_passkey"]

METHODS: Final[tuple[Method, ...]] = ("totp", "recovery", "passkey")
# Fixed: Google Authenticator and others ignore period, digits and algorithm in the URI.
PERIOD: Final = 30
# The purpose is part of the associated data of the encryption: in a stolen database, a pending secret copied over
# the active one does not decrypt.
_ACTIVE: Final = "totp"
_PENDING: Final = "totp-pending"
_DIGESTS: Final = "digest-key"
_LONGEST_TOKEN: Final = 128
_FINGERPRINT: Final = 16


class _Guess(NamedTuple):
    """The device that an attempt comes from, and when.

    ``who`` is the digest of a client or of a remembered device. A trusted guess bypasses the limit of the account.
    """

    who: str
    device: DeviceRecord | None
    now: float
    trusted: bool = False


class FactorRules:
    """Decisions about codes, with the secret box, the failure budget and the drift window."""

    __slots__ = ("_box", "_budget", "_window")

    def __init__(self, box: SecretBox, budget: FailureBudget, *, window: int) -> None:
        self._box = box
        self._budget = budget
        self._window = window

    def seal_pending(self, secret: str, user_id: str) -> str:
        """Encrypt a secret that awaits confirmation."""
        return self._box.encrypt(secret, user_id=user_id, purpose=_PENDING)

    def seal_adopted(self, secret: str, user_id: str) -> str:
        """Encrypt a secret that was confirmed elsewhere.

        Raises:
            ConfigurationError: it is not base32, or too short.
        """
        # Normalised, because other libraries store spaces, lower case and padding.
        key = decode_secret(secret)
        return self._box.encrypt(
            base64.b32encode(key).decode("ascii").rstrip("="), user_id=user_id, purpose=_ACTIVE
        )

    def keyed(self, record: FactorRecord, user_id: str) -> tuple[FactorRecord, KeyedDigests]:
        """Return the digests of an account, and its record with a key for them.

        A record of version 1 has no key: it gets one, and its hashes are converted to keyed digests, so that
        every recovery code and device remains valid.
        """
        if record.key:
            return record, KeyedDigests(self._box.decrypt(record.key, user_id=user_id, purpose=_DIGESTS))
        key = new_digest_key()
        digests = KeyedDigests(key)
        return record._replace(
            key=self._box.encrypt(key, user_id=user_id, purpose=_DIGESTS),
            recovery=frozenset(digests.of_salted_code(known) for known in record.recovery),
            devices=tuple(
                known._replace(digest=digests.of_hashed_token(known.digest)) for known in record.devices
            ),
        ), digests

    def with_recovery_codes(self, record: FactorRecord, user_id: str, codes: RecoveryCodes) -> FactorRecord:
        """Return the record with these recovery codes instead of all previous ones."""
        record, digests = self.keyed(record, user_id)
        salt = new_salt()
        known = [digests.of_recovery_code(code.replace("-", ""), salt=salt) for code in codes]
        return record._replace(salt=salt, recovery=frozenset(known), used=frozenset())

    def factor_fingerprints(self, record: FactorRecord, user_id: str) -> frozenset[str]:
        """Return one fingerprint per factor of an account; it disappears when that factor is replaced or removed.

        The recovery codes are one factor. Fingerprints reveal nothing about the factors and survive a key rotation.
        """
        if not record.enabled:
            return frozenset()
        fingerprints = {_fingerprint("passkey", one.credential) for one in record.passkeys}
        fingerprints.add(_fingerprint("recovery", record.salt))
        if record.secret is not None:
            secret = self._box.decrypt(record.secret, user_id=user_id, purpose=_ACTIVE)
            fingerprints.add(_fingerprint("totp", secret))
        return frozenset(fingerprints)

    def attempt(
        self,
        record: FactorRecord,
        moment: RecordTime,
        user_id: str,
        code: object,
        *,
        client: str | None = None,
        device: object = None,
        trusted: bool = False,
        methods: Sequence[Method] = METHODS,
    ) -> tuple[FactorRecord, VerificationResult]:
        """Check one code; return the record after it, and the result.

        Only a well-formed wrong guess is counted.
        """
        if not record.enabled:
            return record, VerificationResult(ok=False, reason="not_enrolled")
        record, guess = self._guess(record, moment, user_id, client, device)
        guess = guess._replace(trusted=trusted or guess.device is not None)
        if isinstance(code, PresentedPasskey):
            if "passkey" not in methods:
                return record, self._refused(record, "malformed")
            return self._check_passkey(record, guess, code)
        normal = normalize_recovery_code(code) if "recovery" in methods else None
        if normal is not None:
            record, digests = self.keyed(record, user_id)
            digest = digests.of_recovery_code(normal, salt=record.salt)
            if digest in record.recovery:
                # A lock does not apply to recovery codes: 120 bits cannot be guessed (NIST SP 800-63B, 5.1.2.2),
                # and otherwise anyone who knows the password could lock the owner out permanently by guessing
                # TOTP codes.
                after = record._replace(recovery=record.recovery - {digest}, used=record.used | {digest})
                return self._accepted(after, guess, "recovery", record.salt)
            # Known but used: the owner gets this reason, and no failure is counted.
            if digest in record.used:
                return record, self._refused(
                    record, "replayed", method="recovery", lock=self._lock(record, guess)
                )
        # Everything below can be guessed, so a lock applies before anything is computed.
        lock = self._lock(record, guess)
        if lock is not None:
            return record, self._refused(record, "locked", lock=lock)
        digits = typed_code(code) if "totp" in methods and record.secret is not None else None
        if digits is not None and record.secret is not None:
            secret = self._box.decrypt(record.secret, user_id=user_id, purpose=_ACTIVE)
            return self._check_totp(record, guess, secret, self._step_of(secret, digits, moment))
        if normal is None:
            return record, self._refused(record, "malformed")
        return self._charged(record, guess, "recovery")

    def confirm(
        self, record: FactorRecord, moment: RecordTime, user_id: str, code: object, *, client: str | None
    ) -> tuple[FactorRecord, InvalidCodeError | None]:
        """Check the first code of a pending secret, within the common failure budget.

        Success replaces the previous secret.
        """
        pending = record.pending
        if pending is None:
            return record, InvalidCodeError("no_enrolment")
        if moment.latest >= pending.expires_at:
            return record._replace(pending=None), InvalidCodeError("expired")
        guess = _Guess(client_digest(user_id, client), None, moment.latest)
        lock = self._lock(record, guess)
        if lock is not None:
            return record, InvalidCodeError("locked", retry_after=lock.retry_after)
        digits = typed_code(code)
        if digits is None:
            return record, InvalidCodeError("malformed")
        secret = self._box.decrypt(pending.secret, user_id=user_id, purpose=_PENDING)
        step = self._step_of(secret, digits, moment)
        # Counted like any other code: otherwise a thief of the session could try all codes on a pending secret.
        if step is None:
            failures = self._budget.charged(record.failures, guess.who, guess.now)
            return record._replace(failures=failures), InvalidCodeError("wrong")
        sealed = self._box.encrypt(secret, user_id=user_id, purpose=_ACTIVE)
        # A new record: devices and recovery codes belong to the secret that is being replaced.
        after = FactorRecord(secret=sealed, last_step=step, verified_at=moment.latest)
        return after._replace(passkeys=record.passkeys), None

    def resealed(self, record: FactorRecord, user_id: str) -> FactorRecord:
        """Return the record with every secret encrypted under the first key."""
        record, _ = self.keyed(record, user_id)
        secret, pending = record.secret, record.pending
        if secret is not None:
            secret = self._reseal(secret, user_id, _ACTIVE)
        if pending is not None:
            pending = pending._replace(secret=self._reseal(pending.secret, user_id, _PENDING))
        return record._replace(
            secret=secret, pending=pending, key=self._reseal(record.key, user_id, _DIGESTS)
        )

    def _reseal(self, sealed: str, user_id: str, purpose: str) -> str:
        if not self._box.needs_rotation(sealed):
            return sealed
        secret = self._box.decrypt(sealed, user_id=user_id, purpose=purpose)
        return self._box.encrypt(secret, user_id=user_id, purpose=purpose)

    def _step_of(self, secret: str, code: str, moment: RecordTime) -> int | None:
        # With the wall clock, not ``latest``: the authenticator does not know the time of this record.
        return matching_step(decode_secret(secret), code, int(moment.wall // PERIOD), window=self._window)

    def _guess(
        self, record: FactorRecord, moment: RecordTime, user_id: str, client: str | None, device: object
    ) -> tuple[FactorRecord, _Guess]:
        known = None
        if is_token(device):
            record, digests = self.keyed(record, user_id)
            known = device_of(record, digests.of_device(user_id, device), now=moment.latest)
        # A remembered device is identified by its token, not its address, so that strangers at the same address
        # do not share its budget.
        name = client if known is None else f"device {known.digest}"
        return record, _Guess(client_digest(user_id, name), known, moment.latest)

    def _lock(self, record: FactorRecord, guess: _Guess) -> FailureLock | None:
        return self._budget.lock_of(record.failures, guess.who, guess.now, trusted=guess.trusted)

    def _check_totp(
        self, record: FactorRecord, guess: _Guess, secret: str, step: int | None
    ) -> tuple[FactorRecord, VerificationResult]:
        if step is None:
            return self._charged(record, guess, "totp")
        if step <= record.last_step:
            # A used code is not a guess: a double click is not counted.
            return record, self._refused(record, "replayed", method="totp")
        return self._accepted(record._replace(last_step=step), guess, "totp", secret)

    def _check_passkey(
        self, record: FactorRecord, guess: _Guess, presented: PresentedPasskey
    ) -> tuple[FactorRecord, VerificationResult]:
        """Check an assertion; a wrong one is counted like a wrong code.

        A signature cannot be guessed, so a lock does not refuse a valid one. Without a first factor a wrong one
        is not counted: otherwise strangers could use up the owner's budget.
        """
        decision = check_assertion(record, presented, now=guess.now)
        if decision.passkey is not None:
            after = with_passkey(record, decision.passkey)
            return self._accepted(
                after, guess, "passkey", decision.passkey.credential, user_verified=decision.user_verified
            )
        lock = self._lock(record, guess)
        if decision.reason == "wrong" and lock is None and not presented.passwordless:
            return self._charged(record, guess, "passkey")
        reason = "locked" if decision.reason == "wrong" and lock is not None else decision.reason
        return record, self._refused(record, reason, method="passkey", lock=lock)

    def _accepted(
        self,
        record: FactorRecord,
        guess: _Guess,
        method: Method,
        identity: str,
        *,
        user_verified: bool = False,
    ) -> tuple[FactorRecord, VerificationResult]:
        failures = self._budget.forgiven(record.failures, guess.who, guess.now)
        after = record._replace(failures=failures, verified_at=guess.now)
        return after, VerificationResult(
            ok=True,
            method=method,
            recovery_codes_left=len(after.recovery),
            user_verified=user_verified,
            factor=_fingerprint(method, identity),
        )

    def _charged(
        self, record: FactorRecord, guess: _Guess, method: Method
    ) -> tuple[FactorRecord, VerificationResult]:
        failures = self._budget.charged(record.failures, guess.who, guess.now)
        after = record._replace(failures=failures)
        lock = self._lock(after, guess)
        if lock is not None and guess.device is not None:  # it guesses, so it may be stolen
            after = after._replace(devices=tuple(d for d in after.devices if d.id != guess.device.id))
        # A wrong guess leaves the recovery codes unchanged, so either record gives the number of unused ones.
        return after, self._refused(record, "wrong", method=method, lock=lock)

    def _refused(
        self,
        record: FactorRecord,
        reason: Reason,
        *,
        method: Method | None = None,
        lock: FailureLock | None = None,
    ) -> VerificationResult:
        return VerificationResult(
            ok=False,
            method=method,
            reason=reason,
            retry_after=None if lock is None else lock.retry_after,
            recovery_codes_left=len(record.recovery),
            locked=lock is not None,
        )


def _fingerprint(method: Method, identity: str) -> str:
    return hashlib.sha256(f"{method} {identity}".encode("ascii")).hexdigest()[:_FINGERPRINT]


def with_passkey(record: FactorRecord, passkey: StoredPasskey) -> FactorRecord:
    """Return the record with this passkey added or updated."""
    others = tuple(one for one in record.passkeys if one.credential != passkey.credential)
    return record._replace(passkeys=(*others, passkey))


def is_token(token: object) -> TypeGuard[str]:
    """Return whether the value can be a device token."""
    return isinstance(token, str) and 0 < len(token) <= _LONGEST_TOKEN


def device_of(record: FactorRecord, digest: str, *, now: float) -> DeviceRecord | None:
    """Return the remembered device with this digest, unless it has expired or the account has no factor."""
    if not record.enabled:
        return None
    return next(
        (known for known in record.devices if known.digest == digest and now < known.expires_at), None
    )
