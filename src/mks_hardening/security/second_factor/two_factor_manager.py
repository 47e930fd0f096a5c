"""Two-factor manager: enrolment, verification, recovery and remembered devices.

Each part has a module of its own, with operations over ``RecordUpdates``; the rules are pure functions. An
unavailable store raises ``BackendUnavailableError``: a second factor never fails open.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from mks_hardening._core.checks import function, instance, offers, whole_number
from mks_hardening._core.clock import given_clock
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security.passkeys._ceremonies import check_installed
from mks_hardening.security.passkeys._challenges import Challenges
from mks_hardening.security.passkeys.relying_party import RelyingParty
from mks_hardening.security.second_factor._component import FactorOptions, PasskeyContext
from mks_hardening.security.second_factor._enrolment import Enrolments
from mks_hardening.security.second_factor._factor_rules import FactorRules
from mks_hardening.security.second_factor._record_updates import RecordUpdates
from mks_hardening.security.second_factor._reencryption import Reencryption
from mks_hardening.security.second_factor._remembered_devices import RememberedDevices
from mks_hardening.security.second_factor._verification import Verification
from mks_hardening.security.second_factor.codes.recovery_codes import RECOVERY_CODES
from mks_hardening.security.second_factor.codes.totp import check_label
from mks_hardening.security.second_factor.failure_budget import FailureBudget
from mks_hardening.security.second_factor.passkeys import Passkeys

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, PasskeyStore, TwoFactorStore
    from mks_hardening.security.second_factor.factor_results import TwoFactorNotice
    from mks_hardening.security.secret_box import SecretBox

__all__ = ["TwoFactorManager"]


class TwoFactorManager(Enrolments, Verification, RememberedDevices, Reencryption):
    """Manage second factors with TOTP, passkeys and recovery codes, in any ``TwoFactorStore``.

    Every method raises ``BackendUnavailableError`` when the store does not respond, and has an asyncio version
    with the prefix ``a``, which calls the store in a worker thread if the store has no asyncio methods.

    Args:
        store: store of the records.
        issuer: name shown by authenticator apps.
        secret_box: encrypts the secrets in the store.
        drift_window: time steps of 30 s accepted before and after the current one, 0 to 2 (ASVS 5.0, 6.5.5).
        enrolment_ttl: time allowed to confirm an enrolment, in seconds.
        recovery_codes: number of codes to issue, 8 to 20.
        low_water: number of remaining codes that counts as low, as does any smaller number.
        failure_budget: limit on wrong codes, TOTP and recovery together.
        device_ttl: how long a device is remembered, in seconds.
        max_devices: maximum number of remembered devices; a new one replaces the one that expires first.
        relying_party: the site that passkeys belong to; without it passkeys are not available.
        passkey_store: store of passkey challenges and owners; required with ``relying_party``.
        on_notice: called with a notice to the owner of an account after a change of a factor. It must only
            enqueue the mail. Its exceptions are logged and undo nothing. May be ``async def`` if only the
            asyncio methods are used.
        clock: for tests.

    Raises:
        ConfigurationError: a value is out of range, or one of the two arguments for passkeys is missing.
        MissingDependencyError: webauthn is not installed, which ``relying_party`` requires.
    """

    def __init__(
        self,
        store: TwoFactorStore,
        *,
        issuer: str,
        secret_box: SecretBox,
        drift_window: int = 1,
        enrolment_ttl: float | timedelta = 600,
        recovery_codes: int = RECOVERY_CODES,
        low_water: int = 3,
        failure_budget: FailureBudget | None = None,
        device_ttl: float | timedelta = 30 * 86400,
        max_devices: int = 10,
        relying_party: RelyingParty | None = None,
        passkey_store: PasskeyStore | None = None,
        on_notice: Callable[[TwoFactorNotice], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        offers(store, "load", "replace", parameter="store", kind="a TwoFactorStore")
        offers(secret_box, "encrypt", "decrypt", parameter="secret_box", kind="a SecretBox")
        if failure_budget is not None:
            instance(failure_budget, FailureBudget, parameter="failure_budget")
        if on_notice is not None:
            function(on_notice, parameter="on_notice", may_be_async=True)
        check_label(issuer, parameter="issuer")
        window = whole_number(drift_window, parameter="drift_window", minimum=0, maximum=2)
        number = whole_number(recovery_codes, parameter="recovery_codes", minimum=8, maximum=20)
        low = whole_number(low_water, parameter="low_water", minimum=0, maximum=20)
        most = whole_number(max_devices, parameter="max_devices", minimum=1, maximum=100)
        enrolment_time = seconds(enrolment_ttl, parameter="enrolment_ttl", allow_zero=False)
        device_time = seconds(device_ttl, parameter="device_ttl", allow_zero=False)
        budget = FailureBudget() if failure_budget is None else failure_budget
        options = FactorOptions(issuer, enrolment_time, number, low, budget, device_time, most, on_notice)
        timer = given_clock(clock)
        records, rules = RecordUpdates(store, timer), FactorRules(secret_box, budget, window=window)
        passkey_context = _passkey_context(relying_party, passkey_store, timer)
        super().__init__(records, rules, options, passkey_context)
        self._passkeys = (
            None if passkey_context is None else Passkeys(records, rules, options, passkey_context)
        )

    @property
    def passkeys(self) -> Passkeys:
        """Registration, verification, passwordless sign-in and the list of passkeys.

        Raises:
            ConfigurationError: the manager was created without ``relying_party``.
        """
        if self._passkeys is None:
            raise ConfigurationError("passkeys require relying_party", parameter="relying_party")
        return self._passkeys


def _passkey_context(
    party: RelyingParty | None, store: PasskeyStore | None, clock: Clock
) -> PasskeyContext | None:
    if party is None and store is None:
        return None
    if party is None or store is None:
        missing = "relying_party" if party is None else "passkey_store"
        raise ConfigurationError("relying_party and passkey_store must be given together", parameter=missing)
    instance(party, RelyingParty, parameter="relying_party")
    offers(
        store,
        "save_challenge",
        "consume_challenge",
        "assign_owner",
        parameter="passkey_store",
        kind="a PasskeyStore",
    )
    # At construction: a missing package must not be discovered by the first user who signs in.
    check_installed()
    return PasskeyContext(party, Challenges(store, clock, ttl=party.challenge_ttl), store)
