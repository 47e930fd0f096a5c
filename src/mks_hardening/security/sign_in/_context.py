"""Context of a sign-in, and the operations that its steps share."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast

from mks_hardening._core import hooks
from mks_hardening._core.checks import boolean, instance, mapping, offers
from mks_hardening._core.operations import Op
from mks_hardening._core.origin.network_addresses import client_key, parse_address
from mks_hardening._core.store_calls import call_store
from mks_hardening.events import SignInEvent
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security._security_events import log_security_event, send_notice
from mks_hardening.security.passwords._fair_semaphore import HashingClient, on_behalf_of
from mks_hardening.security.sign_in._attempt_hits import network_of
from mks_hardening.security.sign_in._one_time_tokens import digest_of, numbers_of
from mks_hardening.security.sign_in._session_facts import SessionFacts
from mks_hardening.security.sign_in._state_machine import TRANSITIONS, Event, FlowState
from mks_hardening.security.sign_in.sign_in_results import SignInClient, SignInNotice, SignInStep

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, SignInSession
    from mks_hardening.security.sign_in._attempt_hits import AttemptHits
    from mks_hardening.security.sign_in._device_tokens import DeviceTokens
    from mks_hardening.security.sign_in._one_time_tokens import OneTimeTokens
    from mks_hardening.security.sign_in.sign_in_protocols import (
        Accounts,
        FactorOutcome,
        FactorVerifier,
        FailureLimiter,
        PasswordCheck,
    )
    from mks_hardening.security.sign_in.sign_in_results import SignInAccount

__all__ = [
    "Credentials",
    "SignInContext",
    "SignInRequest",
    "SignInTrace",
    "apply_transition",
    "authenticated_hashing_client",
    "binding_of",
    "check_password",
    "emit_event",
    "hashing_for",
    "issue_challenge",
    "normalize_name",
    "notify_owner",
    "recheck_account",
    "rehash_if_needed",
    "start_session",
    "unauthenticated_hashing_client",
]

T = TypeVar("T")

_MOST_NETWORKS: Final = 20
_EVERY: Final = 86_400  # seconds; a network that is used daily costs one write a day
_LONGEST_NAME: Final = 255
_IGNORED: Final = frozenset(("Mn", "Cf"))  # marks and invisible characters
_MOST_LOOKS: Final = 3  # each after the first follows a change of the account while a password was checked
_BUSY: Final = 1.0  # seconds until another code for the same challenge has been checked
_LONGEST_CODE: Final = 16_384  # enough for the JSON of an assertion; codes are far shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInContext:
    """Parts and settings of a ``SignIn``, for its steps."""

    accounts: Accounts
    passwords: PasswordCheck
    limiter: FailureLimiter | None
    factors: FactorVerifier | None
    end_sessions: Callable[[str], object] | None
    entries: OneTimeTokens
    devices: DeviceTokens
    clock: Clock
    challenge_ttl: float
    on_notice: Callable[[SignInNotice], object] | None
    accepts_trusted: bool
    """Whether the verifier accepts ``trusted``."""
    is_current: Callable[[str, FactorOutcome], bool] | None
    """The method of the verifier, if it has one."""

    def has_factor(self, user_id: str) -> Op[bool]:
        """Return whether the account requires a second factor."""
        if self.factors is None:
            return False
        status = yield from call_store(self.factors.status, user_id)
        return boolean(status.enabled, parameter="factors.status().enabled")

    def still_holds(self, user_id: str, outcome: FactorOutcome) -> Op[bool]:
        """Return whether an accepted factor still belongs to the account."""
        if self.is_current is None:  # the verifier only tells whether there is any factor
            return (yield from self.has_factor(user_id))
        holds = yield from call_store(self.is_current, user_id, outcome)
        return boolean(holds, parameter="factors.is_current()")

    def set_password(self, account: SignInAccount, stored: str) -> Op[bool]:
        """Store a password hash; return false if another change of the password was faster.

        Raises:
            ConfigurationError: the accounts return ``None``, which tells nothing.
        """
        # An object, because an application may have forgotten its ``return``.
        done = cast(
            "object",
            (
                yield from call_store(
                    self.accounts.set_password, account.user_id, stored, expected=account.password_hash
                )
            ),
        )
        if done is None:
            raise ConfigurationError(
                "accounts.set_password() must return whether it replaced the hash, not None",
                parameter="accounts",
            )
        return bool(done)

    def end_all_sessions(self, user_id: str) -> Op[None]:
        """End every session of a user, if the application has sessions."""
        if self.end_sessions is not None:
            yield from call_store(self.end_sessions, user_id)

    def try_factor(
        self, user_id: str, code: object, *, client: str, trusted: bool = False
    ) -> Op[FactorOutcome | None]:
        """Return the verifier's result, or ``None`` without calling it for a value that cannot be a code.

        A verifier that accepts ``trusted`` lets a remembered device bypass the account's limit on wrong codes.
        """
        if self.factors is None or not isinstance(code, str) or not 0 < len(code) <= _LONGEST_CODE:
            return None
        # A lone surrogate cannot be encoded: an HMAC or a driver would raise, and the client could cause a 500
        # response.
        if any("\ud800" <= letter <= "\udfff" for letter in code):
            return None
        options = {"trusted": True} if trusted and self.accepts_trusted else {}
        return (yield from call_store(self.factors.verify, user_id, code, client=client, **options))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInTrace:
    """Fields of the audit event of one step."""

    client: str
    user_id: str = ""
    reason: str = ""
    method: str = ""
    actor: str = ""


def normalize_name(name: object) -> tuple[str | None, str]:
    """Return the name for the lookup (``None``: no account can have it), and the name for counting."""
    usable = (
        isinstance(name, str)
        and 0 < len(name) <= _LONGEST_NAME
        and not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in name)
    )
    if not isinstance(name, str) or not usable:
        return None, ""
    # An attacker must not get a new limit for each spelling that finds the same account: by default, MySQL ignores
    # case, accents and invisible characters; in upper case, as databases compare, a dotless i is an i.
    letters = unicodedata.normalize("NFKD", name).upper().casefold()
    return name, "".join(one for one in letters if unicodedata.category(one) not in _IGNORED).strip()


def emit_event(change: str, trace: SignInTrace) -> None:
    """Emit and log a ``SignInEvent``."""
    event = SignInEvent(change, trace.user_id, trace.client, trace.reason, trace.method, trace.actor)
    if hooks.observers:
        hooks.emit(event)
    log_security_event(event)


def notify_owner(context: SignInContext, notice: SignInNotice) -> Op[None]:
    """Send a notice to the owner of an account, if there is a hook for it.

    A failure of the hook must neither undo the change nor reveal who has an account.
    """
    if context.on_notice is None:
        return
    if not (yield from send_notice(context.on_notice, notice)):
        emit_event(
            "notice_failed", SignInTrace(client="", user_id=notice.account.user_id, reason=notice.kind)
        )


class Credentials(NamedTuple):
    """What a sign-in has proved, to be compared with the account again once its session has started.

    Attributes:
        account: as it was when its credentials were checked.
        factor: the accepted result of a factor; or whether the account had a factor then; ``None`` if that does
            not matter.
        password: the correct password, if one was given in this request.
    """

    account: SignInAccount
    factor: FactorOutcome | bool | None
    password: str | None = None


def hashing_for(client: HashingClient, operation: Op[T]) -> Op[T]:
    """Run an operation that hashes passwords on behalf of a client."""
    with on_behalf_of(client):
        return (yield from operation)


def unauthenticated_hashing_client(client: SignInClient) -> HashingClient:
    """Return the hashing client of a sign-in without prior authentication."""
    if parse_address(client.address) is None:  # clients without an address count as one: no cap
        return HashingClient("", "")
    return HashingClient(network_of(client.address), client_key(client.address))


def authenticated_hashing_client(user_id: str, by: str) -> HashingClient:
    """Return the hashing client of an authenticated user: served first, with a fair share for each user."""
    return HashingClient(f"user {user_id}", by, known=True)


def check_password(context: SignInContext, password: str, stored: str | None) -> Op[bool]:
    """Return whether the password matches the hash.

    Raises:
        ConfigurationError: the check returns something other than ``True`` or ``False``; a string would count
            as true.
    """
    return boolean(
        (yield from call_store(context.passwords.verify, password, stored)), parameter="passwords.verify()"
    )


def rehash_if_needed(
    context: SignInContext, account: SignInAccount, password: str
) -> Op[SignInAccount | None]:
    """Rehash an outdated password and return the account, or ``None`` if the password is no longer valid.

    A sign-in does not fail if the new hash cannot be stored.
    """
    stored = account.password_hash
    if stored is None or not context.passwords.needs_rehash(stored):
        return account
    try:
        fresh = yield from call_store(context.passwords.hash, password)
        yield from context.set_password(account, fresh)
        # Read again, because the stamp depends on the hash: a challenge bound to the old stamp would be void at
        # once.
        after = yield from call_store(context.accounts.get, account.user_id)
    except Exception as error:  # noqa: BLE001 - the next sign-in tries again
        emit_event(
            "rehash_failed", SignInTrace(client="", user_id=account.user_id, reason=type(error).__name__)
        )
        return account
    # Only the hash stored here is known to match the password that was checked. Another one was stored in the
    # meantime, either by a reset, whose stamp a challenge for the old password must not get, or by the rehash of
    # another sign-in.
    if after is not None and not after.disabled and after.password_hash == fresh:
        return after
    return (yield from recheck_account(context, Credentials(account, None, password)))


def recheck_account(context: SignInContext, credentials: Credentials) -> Op[SignInAccount | None]:
    """Return the current account if everything that was proved still holds, else ``None``."""
    account = credentials.account
    for _ in range(_MOST_LOOKS):
        now = yield from call_store(context.accounts.get, account.user_id)
        if now is None or now.disabled:
            return None
        if now.stamp == account.stamp:
            break
        # The stamp also changes when another sign-in rehashes: then the password still matches.
        if credentials.password is None or not (
            yield from check_password(context, credentials.password, now.password_hash)
        ):
            return None
        account = now
    else:
        return None
    factor = credentials.factor
    if isinstance(factor, bool):
        holds = (yield from context.has_factor(account.user_id)) == factor
    else:
        holds = factor is None or (yield from context.still_holds(account.user_id, factor))
    return now if holds else None


def apply_transition(
    place: FlowState, event: Event, hits: AttemptHits, trace: SignInTrace, factor: FactorOutcome | None = None
) -> Op[SignInStep]:
    """Apply the transition: keep or give back the hits, emit the event, and return the step."""
    rule = TRANSITIONS[place, event]
    if not rule.counted:
        yield from hits.give_back()
    emit_event(rule.change, trace)
    if event == "throttled":
        return SignInStep(state=rule.state, retry_after=hits.retry_after, decision=hits.disclosed)
    retry_after = _BUSY if event == "busy" else None
    if factor is not None and factor.locked and not factor.ok:
        retry_after = factor.retry_after
    return SignInStep(state=rule.state, retry_after=retry_after, factor=factor)


def checked_client(client: SignInClient) -> SignInClient:
    """Return the client.

    Raises:
        ConfigurationError: it is not a ``SignInClient`` but, for example, an address.
    """
    return instance(client, SignInClient, parameter="client")


class SignInRequest(NamedTuple):
    """Client, session and options of a request that may start a session."""

    client: SignInClient
    session: SignInSession | None
    remember: bool
    data: Mapping[str, object] | None

    @classmethod
    def of(
        cls,
        client: SignInClient,
        session: SignInSession | None,
        *,
        remember: bool = False,
        data: Mapping[str, object] | None = None,
    ) -> SignInRequest:
        """Check and combine the arguments of the application.

        Raises:
            ConfigurationError: an argument has the wrong type.
        """
        if session is not None:
            offers(session, "start", "end", parameter="session", kind="a SignInSession or None")
        if data is not None:
            mapping(data, parameter="data", of="names to values")
        return cls(checked_client(client), session, remember, data)


def start_session(
    context: SignInContext,
    request: SignInRequest,
    credentials: Credentials,
    facts: SessionFacts,
    hits: AttemptHits,
    *,
    place: FlowState,
    risks: tuple[str, ...],
    factor: FactorOutcome | None,
) -> Op[SignInStep]:
    """Start the session of a completed sign-in; no other function starts one.

    Checking a password is slow. In the meantime the password may be reset, the account disabled or the factor
    removed. Each of these changes the account first and ends its sessions second. A sign-in starts its session
    first and reads the account again second. If the account changed before that read, the session ends here. If
    it changed after that read, the sessions are ended later still, and this one is among them. So no session
    outlives the credentials it was started with (ASVS 5.0, 7.4.3), without a transaction over the accounts and
    the sessions. This requires that each of the four steps sees what was completed before it: true in memory,
    for scripts of one Redis server, and for a database that is not read from an older snapshot.
    """
    account, session = credentials.account, request.session
    if session is not None:
        data = {**(request.data or {}), **facts.as_data(account.user_id)}
        # The facts come last, so that ``data`` of the application cannot claim another authentication.
        yield from call_store(session.start, account.user_id, data=data)
    now = device = None
    try:
        now = yield from recheck_account(context, credentials)
        if now is not None and request.remember:
            # Only for a sign-in that is not refused, because the oldest device makes room for it; and before the
            # account is read once more, like the session: whoever forgets the devices later forgets this one.
            now = None
            device = yield from _issue_device_token(context, account)
            now = yield from recheck_account(context, credentials)
    finally:
        # Also if the accounts raise: a session whose account could not be read again must not stay open.
        if now is None and session is not None:
            yield from call_store(session.end)
    trace = SignInTrace(
        client=client_key(request.client.address),
        user_id=account.user_id,
        method=" ".join(facts.amr),
        reason=" ".join(risks),
    )
    if now is None:
        event: Event = "wrong" if place == "begun" else "expired"
        issued = context.devices.read(device, now=context.clock.time())
        if issued is not None:
            with suppress(BackendUnavailableError):  # it stays in the list, but nobody has its token
                yield from context.devices.forget(account.user_id, issued.nonce)
        return (yield from apply_transition(place, event, hits, replace(trace, reason="changed")))
    step = yield from apply_transition(place, "complete", hits, trace, factor)
    if "new_device" in risks:
        yield from _notify_new_device(context, now, request.client)
    return replace(
        step,
        user_id=account.user_id,
        amr=facts.amr,
        auth_time=facts.auth_time,
        risks=risks,
        device=device,
    )


def _issue_device_token(context: SignInContext, account: SignInAccount) -> Op[str | None]:
    """Issue a device token; if the store is unavailable, the sign-in succeeds without one."""
    try:
        return (yield from context.devices.issue(account, now=context.clock.time()))
    except BackendUnavailableError as error:
        emit_event("device_failed", SignInTrace(client="", user_id=account.user_id, reason=error.reason))
        return None


def _notify_new_device(context: SignInContext, account: SignInAccount, client: SignInClient) -> Op[None]:
    """Send a notice about a sign-in from a network new to the account (ASVS 5.0, 6.3.5).

    A remembered device is never new. The first sign-in of an account sends no notice, because there is nothing
    to compare it with.
    """
    if context.on_notice is None:
        return
    try:
        is_new = yield from _is_new_network(context, account.user_id, network_of(client.address))
    except BackendUnavailableError as error:
        emit_event("notice_failed", SignInTrace(client="", user_id=account.user_id, reason=error.reason))
        return
    if is_new:
        notice = SignInNotice(kind="new_device", account=account, to=account.email, client=client.address)
        yield from notify_owner(context, notice)


def _is_new_network(context: SignInContext, user_id: str, network: str) -> Op[bool]:
    """Return whether the account was used before, but not from this network within the device lifetime."""
    key, name = f"networks:{digest_of(user_id)}", digest_of(user_id, network)[:16]
    now, ttl = int(context.clock.time()), context.devices.ttl

    def used(facts: dict[str, object]) -> dict[str, int]:
        seen = numbers_of(facts.get("networks"))
        return {known: last for known, last in seen.items() if now - last < ttl}

    def note(facts: dict[str, object]) -> dict[str, object]:
        latest = sorted({**used(facts), name: now}.items(), key=lambda item: item[1])
        return {"networks": dict(latest[-_MOST_NETWORKS:])}

    before = used((yield from context.entries.read_facts(key)))
    if now - before.get(name, 0) >= _EVERY:
        yield from context.entries.change(key, note, ttl=ttl)
    return bool(before) and name not in before


def binding_of(client: SignInClient, session: SignInSession | None) -> tuple[str, str]:
    """Return digests of the client and session that a challenge is bound to."""
    reference = None if session is None else session.reference
    return digest_of("client", client_key(client.address)), digest_of("session", reference or "")


def issue_challenge(
    context: SignInContext,
    request: SignInRequest,
    account: SignInAccount,
    risks: tuple[str, ...],
    external: SessionFacts | None = None,
) -> Op[str]:
    """Issue the challenge for the second factor, bound to client, session and account.

    With ``external``, the session starts with these facts and the factor; otherwise with the password's.
    """
    client, session = binding_of(request.client, request.session)
    facts: dict[str, object] = {
        "user": account.user_id,
        "stamp": account.stamp,
        "client": client,
        "session": session,
        "at": context.clock.time(),
        "risks": list(risks),
        # Requested together with the password; the page of the second factor does not ask again.
        "remember": request.remember,
    }
    if external is not None:
        facts |= {"amr": list(external.amr), "auth_time": external.auth_time}
    return context.entries.issue("challenge", facts, ttl=context.challenge_ttl)
