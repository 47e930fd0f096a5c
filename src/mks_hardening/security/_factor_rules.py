"""The rules of a second factor: pure functions from one record to the next.

Nothing here reads a store or tells anybody; ``two_factor`` is the shell around it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security._factor_record import Device, FactorRecord
from mks_hardening.security._results import Method, VerificationResult
from mks_hardening.security.failure_budget import client_digest
from mks_hardening.security.recovery_codes import (
    RecoveryCodes,
    find_recovery_code,
    hash_recovery_code,
    new_salt,
    normalize_recovery_code,
)
from mks_hardening.security.totp import decode_secret, is_code, matching_step

if TYPE_CHECKING:
    from mks_hardening.security.failure_budget import FailureBudget
    from mks_hardening.security.secret_box import SecretBox

__all__ = ["METHODS", "FactorRules", "Moment", "token_digest", "with_recovery_codes"]

METHODS: Final[tuple[Method, ...]] = ("totp", "recovery")
_PERIOD: Final = 30
_ACTIVE: Final = "totp"
_PENDING: Final = "totp-pending"


class Moment(NamedTuple):
    """Now, twice.

    Attributes:
        wall: the wall clock, for the time step of a code.
        latest: the latest wall time the record has seen, for everything that expires.
    """

    wall: float
    latest: float


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

    def attempt(
        self,
        record: FactorRecord,
        moment: Moment,
        user_id: str,
        code: object,
        *,
        client: str | None = None,
        methods: Sequence[Method] = METHODS,
    ) -> tuple[FactorRecord, VerificationResult]:
        """One guess: the record after it, and the answer. Only a well-formed guess costs anything."""
        if record.secret is None:
            return record, VerificationResult(ok=False, reason="not_enrolled")
        left = len(record.recovery)
        who = client_digest(user_id, client)
        lock = self._budget.lock_of(record.failures, who, moment.latest)
        if lock is not None:
            return record, VerificationResult(False, None, "locked", lock.retry_after, left, locked=True)
        if "totp" in methods and is_code(code):
            step = self._step_of(record.secret, user_id, _ACTIVE, code, moment)
            return self._settle_totp(record, moment, who, step)
        normal = normalize_recovery_code(code) if "recovery" in methods else None
        if normal is None:
            return record, VerificationResult(False, None, "malformed", None, left)
        found = find_recovery_code(normal, record.recovery, salt=record.salt)
        return self._settle_recovery(record, moment, who, found)

    def confirm(
        self, record: FactorRecord, moment: Moment, user_id: str, code: object
    ) -> tuple[FactorRecord, InvalidCodeError | None]:
        """The first code of a pending secret; success replaces everything that was before."""
        pending = record.pending
        if pending is None:
            return record, InvalidCodeError("no_enrolment")
        if moment.latest >= pending.expires_at:
            return record._replace(pending=None), InvalidCodeError("expired")
        lock = self._budget.lock_of(record.enrolment_failures, "", moment.latest)
        if lock is not None:
            return record, InvalidCodeError("locked", retry_after=lock.retry_after)
        if not is_code(code):
            return record, InvalidCodeError("malformed")
        step = self._step_of(pending.secret, user_id, _PENDING, code, moment)
        if step is None:
            failures = self._budget.charged(record.enrolment_failures, "", moment.latest)
            return record._replace(enrolment_failures=failures), InvalidCodeError("wrong")
        secret = self._box.decrypt(pending.secret, user_id=user_id, purpose=_PENDING)
        sealed = self._box.encrypt(secret, user_id=user_id, purpose=_ACTIVE)
        return FactorRecord(secret=sealed, last_step=step, verified_at=moment.latest), None

    def resealed(self, record: FactorRecord, user_id: str) -> FactorRecord:
        """The record with every secret under the first key."""
        secret, pending = record.secret, record.pending
        if secret is not None:
            secret = self._reseal(secret, user_id, _ACTIVE)
        if pending is not None:
            pending = pending._replace(secret=self._reseal(pending.secret, user_id, _PENDING))
        return record._replace(secret=secret, pending=pending)

    def _reseal(self, sealed: str, user_id: str, purpose: str) -> str:
        if not self._box.needs_rotation(sealed):
            return sealed
        secret = self._box.decrypt(sealed, user_id=user_id, purpose=purpose)
        return self._box.encrypt(secret, user_id=user_id, purpose=purpose)

    def _step_of(self, sealed: str, user_id: str, purpose: str, code: str, moment: Moment) -> int | None:
        key = decode_secret(self._box.decrypt(sealed, user_id=user_id, purpose=purpose))
        return matching_step(key, code, int(moment.wall // _PERIOD), window=self._window)

    def _settle_totp(
        self, record: FactorRecord, moment: Moment, who: str, step: int | None
    ) -> tuple[FactorRecord, VerificationResult]:
        if step is None:
            return self._charged(record, moment, who, "totp")
        if step <= record.last_step:
            # A used code proves that the sender saw it, not that somebody guesses: a double click costs nothing.
            return record, VerificationResult(False, "totp", "replayed", None, len(record.recovery))
        return self._accepted(record._replace(last_step=step), moment, who, "totp")

    def _settle_recovery(
        self, record: FactorRecord, moment: Moment, who: str, found: str | None
    ) -> tuple[FactorRecord, VerificationResult]:
        if found is None:
            return self._charged(record, moment, who, "recovery")
        left = tuple(known for known in record.recovery if known != found)
        return self._accepted(record._replace(recovery=left), moment, who, "recovery")

    def _accepted(
        self, record: FactorRecord, moment: Moment, who: str, method: Method
    ) -> tuple[FactorRecord, VerificationResult]:
        failures = self._budget.forgiven(record.failures, who, moment.latest)
        after = record._replace(failures=failures, verified_at=moment.latest)
        return after, VerificationResult(True, method, "", None, len(after.recovery))

    def _charged(
        self, record: FactorRecord, moment: Moment, who: str, method: Method
    ) -> tuple[FactorRecord, VerificationResult]:
        failures = self._budget.charged(record.failures, who, moment.latest)
        lock = self._budget.lock_of(failures, who, moment.latest)
        retry_after, locked = (None, False) if lock is None else (lock.retry_after, True)
        result = VerificationResult(False, method, "wrong", retry_after, len(record.recovery), locked)
        return record._replace(failures=failures), result


def with_recovery_codes(record: FactorRecord, codes: RecoveryCodes) -> FactorRecord:
    """The record with these recovery codes in the place of all others."""
    salt = new_salt()
    hashes = tuple(hash_recovery_code(code.replace("-", ""), salt=salt) for code in codes)
    return record._replace(salt=salt, recovery=hashes)


def with_device(
    record: FactorRecord, digest: str, *, now: float, expires_at: float, most: int
) -> FactorRecord:
    """The record with one more remembered device; the one that expires first gives way."""
    alive = sorted((d for d in record.devices if d.expires_at > now), key=lambda device: device.expires_at)
    kept = alive[max(0, len(alive) - most + 1) :]
    return record._replace(devices=(*kept, Device(digest, expires_at)))


def token_digest(user_id: str, token: str) -> str:
    """The stored form of a device token; tokens are random, so a fast hash is enough."""
    return hashlib.sha256(f"{user_id}\0{token}".encode("utf-8", "surrogatepass")).hexdigest()
