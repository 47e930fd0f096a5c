"""The second factor of an account: enrolment, codes, recovery, remembered devices.

The shell around ``_factor_rules``: it loads a record, lets the rules decide, and replaces the record only if nobody
else did meanwhile; a result is not told before it is recorded. So one code works once and parallel guesses cannot
exceed the failure budget, on any store with a compare-and-set. A store that is away raises
``BackendUnavailableError``: a second factor never fails open.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from mks_hardening._core import hooks
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.durations import seconds
from mks_hardening.events import TwoFactorEvent
from mks_hardening.exceptions import (
    BackendUnavailableError,
    ConfigurationError,
    DecodeError,
    InvalidCodeError,
)
from mks_hardening.security._factor_record import EMPTY, FactorRecord, Pending, decode_record, encode_record
from mks_hardening.security._factor_rules import (
    METHODS,
    FactorRules,
    Moment,
    token_digest,
    with_device,
    with_recovery_codes,
)
from mks_hardening.security._results import (
    Enrolment,
    Method,
    ReencryptionProgress,
    TwoFactorStatus,
    VerificationResult,
)
from mks_hardening.security.failure_budget import FailureBudget, client_digest
from mks_hardening.security.recovery_codes import RecoveryCodes, generate_recovery_codes
from mks_hardening.security.totp import check_label, generate_secret, provisioning_uri

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, StoredFactor, TwoFactorStore
    from mks_hardening.security.secret_box import SecretBox

__all__ = ["TwoFactorManager"]

_R = TypeVar("_R")
_CONFLICTS_BORNE: Final = 64


class TwoFactorManager:
    """Second factors with TOTP and recovery codes over any ``TwoFactorStore``.

    Every method raises ``BackendUnavailableError`` when the store does not answer.

    Args:
        store: where the records live.
        issuer: name shown by authenticator apps.
        secret_box: encrypts the secrets in the store.
        drift_window: time steps of 30 s accepted before and after the present one, 0 to 2 (ASVS 5.0, 6.5.5).
        enrolment_ttl: time to confirm an enrolment, in seconds.
        recovery_codes: how many are issued, 8 to 20.
        low_water: so many left, or fewer, count as low.
        failure_budget: wrong codes borne, TOTP and recovery together.
        device_ttl: how long a device is remembered, in seconds.
        max_devices: devices remembered; the one that expires first gives way.
        clock: for tests.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    def __init__(
        self,
        store: TwoFactorStore,
        *,
        issuer: str,
        secret_box: SecretBox,
        drift_window: int = 1,
        enrolment_ttl: float | timedelta = 600,
        recovery_codes: int = 10,
        low_water: int = 3,
        failure_budget: FailureBudget | None = None,
        device_ttl: float | timedelta = 30 * 86400,
        max_devices: int = 10,
        clock: Clock | None = None,
    ) -> None:
        check_label(issuer, parameter="issuer")
        for name, value, low, high in (
            ("drift_window", drift_window, 0, 2),
            ("recovery_codes", recovery_codes, 8, 20),
            ("low_water", low_water, 0, 20),
            ("max_devices", max_devices, 1, 100),
        ):
            if type(value) is not int or not low <= value <= high:
                raise ConfigurationError(f"{name} must be an integer from {low} to {high}", parameter=name)
        self._store = store
        self._issuer = issuer
        self._budget = FailureBudget() if failure_budget is None else failure_budget
        self._rules = FactorRules(secret_box, self._budget, window=drift_window)
        self._enrolment_ttl = seconds(enrolment_ttl, parameter="enrolment_ttl", allow_zero=False)
        self._recovery_codes = recovery_codes
        self._low_water = low_water
        self._device_ttl = seconds(device_ttl, parameter="device_ttl", allow_zero=False)
        self._max_devices = max_devices
        self._clock: Clock = SYSTEM_CLOCK if clock is None else clock

    def begin_enrolment(
        self, user_id: str, *, account_name: str, proof: str | None = None, client: str | None = None
    ) -> Enrolment:
        """A new secret to be confirmed; a factor that is on keeps working until then.

        Ask for the password again before: where no factor is on yet, the session alone is the proof.

        Args:
            user_id: whose.
            account_name: name shown by the authenticator app.
            proof: a valid code, needed when a factor is on, so that a stolen session cannot swap it.
            client: see ``verify``.

        Raises:
            InvalidCodeError: a factor is on and the proof was not accepted.
            ConfigurationError: the account name cannot stand in a provisioning URI.
        """
        secret = generate_secret()
        uri = provisioning_uri(secret, account_name=account_name, issuer=self._issuer)
        sealed = self._rules.seal_pending(secret, user_id)

        def decide(record: FactorRecord, moment: Moment) -> tuple[FactorRecord, VerificationResult | float]:
            if record.secret is not None:
                record, result = self._rules.attempt(record, moment, user_id, proof, client=client)
                if not result:
                    return record, result
            expires_at = moment.latest + self._enrolment_ttl
            return record._replace(pending=Pending(sealed, expires_at)), expires_at

        outcome = self._change(user_id, decide)
        if isinstance(outcome, VerificationResult):
            raise _refusal(user_id, outcome)
        _tell("enrolment_begun", user_id)
        return Enrolment(secret, provisioning_uri=uri, expires_at=outcome)

    def cancel_enrolment(self, user_id: str) -> bool:
        """Forget the pending secret; whether there was one. A factor that is on stays on."""
        cancelled = self._change(
            user_id, lambda record, _: (record._replace(pending=None), record.pending is not None)
        )
        if cancelled:
            _tell("enrolment_cancelled", user_id)
        return cancelled

    def confirm_enrolment(self, user_id: str, code: str) -> RecoveryCodes:
        """Turn the pending secret on with its first code, which is then used up, and issue recovery codes.

        A factor that was on before is replaced, with its recovery codes and remembered devices.

        Returns:
            The recovery codes, in clear for the only time.

        Raises:
            InvalidCodeError: the code is ``wrong`` or ``malformed`` (the pending secret stays), the enrolment is
                ``expired`` or there is ``no_enrolment``, or it is ``locked`` after too many wrong codes.
        """
        codes = generate_recovery_codes(self._recovery_codes)

        def decide(record: FactorRecord, moment: Moment) -> tuple[FactorRecord, InvalidCodeError | None]:
            after, error = self._rules.confirm(record, moment, user_id, code)
            return (after if error else with_recovery_codes(after, codes)), error

        error = self._change(user_id, decide)
        if error is not None:
            _tell("enrolment_refused", user_id, reason=error.reason)
            raise error
        _tell("enrolled", user_id)
        return codes

    def verify(
        self,
        user_id: str,
        code: str,
        *,
        client: str | None = None,
        methods: Sequence[Method] = METHODS,
    ) -> VerificationResult:
        """Check a code and use it up.

        Args:
            user_id: whose; the first factor has been checked already.
            code: what the person typed. A TOTP code is exactly six ASCII digits; anything else is ``malformed``
                and not counted.
            client: who asks, for example ``client_key(ip)`` or a name for a remembered device. Each client has
                its own failure budget, so that one that guesses does not lock out the others.
            methods: what is accepted.

        Raises:
            DecodeError: the stored record or secret cannot be read, for example because its key is missing.
        """
        result = self._change(
            user_id,
            lambda record, moment: self._rules.attempt(
                record, moment, user_id, code, client=client, methods=methods
            ),
        )
        _tell_result(user_id, result)
        if result.method == "recovery" and result and result.recovery_codes_left <= self._low_water:
            _tell("recovery_codes_low", user_id)
        return result

    def regenerate_recovery_codes(
        self, user_id: str, *, proof: str, client: str | None = None
    ) -> RecoveryCodes:
        """New recovery codes in the place of all former ones.

        Args:
            user_id: whose.
            proof: a valid code, which is used up.
            client: see ``verify``.

        Raises:
            InvalidCodeError: the proof was not accepted.
        """
        codes = generate_recovery_codes(self._recovery_codes)
        self._change_with_proof(user_id, proof, client, lambda record: with_recovery_codes(record, codes))
        _tell("recovery_codes_regenerated", user_id)
        return codes

    def disable(self, user_id: str, *, proof: str, client: str | None = None) -> None:
        """Turn the factor off and forget all of it, remembered devices too. End the user's other sessions as well.

        Args:
            user_id: whose.
            proof: a valid code, which is used up.
            client: see ``verify``.

        Raises:
            InvalidCodeError: the proof was not accepted.
        """
        self._change_with_proof(user_id, proof, client, lambda _: EMPTY)
        _tell("disabled", user_id)

    def unlock(self, user_id: str, *, actor: str) -> bool:
        """Forget all wrong codes; whether there were any.

        Args:
            user_id: whose.
            actor: who did it, for the event.
        """
        _need(actor, "actor")

        def decide(record: FactorRecord, _: Moment) -> tuple[FactorRecord, bool]:
            after = record._replace(failures=EMPTY.failures, enrolment_failures=EMPTY.enrolment_failures)
            return after, after != record

        changed = self._change(user_id, decide)
        _tell("unlocked", user_id, actor=actor)
        return changed

    def admin_reset(self, user_id: str, *, actor: str, reason: str) -> bool:
        """Take the factor off an account whose owner lost it, without a code; whether there was a record.

        Works on a damaged record too. Check by other means who asks, tell the owner, end the sessions.

        Args:
            user_id: whose.
            actor: who did it, for the event.
            reason: why, for the event.
        """
        _need(actor, "actor")
        _need(reason, "reason")
        for _ in range(_CONFLICTS_BORNE):
            stored = self._load(user_id)
            if stored is None or self._store.replace(
                user_id, None, expected=stored.version, version=_nonce()
            ):
                _tell("reset", user_id, reason=reason, actor=actor)
                return stored is not None
        raise _contended("admin_reset")

    def status(self, user_id: str, *, client: str | None = None) -> TwoFactorStatus:
        """Where the account stands, as seen by a client."""
        record, now = self._read(user_id)
        enabled = record.secret is not None
        lock = self._budget.lock_of(record.failures, client_digest(user_id, client), now)
        left = len(record.recovery)
        return TwoFactorStatus(
            enabled=enabled,
            pending=record.pending is not None and now < record.pending.expires_at,
            locked=lock is not None,
            retry_after=None if lock is None else lock.retry_after,
            recovery_codes_left=left,
            recovery_codes_low=enabled and left <= self._low_water,
        )

    def verified_within(self, user_id: str, seconds_ago: float | timedelta) -> bool:
        """Whether a code of this user was accepted so recently, on any of the user's sessions.

        For step-up of one session keep the time of ``verify`` in that session instead.
        """
        longest = seconds(seconds_ago, parameter="seconds_ago")
        record, now = self._read(user_id)
        return record.verified_at is not None and now - record.verified_at <= longest

    def remember_device(self, user_id: str) -> str:
        """A token for a cookie (``Secure``, ``HttpOnly``, ``SameSite=Lax``) by which the device is known again.

        Call it right after a code was accepted. Only a digest is stored.

        Raises:
            InvalidCodeError: no factor is on.
        """
        token = secrets.token_urlsafe(32)
        digest = token_digest(user_id, token)

        def decide(record: FactorRecord, moment: Moment) -> tuple[FactorRecord, bool]:
            if record.secret is None:
                return record, False
            now, expires_at = moment.latest, moment.latest + self._device_ttl
            return with_device(record, digest, now=now, expires_at=expires_at, most=self._max_devices), True

        if not self._change(user_id, decide):
            raise InvalidCodeError("not_enrolled")
        _tell("device_remembered", user_id)
        return token

    def check_device(self, user_id: str, token: str | None) -> bool:
        """Whether the token belongs to a remembered device of this user that has not expired."""
        if not isinstance(token, str) or not 0 < len(token) <= 128:
            return False
        record, now = self._read(user_id)
        wanted = token_digest(user_id, token)
        known = [device for device in record.devices if hmac.compare_digest(device.digest, wanted)]
        return record.secret is not None and any(now < device.expires_at for device in known)

    def forget_devices(self, user_id: str) -> int:
        """Forget all remembered devices; how many there were."""
        number = self._change(user_id, lambda record, _: (record._replace(devices=()), len(record.devices)))
        if number:
            _tell("devices_forgotten", user_id)
        return number

    def reencrypt(self, *, batch: int = 100, cursor: str | None = None) -> ReencryptionProgress:
        """Encrypt one batch of records with the first key of the secret box.

        Call it with the cursor of the former answer until that is ``None``. Starting again is harmless: what is
        under the first key already is left alone. Users may sign in meanwhile.

        Args:
            batch: about how many records to look at.
            cursor: where to go on.
        """
        user_ids, following = self._store.scan(cursor, limit=batch)
        outcomes = [self._reencrypt_one(user_id) for user_id in user_ids]
        return ReencryptionProgress(
            len(outcomes), outcomes.count("changed"), outcomes.count("failed"), following
        )

    def _reencrypt_one(self, user_id: str) -> str:
        def decide(record: FactorRecord, _: Moment) -> tuple[FactorRecord, str]:
            after = self._rules.resealed(record, user_id)
            return after, "changed" if after != record else "kept"

        try:
            return self._change(user_id, decide)
        except DecodeError:
            _tell("reencryption_failed", user_id)
            return "failed"

    def _change_with_proof(
        self, user_id: str, proof: str, client: str | None, change: Callable[[FactorRecord], FactorRecord]
    ) -> None:
        def decide(record: FactorRecord, moment: Moment) -> tuple[FactorRecord, VerificationResult]:
            after, result = self._rules.attempt(record, moment, user_id, proof, client=client)
            return (change(after) if result else after), result

        result = self._change(user_id, decide)
        if not result:
            raise _refusal(user_id, result)

    def _change(self, user_id: str, decide: Callable[[FactorRecord, Moment], tuple[FactorRecord, _R]]) -> _R:
        """Decide on the present record until the outcome could be recorded, and only then answer."""
        for _ in range(_CONFLICTS_BORNE):
            stored = self._load(user_id)
            before = _record_of(stored)
            moment = self._moment(before)
            after, result = decide(before, moment)
            if after == before:
                return result
            nothing_left = after._replace(touched=0.0) == EMPTY
            data = None if nothing_left else encode_record(after._replace(touched=moment.latest))
            expected = None if stored is None else stored.version
            if self._store.replace(user_id, data, expected=expected, version=_nonce()):
                return result
        raise _contended("replace")

    def _read(self, user_id: str) -> tuple[FactorRecord, float]:
        record = _record_of(self._load(user_id))
        return record, self._moment(record).latest

    def _load(self, user_id: str) -> StoredFactor | None:
        _check_user_id(user_id)
        return self._store.load(user_id)

    def _moment(self, record: FactorRecord) -> Moment:
        wall = self._clock.time()
        return Moment(wall, max(wall, record.touched))


def _record_of(stored: StoredFactor | None) -> FactorRecord:
    return EMPTY if stored is None else decode_record(stored.data)


def _tell(change: str, user_id: str, *, method: str = "", reason: str = "", actor: str = "") -> None:
    if hooks.observers:
        hooks.emit(TwoFactorEvent(change, user_id, method, reason, actor))


def _tell_result(user_id: str, result: VerificationResult) -> None:
    _tell("verified" if result else "refused", user_id, method=result.method or "", reason=result.reason)
    if result.reason == "wrong" and result.locked:
        _tell("locked", user_id, method=result.method or "")


def _refusal(user_id: str, result: VerificationResult) -> InvalidCodeError:
    _tell_result(user_id, result)
    return InvalidCodeError(result.reason, retry_after=result.retry_after)


def _need(text: object, parameter: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError(f"{parameter} must be a text that is not blank", parameter=parameter)


def _check_user_id(user_id: object) -> None:
    """What every store can keep as it is: no NUL for PostgreSQL, no lone surrogates for UTF-8."""
    _need(user_id, "user_id")
    text = str(user_id)
    if len(text) > 255 or any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text):
        raise ConfigurationError("user_id must be at most 255 characters without NUL", parameter="user_id")


def _nonce() -> str:
    return secrets.token_hex(8)


def _contended(operation: str) -> BackendUnavailableError:
    return BackendUnavailableError("two-factor store", "busy", operation=operation)
