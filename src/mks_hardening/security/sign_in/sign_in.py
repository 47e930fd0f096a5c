"""Signing in, for ``def`` and ``async def``: name, password, second factor, session, and nothing in between.

The machine is a table; each step is an operation over the parts it was put together from. A server that is away
raises ``BackendUnavailableError``: nothing is skipped, and nothing is counted.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import function, instance, number, offers
from mks_hardening._core.clock import given_clock
from mks_hardening._core.durations import seconds
from mks_hardening._core.operations import arun, run
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security.passwords.hashing import process_hasher
from mks_hardening.security.rate_limits.rate_limiter import RateLimiter
from mks_hardening.security.sign_in import _admin_recovery, _reauthentication
from mks_hardening.security.sign_in._context import SignInContext, SignInRequest, asking
from mks_hardening.security.sign_in._device_tokens import DeviceTokens
from mks_hardening.security.sign_in._factor_step import (
    FactorAttempt,
    alone_step,
    challenged_user,
    factor_step,
)
from mks_hardening.security.sign_in._one_time_tokens import OneTimeTokens
from mks_hardening.security.sign_in._password_step import PasswordAttempt, password_step
from mks_hardening.security.sign_in._session_facts import facts_of, is_recent
from mks_hardening.security.sign_in.sign_in_results import (
    SIGN_IN_LIMITS,
    SignInClient,
    SignInDevice,
    SignInNotice,
    SignInStep,
)

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, SignInSession
    from mks_hardening.security.sign_in.sign_in_protocols import (
        Accounts,
        AloneOutcome,
        FactorVerifier,
        FailureLimiter,
        PasswordCheck,
        SignInStore,
    )

__all__ = ["SignIn"]

# A person looks for the telephone within a minute or ten; longer, and the password's proof goes stale.
_SHORTEST_CHALLENGE: Final = 60
_LONGEST_CHALLENGE: Final = 600


class SignIn:
    """One way in for all accounts, over parts that meet by protocols.

    - Unknown name, wrong password, locked and disabled account: one answer, after one check of a password that
      costs the same for each (ASVS 5.0, 6.3.8).
    - A right password alone is no session: it gets a challenge that works once, for the client and the session it
      was given to (ASVS 5.0, 6.3.3 and 6.6.2). Only then a session starts, with a new id (7.2.4).
    - Failures count by account, address and network (6.3.1). Nobody can be locked out by strangers (6.1.1): a
      remembered device has a budget of its own, and a recovery code passes the lock of an account.
    - Every step is an event (``SignInEvent``, ASVS 5.0, 16.3.1) with client and reason.

    Every method raises ``BackendUnavailableError`` when a server does not answer, and whatever the accounts raise;
    neither counts as a failure. Each has a twin for asyncio whose name begins with ``a``.

    Args:
        accounts: the application's accounts.
        store: where challenges are kept, shared by all processes.
        limiter: counts failures in the groups of ``SIGN_IN_LIMITS``, for example a ``RateLimiter`` with them;
            ``None`` only where something in front of the application counts.
        factors: the second factors, for example a ``TwoFactorManager``; ``None`` where there are none.
        end_sessions: ends all sessions of a user, for example ``SessionManager.end_user``; ``None`` where there are
            none to end. May be ``async def`` where only the twins for asyncio are used.
        passwords: how passwords are checked, for example a ``PasswordHasher``; by default that of
            ``verify_password``, which all of a process share.
        device_keys: keys that sign the tokens of remembered devices, 32 bytes each or their base64, the newest
            first; without keys no device is remembered. The devices of an account are listed in ``store``: one that
            is lost there has to be remembered again.
        device_ttl: how long a device is remembered, in seconds.
        challenge_ttl: time for the second factor, 60 to 600 seconds (ASVS 5.0, 6.5.5).
        on_notice: is given what the owner of an account is to be told. It must only put the mail into a queue: the
            answer waits for it, and its time would tell which accounts exist. May be ``async def`` where only the
            twins for asyncio are used.
        clock: for tests.

    Raises:
        ConfigurationError: a value is out of its range, a key is none, or the limiter lacks a group, only reports
            its refusals (``dry_run``), or exempts everybody.
    """

    __slots__ = ("_kit",)

    def __init__(
        self,
        accounts: Accounts,
        *,
        store: SignInStore,
        limiter: FailureLimiter | None,
        factors: FactorVerifier | None,
        end_sessions: Callable[[str], object] | None,
        passwords: PasswordCheck | None = None,
        device_keys: bytes | str | Sequence[bytes | str] = (),
        device_ttl: float | timedelta = 90 * 86400,
        challenge_ttl: float | timedelta = 300,
        on_notice: Callable[[SignInNotice], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        now = given_clock(clock)
        offers(accounts, "find", "get", "set_password", parameter="accounts", kind="an object of Accounts")
        offers(store, "load", "replace", parameter="store", kind="a SignInStore")
        if limiter is not None:
            offers(limiter, "reserve", "reset", parameter="limiter", kind="a FailureLimiter or None")
        if factors is not None:
            offers(factors, "status", "verify", parameter="factors", kind="a FactorVerifier or None")
        if passwords is not None:
            offers(
                passwords,
                "verify",
                "hash",
                "needs_rehash",
                parameter="passwords",
                kind="a PasswordCheck or None",
            )
        if end_sessions is not None:
            function(end_sessions, parameter="end_sessions")
        if on_notice is not None:
            function(on_notice, parameter="on_notice")
        ttl = seconds(challenge_ttl, parameter="challenge_ttl")
        number(ttl, parameter="challenge_ttl", minimum=_SHORTEST_CHALLENGE, maximum=_LONGEST_CHALLENGE)
        _check_limiter(limiter)
        remembered = seconds(device_ttl, parameter="device_ttl", allow_zero=False)
        entries = OneTimeTokens(store, now)
        self._kit = SignInContext(
            accounts=accounts,
            passwords=process_hasher() if passwords is None else passwords,
            limiter=limiter,
            factors=factors,
            end_sessions=end_sessions,
            entries=entries,
            devices=DeviceTokens(device_keys, ttl=remembered, entries=entries),
            clock=now,
            challenge_ttl=ttl,
            on_notice=on_notice,
            knows_trusted=factors is not None and _takes_trusted(factors),
        )

    # --- signing in ------------------------------------------------------------------------------

    def password(
        self,
        name: str,
        password: str,
        *,
        client: SignInClient,
        session: SignInSession | None = None,
        recovery_code: str | None = None,
        remember: bool = False,
        data: Mapping[str, object] | None = None,
    ) -> SignInStep:
        """The first step. What a client sends may be used as it comes: what cannot be a name is nobody's.

        Args:
            name: what the person calls the account.
            password: as typed.
            client: who asks.
            session: the session of the request; it is started when the sign-in is done.
            recovery_code: passes an account-wide lock. It is looked at only then and after a right password, and
                is the second factor too.
            remember: whether the device is to be known again, after the second factor where one follows.
            data: what the application keeps with the session.
        """
        return run(
            password_step(
                self._kit,
                PasswordAttempt(
                    name,
                    password,
                    recovery_code,
                    SignInRequest.of(client, session, remember=remember, data=data),
                ),
            )
        )

    async def apassword(
        self,
        name: str,
        password: str,
        *,
        client: SignInClient,
        session: SignInSession | None = None,
        recovery_code: str | None = None,
        remember: bool = False,
        data: Mapping[str, object] | None = None,
    ) -> SignInStep:
        """``password`` for asyncio."""
        return await arun(
            password_step(
                self._kit,
                PasswordAttempt(
                    name,
                    password,
                    recovery_code,
                    SignInRequest.of(client, session, remember=remember, data=data),
                ),
            )
        )

    def second_factor(
        self,
        challenge: str | None,
        code: str,
        *,
        client: SignInClient,
        session: SignInSession | None = None,
        remember: bool = False,
        data: Mapping[str, object] | None = None,
    ) -> SignInStep:
        """The second step. A wrong code leaves the challenge; a right one uses it up.

        While a code is checked, any other code for the same challenge is ``limited``, and is not used up.

        Args:
            challenge: from the first step; of another client, another session, used or expired it is refused
                without counting against anybody.
            code: what the verifier takes: a code, a recovery code, the JSON of an assertion.
            client: as in the first step.
            session: as in the first step.
            remember: whether the device is to be known again, where the first step did not say so.
            data: what the application keeps with the session.
        """
        return run(
            factor_step(
                self._kit,
                FactorAttempt(
                    challenge, code, SignInRequest.of(client, session, remember=remember, data=data)
                ),
            )
        )

    async def asecond_factor(
        self,
        challenge: str | None,
        code: str,
        *,
        client: SignInClient,
        session: SignInSession | None = None,
        remember: bool = False,
        data: Mapping[str, object] | None = None,
    ) -> SignInStep:
        """``second_factor`` for asyncio."""
        return await arun(
            factor_step(
                self._kit,
                FactorAttempt(
                    challenge, code, SignInRequest.of(client, session, remember=remember, data=data)
                ),
            )
        )

    def challenged_user(
        self, challenge: str | None, *, client: SignInClient, session: SignInSession | None = None
    ) -> str | None:
        """Whose challenge this is, for a factor that has to be asked first; ``None`` where the step would expire.

        For passkeys: give the id to ``begin_verification``, with the challenge as its ``session``, and answer with
        ``PasskeyAssertion(..., session=challenge)`` as the code. The id must not be shown.
        """
        return run(challenged_user(self._kit, challenge, SignInRequest.of(client, session)))

    async def achallenged_user(
        self, challenge: str | None, *, client: SignInClient, session: SignInSession | None = None
    ) -> str | None:
        """``challenged_user`` for asyncio."""
        return await arun(challenged_user(self._kit, challenge, SignInRequest.of(client, session)))

    def alone(
        self,
        outcome: AloneOutcome,
        *,
        client: SignInClient,
        session: SignInSession | None = None,
        remember: bool = False,
        data: Mapping[str, object] | None = None,
    ) -> SignInStep:
        """Both steps at once, by a factor that needs no password.

        Args:
            outcome: of ``Passkeys.finish_sign_in``, as it comes.
            client: who asks.
            session: as in the first step.
            remember: whether the device is to be known again.
            data: what the application keeps with the session.
        """
        return run(
            alone_step(self._kit, outcome, SignInRequest.of(client, session, remember=remember, data=data))
        )

    async def aalone(
        self,
        outcome: AloneOutcome,
        *,
        client: SignInClient,
        session: SignInSession | None = None,
        remember: bool = False,
        data: Mapping[str, object] | None = None,
    ) -> SignInStep:
        """``alone`` for asyncio."""
        return await arun(
            alone_step(self._kit, outcome, SignInRequest.of(client, session, remember=remember, data=data))
        )

    # --- proving it again ------------------------------------------------------------------------

    def confirm_password(self, session: SignInSession, password: str, *, client: SignInClient) -> SignInStep:
        """The password once more, for this session; it gets a new id. Strangers cannot use up its budget."""
        return run(_reauthentication.confirm_password(self._kit, session, password, asking(client)))

    async def aconfirm_password(
        self, session: SignInSession, password: str, *, client: SignInClient
    ) -> SignInStep:
        """``confirm_password`` for asyncio."""
        return await arun(_reauthentication.confirm_password(self._kit, session, password, asking(client)))

    def confirm_factor(self, session: SignInSession, code: str, *, client: SignInClient) -> SignInStep:
        """A second factor for this session (step-up, ASVS 5.0, 7.5.3); it gets a new id."""
        return run(_reauthentication.confirm_factor(self._kit, session, code, asking(client)))

    async def aconfirm_factor(self, session: SignInSession, code: str, *, client: SignInClient) -> SignInStep:
        """``confirm_factor`` for asyncio."""
        return await arun(_reauthentication.confirm_factor(self._kit, session, code, asking(client)))

    def factor_within(self, session: SignInSession, longest: float | timedelta) -> bool:
        """Whether a second factor was given in this session so recently, in seconds."""
        facts = facts_of(session)
        moment = None if facts is None else facts.factor_time
        limit = seconds(longest, parameter="longest")
        return is_recent(moment, now=self._kit.clock.time(), longest=limit)

    def confirmed_within(self, session: SignInSession, longest: float | timedelta) -> bool:
        """Whether this session may make a sensitive change (ASVS 5.0, 7.5.1), for example enrol a factor.

        True when its owner gave a second factor so recently, in seconds; where none is on, the password.
        """
        return run(
            _reauthentication.confirmed_within(self._kit, session, seconds(longest, parameter="longest"))
        )

    async def aconfirmed_within(self, session: SignInSession, longest: float | timedelta) -> bool:
        """``confirmed_within`` for asyncio."""
        limit = seconds(longest, parameter="longest")
        return await arun(_reauthentication.confirmed_within(self._kit, session, limit))

    # --- remembered devices ------------------------------------------------------------------------

    def devices(self, user_id: str, *, token: str | None = None) -> tuple[SignInDevice, ...]:
        """The remembered devices of an account, the latest first.

        Args:
            user_id: whose.
            token: of the browser at hand, which is marked in the list.
        """
        return run(_admin_recovery.listed_devices(self._kit, user_id, token))

    async def adevices(self, user_id: str, *, token: str | None = None) -> tuple[SignInDevice, ...]:
        """``devices`` for asyncio."""
        return await arun(_admin_recovery.listed_devices(self._kit, user_id, token))

    def revoke_device(self, user_id: str, device_id: str) -> bool:
        """Forget one device, by its id in the list; whether it was remembered."""
        return run(_admin_recovery.revoke_device(self._kit, user_id, device_id))

    async def arevoke_device(self, user_id: str, device_id: str) -> bool:
        """``revoke_device`` for asyncio."""
        return await arun(_admin_recovery.revoke_device(self._kit, user_id, device_id))

    def forget_devices(self, user_id: str) -> int:
        """Forget all devices of an account; how many there were."""
        return run(_admin_recovery.forget_devices(self._kit, user_id))

    async def aforget_devices(self, user_id: str) -> int:
        """``forget_devices`` for asyncio."""
        return await arun(_admin_recovery.forget_devices(self._kit, user_id))

    # --- help from outside -----------------------------------------------------------------------

    def unlock(self, user_id: str, *, actor: str, reason: str, end_sessions: bool = False) -> bool:
        """Lift an account-wide lock and forget wrong codes; whether there was anything to forget.

        Args:
            user_id: whose.
            actor: who did it, for the event and the notice.
            reason: why, likewise.
            end_sessions: whether all sessions of the account end too (ASVS 5.0, 7.4.5).
        """
        return run(
            _admin_recovery.unlock(self._kit, user_id, actor=actor, reason=reason, end_sessions=end_sessions)
        )

    async def aunlock(self, user_id: str, *, actor: str, reason: str, end_sessions: bool = False) -> bool:
        """``unlock`` for asyncio."""
        return await arun(
            _admin_recovery.unlock(self._kit, user_id, actor=actor, reason=reason, end_sessions=end_sessions)
        )

    def admin_reset(self, user_id: str, *, actor: str, reason: str) -> bool:
        """Take the second factor off, lift every lock, end all sessions, forget all devices.

        Returns whether there was a factor.

        Check by other means who asks (ASVS 5.0, 6.4.4).

        Args:
            user_id: whose.
            actor: who did it, for the event and the notice.
            reason: why, likewise.
        """
        return run(_admin_recovery.admin_reset(self._kit, user_id, actor=actor, reason=reason))

    async def aadmin_reset(self, user_id: str, *, actor: str, reason: str) -> bool:
        """``admin_reset`` for asyncio."""
        return await arun(_admin_recovery.admin_reset(self._kit, user_id, actor=actor, reason=reason))

    def sign_out_disabled(self, user_id: str, *, actor: str, reason: str) -> None:
        """End all sessions of an account that was disabled, and record who disabled it (ASVS 5.0, 7.4.2).

        Call it after the account is stored as disabled.

        Args:
            user_id: whose.
            actor: who did it, for the event.
            reason: why, likewise.
        """
        run(_admin_recovery.sign_out_disabled(self._kit, user_id, actor=actor, reason=reason))

    async def asign_out_disabled(self, user_id: str, *, actor: str, reason: str) -> None:
        """``sign_out_disabled`` for asyncio."""
        await arun(_admin_recovery.sign_out_disabled(self._kit, user_id, actor=actor, reason=reason))


def _takes_trusted(factors: FactorVerifier) -> bool:
    """Whether both forms of ``verify`` take ``trusted``, as those of ``TwoFactorManager`` do."""
    import inspect  # heavy, and only here

    forms = [factors.verify, getattr(factors, "averify", factors.verify)]
    try:
        return all("trusted" in inspect.signature(form).parameters for form in forms)
    except (TypeError, ValueError):  # not written in Python
        return False


def _check_limiter(limiter: FailureLimiter | None) -> None:
    """A limiter may say what it does; what would count nothing must not be found out by an attack."""
    groups: Collection[str] | None = getattr(limiter, "groups", None)
    missing = [] if groups is None else sorted(SIGN_IN_LIMITS.keys() - set(groups))
    if missing:
        raise ConfigurationError(
            f"limiter must have the groups of SIGN_IN_LIMITS; it lacks {', '.join(missing)}",
            parameter="limiter",
        )
    if isinstance(limiter, RateLimiter):
        dry = sorted(SIGN_IN_LIMITS.keys() & limiter.dry_run)
        if dry:
            raise ConfigurationError(
                f"limiter must refuse in the groups of SIGN_IN_LIMITS; dry_run has {', '.join(dry)}",
                parameter="limiter",
            )
        # A name that nobody has: an exemption for it is one for everybody.
        free = sorted(group for group in SIGN_IN_LIMITS if limiter.exempts(group, secrets.token_hex(16)))
        if free:
            raise ConfigurationError(
                f"limiter must count in the groups of SIGN_IN_LIMITS; it exempts every key of {', '.join(free)}",
                parameter="limiter",
            )


def kit_of(sign_in: SignIn) -> SignInContext:
    """The parts, for what else in this room works with them."""
    return instance(sign_in, SignIn, parameter="sign_in")._kit  # noqa: SLF001 - of the same room
