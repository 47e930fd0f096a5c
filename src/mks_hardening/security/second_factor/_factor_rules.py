"""The rules of a second factor: pure functions from one record to the next.

Nothing here reads a store or tells anybody; ``_record_updates`` is the shell around it.
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
    FactorMoment,
    FactorRecord,
    StoredPasskey,
)
from mks_hardening.security.second_factor._passkey_rules import PresentedPasskey, judged
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
# Fixed: Google Authenticator and others ignore what the URI says of period, digits and algorithm.
PERIOD: Final = 30
# Purposes are bound into the sealed text as associated data: a pending secret that is copied over the active one
# in a stolen database does not decrypt.
_ACTIVE: Final = "totp"
_PENDING: Final = "totp-pending"
_DIGESTS: Final = "digest-key"
_LONGEST_TOKEN: Final = 128
_MARK: Final = 16


class _Guess(NamedTuple):
    """Who guesses: a client by its digest, or a remembered device; and when, and whether it passes the cap."""

    who: str
    device: DeviceRecord | None
    now: float
    trusted: bool = False


class FactorRules:
    """The decisions, with what they need to know: keys, budget and window."""

    __slots__ = ("_box", "_budget", "_window")

    def __init__(self, box: SecretBox, budget: FailureBudget, *, window: int) -> None:
        self._box = box
        self._budget = budget
        self._window = window

    def seal_pending(self, secret: str, user_id: str) -> str:
        """The stored form of a secret that waits for confirmation."""
        return self._box.encrypt(secret, user_id=user_id, purpose=_PENDING)

    def seal_adopted(self, secret: str, user_id: str) -> str:
        """The stored form of a secret that was confirmed elsewhere.

        Raises:
            ConfigurationError: it is not base32, or too short.
        """
        # One spelling, as other libraries store blanks, lower case and padding.
        key = decode_secret(secret)
        return self._box.encrypt(
            base64.b32encode(key).decode("ascii").rstrip("="), user_id=user_id, purpose=_ACTIVE
        )

    def keyed(self, record: FactorRecord, user_id: str) -> tuple[FactorRecord, KeyedDigests]:
        """The digests of an account, and its record with a key for them.

        A record of the first form has none: it gets one, and what it holds is keyed as it stands, so that every
        recovery code and device goes on working.
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
        """The record with these recovery codes in the place of all others."""
        record, digests = self.keyed(record, user_id)
        salt = new_salt()
        known = [digests.of_recovery_code(code.replace("-", ""), salt=salt) for code in codes]
        return record._replace(salt=salt, recovery=frozenset(known), used=frozenset())

    def factor_marks(self, record: FactorRecord, user_id: str) -> frozenset[str]:
        """One mark for each factor of an account; it disappears when that factor is replaced or removed.

        The recovery codes are one factor. Marks tell nothing of the factors, and key rotation keeps them.
        """
        if not record.enabled:
            return frozenset()
        factors = [f"passkey {one.credential}" for one in record.passkeys]
        factors.append(f"recovery {record.salt}")
        if record.secret is not None:
            factors.append(f"totp {self._box.decrypt(record.secret, user_id=user_id, purpose=_ACTIVE)}")
        return frozenset(hashlib.sha256(factor.encode("ascii")).hexdigest()[:_MARK] for factor in factors)

    def attempt(
        self,
        record: FactorRecord,
        moment: FactorMoment,
        user_id: str,
        code: object,
        *,
        client: str | None = None,
        device: object = None,
        trusted: bool = False,
        methods: Sequence[Method] = METHODS,
    ) -> tuple[FactorRecord, VerificationResult]:
        """One guess: the record after it, and the answer. Only a well-formed guess costs anything."""
        if not record.enabled:
            return record, VerificationResult(ok=False, reason="not_enrolled")
        record, guess = self._guess(record, moment, user_id, client, device)
        guess = guess._replace(trusted=trusted or guess.device is not None)
        if isinstance(code, PresentedPasskey):
            if "passkey" not in methods:
                return record, self._refused(record, "malformed")
            return self._settle_passkey(record, guess, code)
        normal = normalize_recovery_code(code) if "recovery" in methods else None
        if normal is not None:
            record, digests = self.keyed(record, user_id)
            digest = digests.of_recovery_code(normal, salt=record.salt)
            if digest in record.recovery:
                # No lock holds a recovery code back: 120 bits are not guessed (NIST SP 800-63B, 5.1.2.2), and
                # whoever knows the password could lock the owner out for ever by guessing at the other kind.
                after = record._replace(recovery=record.recovery - {digest}, used=record.used | {digest})
                return self._accepted(after, guess, "recovery")
            # Known, but used: the owner is told so instead of being charged for a guess.
            if digest in record.used:
                return record, self._refused(
                    record, "replayed", method="recovery", lock=self._lock(record, guess)
                )
        # From here on it is guessing, so a lock holds before anything is computed.
        lock = self._lock(record, guess)
        if lock is not None:
            return record, self._refused(record, "locked", lock=lock)
        digits = typed_code(code) if "totp" in methods and record.secret is not None else None
        if digits is not None and record.secret is not None:
            step = self._step_of(record.secret, user_id, _ACTIVE, digits, moment)
            return self._settle_totp(record, guess, step)
        if normal is None:
            return record, self._refused(record, "malformed")
        return self._charged(record, guess, "recovery")

    def confirm(
        self, record: FactorRecord, moment: FactorMoment, user_id: str, code: object, *, client: str | None
    ) -> tuple[FactorRecord, InvalidCodeError | None]:
        """The first code of a pending secret, from the budget of all codes; success replaces what was before."""
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
        step = self._step_of(pending.secret, user_id, _PENDING, digits, moment)
        # Charged like any other code, or a thief of the session could try the space of codes on a pending secret.
        if step is None:
            failures = self._budget.charged(record.failures, guess.who, guess.now)
            return record._replace(failures=failures), InvalidCodeError("wrong")
        secret = self._box.decrypt(pending.secret, user_id=user_id, purpose=_PENDING)
        sealed = self._box.encrypt(secret, user_id=user_id, purpose=_ACTIVE)
        # A fresh record: devices and recovery codes were proofs of the secret that is being replaced.
        after = FactorRecord(secret=sealed, last_step=step, verified_at=moment.latest)
        return after._replace(passkeys=record.passkeys), None

    def resealed(self, record: FactorRecord, user_id: str) -> FactorRecord:
        """The record with every secret under the first key."""
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

    def _step_of(
        self, sealed: str, user_id: str, purpose: str, code: str, moment: FactorMoment
    ) -> int | None:
        key = decode_secret(self._box.decrypt(sealed, user_id=user_id, purpose=purpose))
        # By the wall clock and not by `latest`: the authenticator knows nothing of what this record has seen.
        return matching_step(key, code, int(moment.wall // PERIOD), window=self._window)

    def _guess(
        self, record: FactorRecord, moment: FactorMoment, user_id: str, client: str | None, device: object
    ) -> tuple[FactorRecord, _Guess]:
        known = None
        if is_token(device):
            record, digests = self.keyed(record, user_id)
            known = device_of(record, digests.of_device(user_id, device), now=moment.latest)
        # A remembered device is named by what it holds and not by its address, so strangers at the same address
        # do not share its budget.
        name = client if known is None else f"device {known.digest}"
        return record, _Guess(client_digest(user_id, name), known, moment.latest)

    def _lock(self, record: FactorRecord, guess: _Guess) -> FailureLock | None:
        return self._budget.lock_of(record.failures, guess.who, guess.now, trusted=guess.trusted)

    def _settle_totp(
        self, record: FactorRecord, guess: _Guess, step: int | None
    ) -> tuple[FactorRecord, VerificationResult]:
        if step is None:
            return self._charged(record, guess, "totp")
        if step <= record.last_step:
            # A used code proves that the sender saw it, not that somebody guesses: a double click costs nothing.
            return record, self._refused(record, "replayed", method="totp")
        return self._accepted(record._replace(last_step=step), guess, "totp")

    def _settle_passkey(
        self, record: FactorRecord, guess: _Guess, presented: PresentedPasskey
    ) -> tuple[FactorRecord, VerificationResult]:
        """A signature is not guessed either, so no lock holds it back; a wrong one is counted like a wrong code.

        Where nothing was asked before it, strangers could use up the owner's budget by it: there it is not counted.
        """
        judgement = judged(record, presented, now=guess.now)
        if judgement.passkey is not None:
            after = with_passkey(record, judgement.passkey)
            return self._accepted(after, guess, "passkey", user_verified=judgement.user_verified)
        lock = self._lock(record, guess)
        if judgement.reason == "wrong" and lock is None and not presented.alone:
            return self._charged(record, guess, "passkey")
        reason = "locked" if judgement.reason == "wrong" and lock is not None else judgement.reason
        return record, self._refused(record, reason, method="passkey", lock=lock)

    def _accepted(
        self, record: FactorRecord, guess: _Guess, method: Method, *, user_verified: bool = False
    ) -> tuple[FactorRecord, VerificationResult]:
        failures = self._budget.forgiven(record.failures, guess.who, guess.now)
        after = record._replace(failures=failures, verified_at=guess.now)
        return after, VerificationResult(
            ok=True, method=method, recovery_codes_left=len(after.recovery), user_verified=user_verified
        )

    def _charged(
        self, record: FactorRecord, guess: _Guess, method: Method
    ) -> tuple[FactorRecord, VerificationResult]:
        failures = self._budget.charged(record.failures, guess.who, guess.now)
        after = record._replace(failures=failures)
        lock = self._lock(after, guess)
        if lock is not None and guess.device is not None:  # it guesses, so it is somebody else's now
            after = after._replace(devices=tuple(d for d in after.devices if d.id != guess.device.id))
        # The codes left of the record before: a client that was just locked learns nothing new of the account.
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


def with_passkey(record: FactorRecord, passkey: StoredPasskey) -> FactorRecord:
    """The record with this passkey in the place of its former self, or as one more."""
    others = tuple(one for one in record.passkeys if one.credential != passkey.credential)
    return record._replace(passkeys=(*others, passkey))


def is_token(token: object) -> TypeGuard[str]:
    """Whether this can be the token of a device."""
    return isinstance(token, str) and 0 < len(token) <= _LONGEST_TOKEN


def device_of(record: FactorRecord, digest: str, *, now: float) -> DeviceRecord | None:
    """The remembered device with this digest, unless it has expired or the factor is off."""
    if not record.enabled:
        return None
    return next(
        (known for known in record.devices if known.digest == digest and now < known.expires_at), None
    )
