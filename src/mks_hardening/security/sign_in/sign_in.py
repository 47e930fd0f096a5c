"""Sign-in with name, password and second factor, up to the start of the session.

The state machine is a table of transitions (``_state_machine``); each step is an operation over a
``SignInContext``. During an outage a step raises ``BackendUnavailableError``: no check is skipped and no
failure is counted.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import boolean, function, instance, number, offers, strings, text_of
from mks_hardening._core.clock import given_clock
from mks_hardening._core.durations import seconds
from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security.passwords.hashing import process_hasher
from mks_hardening.security.rate_limits.rate_limiter import RateLimiter
from mks_hardening.security.sign_in import _reauthentication
from mks_hardening.security.sign_in._account_administration import AccountAdministration
from mks_hardening.security.sign_in._context import SignInContext, SignInRequest, checked_client
from mks_hardening.security.sign_in._device_tokens import DeviceTokens
from mks_hardening.security.sign_in._factor_step import (
    challenged_user,
    external_step,
    factor_step,
    passwordless_step,
)
from mks_hardening.security.sign_in._one_time_tokens import OneTimeTokens
from mks_hardening.security.sign_in._password_step import password_step
from mks_hardening.security.sign_in._session_facts import SessionFacts, is_recent, read_session_facts
from mks_hardening.security.sign_in.sign_in_results import (
    SIGN_IN_LIMITS,
    SignInClient,
    SignInNotice,
    SignInStep,
)

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, SignInSession
    from mks_hardening.security.second_factor.factor_results import PasskeySignIn
    from mks_hardening.security.sign_in.sign_in_protocols import (
        Accounts,
        FactorVerifier,
        FailureLimiter,
        PasswordCheck,
        SignInStore,
    )

__all__ = ["SignIn"]

# Most users need between one and ten minutes to fetch their phone. After that, the password check is too old to
# rely on.
_SHORTEST_CHALLENGE: Final = 60
_LONGEST_CHALLENGE: Final = 600
_UNSTATED_AGE: Final = 86_400.0
"""Age in seconds of an authentication whose time the provider does not state."""


class SignIn(AccountAdministration):
    """Sign users in and start their sessions.

    Its parts (accounts, store, limiter, second factors) are given as objects that implement protocols.

    - An unknown name, a wrong password, a locked and a disabled account give the same response, after one
      password check that costs the same in every case (ASVS 5.0, 6.3.8).
    - A correct password alone starts no session. It gives a one-time challenge, bound to the client and the
      session it was issued to (ASVS 5.0, 6.3.3 and 6.6.2). The session starts after the second factor, with a
      new id (7.2.4).
    - Failures are counted per account, address and network (6.3.1). Strangers cannot lock a user out (6.1.1): a
      remembered device has its own failure limit, and a recovery code bypasses the lock of an account.
    - Every step emits an event (``SignInEvent``, ASVS 5.0, 16.3.1) with client and reason.

    Every method raises ``BackendUnavailableError`` when a server does not respond, and propagates whatever the
    accounts raise; neither is counted as a failed attempt. Every method has an asyncio version with the prefix
    ``a``.

    Args:
        accounts: the application's accounts.
        store: store of challenges, shared by all processes.
        limiter: counts failures in the groups of ``SIGN_IN_LIMITS``, for example a ``RateLimiter`` with these
            groups; ``None`` only if something in front of the application limits sign-in attempts.
        factors: verifier of second factors, for example a ``TwoFactorManager``; ``None`` if the application has
            none.
        end_sessions: ends all sessions of a user, for example ``SessionManager.end_user``; ``None`` if the
            application has no sessions. May be ``async def`` if only the asyncio methods are used.
        passwords: hashes and checks passwords, for example a ``PasswordHasher``; by default the hasher of
            ``verify_password``, which is shared within the process.
        device_keys: keys of 32 bytes, or their base64, for the tokens of remembered devices; the first signs, all
            are accepted. Without keys no device is remembered. The devices of an account are listed in ``store``:
            a device whose entry is lost there has to be remembered again.
        device_ttl: how long a device is remembered, in seconds.
        challenge_ttl: time allowed for the second factor, 60 to 600 seconds (ASVS 5.0, 6.5.5).
        on_notice: called with each notice to the owner of an account. It must only enqueue the mail: the
            response waits for it, and its duration would reveal which accounts exist. May be ``async def`` if
            only the asyncio methods are used.
        clock: for tests.

    Raises:
        ConfigurationError: a value is out of range, a key is invalid, or the limiter lacks a group, only
            reports its refusals (``dry_run``), allows every hit during an outage (``on_unavailable="open"``), or
            exempts every key.
    """

    __slots__ = ()

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
            function(end_sessions, parameter="end_sessions", may_be_async=True)
        if on_notice is not None:
            function(on_notice, parameter="on_notice", may_be_async=True)
        ttl = seconds(challenge_ttl, parameter="challenge_ttl")
        number(ttl, parameter="challenge_ttl", minimum=_SHORTEST_CHALLENGE, maximum=_LONGEST_CHALLENGE)
        _check_limiter(limiter)
        remembered = seconds(device_ttl, parameter="device_ttl", allow_zero=False)
        entries = OneTimeTokens(store, now)
        context = SignInContext(
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
            accepts_trusted=factors is not None and _takes_trusted(factors),
            is_current=getattr(factors, "is_current", None),
        )
        super().__init__(context)

    # --- signing in ------------------------------------------------------------------------------

    @sync_method
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
    ) -> Op[SignInStep]:
        """Check name and password, the first step of a sign-in.

        Values from the client need no validation: a value that cannot be a name is treated as an unknown name.

        Args:
            name: the account name as typed.
            password: as typed.
            client: the client that signs in.
            session: the session of the request; started when the sign-in is complete.
            recovery_code: used only if the account is locked and the password is correct; it then bypasses the
                lock and also counts as the second factor.
            remember: whether to remember the device, once the second factor, if required, is accepted.
            data: application data to store in the session.
        """
        request = SignInRequest.of(client, session, remember=remember, data=data)
        return password_step(self._context, name, password, recovery_code, request)

    @async_method(password)
    def apassword(self) -> None:
        """``password`` for asyncio."""

    @sync_method
    def second_factor(
        self,
        challenge: str | None,
        code: str,
        *,
        client: SignInClient,
        session: SignInSession | None = None,
        remember: bool = False,
        data: Mapping[str, object] | None = None,
    ) -> Op[SignInStep]:
        """Check the second factor, the second step of a sign-in.

        A wrong code leaves the challenge valid; a correct one consumes it. While one code is being checked, any
        other code for the same challenge gives ``limited`` and is not consumed.

        Args:
            challenge: from the first step. A challenge that belongs to another client or session, is used or
                has expired gives ``expired`` and is not counted as a failed attempt.
            code: what the verifier accepts: a code, a recovery code, the JSON of an assertion.
            client: as in the first step.
            session: as in the first step.
            remember: whether to remember the device, if the first step did not request it.
            data: application data to store in the session.
        """
        request = SignInRequest.of(client, session, remember=remember, data=data)
        return factor_step(self._context, challenge, code, request)

    @async_method(second_factor)
    def asecond_factor(self) -> None:
        """``second_factor`` for asyncio."""

    @sync_method
    def challenged_user(
        self, challenge: str | None, *, client: SignInClient, session: SignInSession | None = None
    ) -> Op[str | None]:
        """Return the id of the user that a challenge was issued to.

        Returns ``None`` if ``second_factor`` would give ``expired``. For passkeys: pass the id to
        ``begin_verification`` with the challenge as ``session``, and pass
        ``PasskeyAssertion(..., session=challenge)`` as the code. Do not disclose the id.
        """
        return challenged_user(self._context, challenge, SignInRequest.of(client, session))

    @async_method(challenged_user)
    def achallenged_user(self) -> None:
        """``challenged_user`` for asyncio."""

    @sync_method
    def passwordless_sign_in(
        self,
        outcome: PasskeySignIn,
        *,
        client: SignInClient,
        session: SignInSession | None = None,
        remember: bool = False,
        data: Mapping[str, object] | None = None,
    ) -> Op[SignInStep]:
        """Complete a sign-in with a passkey, which needs no password.

        Args:
            outcome: the result of ``Passkeys.finish_sign_in``, unchanged; it completes one sign-in.
            client: the client that signs in.
            session: as in the first step.
            remember: whether to remember the device.
            data: application data to store in the session.
        """
        request = SignInRequest.of(client, session, remember=remember, data=data)
        return passwordless_step(self._context, outcome, request)

    @async_method(passwordless_sign_in)
    def apasswordless_sign_in(self) -> None:
        """``passwordless_sign_in`` for asyncio."""

    @sync_method
    def external_sign_in(
        self,
        user_id: str,
        *,
        client: SignInClient,
        session: SignInSession | None = None,
        amr: Sequence[str] = (),
        auth_time: float | None = None,
        second_factor: bool = False,
        remember: bool = False,
        data: Mapping[str, object] | None = None,
    ) -> Op[SignInStep]:
        """Complete a sign-in that an identity provider has checked, for example with OpenID Connect.

        Verify the response of the provider and find the account that is linked to it first. An account with a
        second factor gives ``challenged``, as after a password, unless the provider has checked one. Without
        ``auth_time``, the authentication counts as one day old (ASVS 5.0, 6.8.4): it is no reason to omit a
        confirmation.

        Args:
            user_id: id of the linked account.
            client: the client that signs in.
            session: as in the first step.
            amr: authentication methods that the provider states (RFC 8176), for the session and the event.
            auth_time: wall time of the authentication at the provider, in seconds.
            second_factor: whether the provider has checked a second factor.
            remember: whether to remember the device.
            data: application data to store in the session.
        """
        text_of(user_id, parameter="user_id", empty=False)
        boolean(second_factor, parameter="second_factor")
        now = self._context.clock.time()
        moment = now - _UNSTATED_AGE
        if auth_time is not None:
            moment = min(now, float(number(auth_time, parameter="auth_time", minimum=0)))
        facts = SessionFacts(
            strings(amr, parameter="amr", of="methods"), moment, moment if second_factor else None
        )
        request = SignInRequest.of(client, session, remember=remember, data=data)
        return external_step(self._context, user_id, facts, request)

    @async_method(external_sign_in)
    def aexternal_sign_in(self) -> None:
        """``external_sign_in`` for asyncio."""

    # --- reauthentication ------------------------------------------------------------------------

    @sync_method
    def confirm_password(
        self, session: SignInSession, password: str, *, client: SignInClient
    ) -> Op[SignInStep]:
        """Check the password again for this session, which gets a new id.

        Failures are counted per session, so that strangers cannot use up the limit.
        """
        return _reauthentication.confirm_password(self._context, session, password, checked_client(client))

    @async_method(confirm_password)
    def aconfirm_password(self) -> None:
        """``confirm_password`` for asyncio."""

    @sync_method
    def confirm_factor(self, session: SignInSession, code: str, *, client: SignInClient) -> Op[SignInStep]:
        """Check a second factor for this session, which gets a new id (step-up, ASVS 5.0, 7.5.3)."""
        return _reauthentication.confirm_factor(self._context, session, code, checked_client(client))

    @async_method(confirm_factor)
    def aconfirm_factor(self) -> None:
        """``confirm_factor`` for asyncio."""

    def factor_within(self, session: SignInSession, longest: float | timedelta) -> bool:
        """Return whether a second factor was accepted in this session within the last ``longest`` seconds."""
        facts = read_session_facts(session)
        moment = None if facts is None else facts.factor_time
        limit = seconds(longest, parameter="longest")
        return is_recent(moment, now=self._context.clock.time(), longest=limit)

    @sync_method
    def confirmed_within(self, session: SignInSession, longest: float | timedelta) -> Op[bool]:
        """Return whether this session may make a sensitive change, such as enrolling a factor (ASVS 5.0, 7.5.1).

        True if the user gave a second factor in this session within the last ``longest`` seconds. If the
        account has no second factor, the password counts as well.
        """
        return _reauthentication.confirmed_within(
            self._context, session, seconds(longest, parameter="longest")
        )

    @async_method(confirmed_within)
    def aconfirmed_within(self) -> None:
        """``confirmed_within`` for asyncio."""


def _takes_trusted(factors: FactorVerifier) -> bool:
    """Return whether ``verify`` and ``averify`` accept ``trusted``, as in ``TwoFactorManager``."""
    import inspect  # slow to import, and used only here

    forms = [factors.verify, getattr(factors, "averify", factors.verify)]
    try:
        return all("trusted" in inspect.signature(form).parameters for form in forms)
    except (TypeError, ValueError):  # a callable without a Python signature
        return False


def _check_limiter(limiter: FailureLimiter | None) -> None:
    """Reject a limiter that would not enforce the groups of ``SIGN_IN_LIMITS``.

    A limiter without ``groups`` is accepted unchecked: the protocol does not require that attribute.
    """
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
                f"limiter must enforce the groups of SIGN_IN_LIMITS; dry_run contains {', '.join(dry)}",
                parameter="limiter",
            )
        opens = sorted(group for group in SIGN_IN_LIMITS if limiter.on_unavailable[group] == "open")
        if opens:
            raise ConfigurationError(
                "limiter must count in the groups of SIGN_IN_LIMITS during an outage too; on_unavailable is 'open' "
                f"for {', '.join(opens)}: use 'local' or 'closed'",
                parameter="limiter",
            )
        # A random key that no client has: if it is exempt, every key is.
        free = sorted(group for group in SIGN_IN_LIMITS if limiter.exempts(group, secrets.token_hex(16)))
        if free:
            raise ConfigurationError(
                f"limiter must count in the groups of SIGN_IN_LIMITS; it exempts every key of {', '.join(free)}",
                parameter="limiter",
            )


def context_of(sign_in: SignIn) -> SignInContext:
    """Return the context of a sign-in, for other modules of this package."""
    return instance(sign_in, SignIn, parameter="sign_in")._context  # noqa: SLF001 - same package
