"""The parts of one sign-in, and the small operations its steps share."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from mks_hardening._core import hooks
from mks_hardening._core.checks import flag, instance, mapping, offers
from mks_hardening._core.operations import Op
from mks_hardening._core.origin.network_addresses import client_key, parse_address
from mks_hardening._core.store_calls import ask
from mks_hardening.events import SignInEvent
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security._security_events import log_security_event, send_notice
from mks_hardening.security.passwords._fair_semaphore import HashingClient, on_behalf_of
from mks_hardening.security.sign_in._attempt_hits import network_of
from mks_hardening.security.sign_in._one_time_tokens import digest_of, numbers_of
from mks_hardening.security.sign_in._session_facts import SessionFacts
from mks_hardening.security.sign_in._state_machine import TABLE, Event, Place
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
    "admitted",
    "binding_of",
    "finish",
    "hashing_for",
    "is_right",
    "known_client",
    "present",
    "renewed",
    "stranger",
    "tell",
    "told",
    "typed_name",
]

T = TypeVar("T")

_MOST_NETWORKS: Final = 20
_EVERY: Final = 86_400  # a network that is used daily costs one write a day
_LONGEST_NAME: Final = 255
_MOST_LOOKS: Final = 3  # each but the first follows a change of the account while a password was checked
_LONGEST_CODE: Final = 16_384  # the JSON of an assertion; codes are far shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInContext:
    """What the steps work with."""

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
    knows_trusted: bool
    """Whether the verifier takes ``trusted``."""

    def has_factor(self, user_id: str) -> Op[bool]:
        """Whether the account needs a second factor."""
        if self.factors is None:
            return False
        standing = yield from ask(self.factors.status, user_id)
        return flag(standing.enabled, parameter="factors.status().enabled")

    def try_factor(
        self, user_id: str, code: object, *, client: str, trusted: bool = False
    ) -> Op[FactorOutcome | None]:
        """The verifier's answer; ``None`` for what cannot be one, without asking.

        A verifier that knows ``trusted`` lets a remembered device pass the cap of the account on wrong codes.
        """
        if self.factors is None or not isinstance(code, str) or not 0 < len(code) <= _LONGEST_CODE:
            return None
        # A lone surrogate cannot be encoded: it would raise deep in an HMAC or a driver, as a 500 that a client
        # can cause.
        if any("\ud800" <= letter <= "\udfff" for letter in code):
            return None
        options = {"trusted": True} if trusted and self.knows_trusted else {}
        return (yield from ask(self.factors.verify, user_id, code, client=client, **options))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInTrace:
    """Whom an event is about: the audit record of one step."""

    client: str
    user_id: str = ""
    reason: str = ""
    method: str = ""
    actor: str = ""


def typed_name(name: object) -> tuple[str | None, str]:
    """The name as the application may look it up (``None``: nobody can have it), and as it is counted."""
    usable = (
        isinstance(name, str)
        and 0 < len(name) <= _LONGEST_NAME
        and not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in name)
    )
    if not isinstance(name, str) or not usable:
        return None, ""
    # Counted in one spelling: an attacker must not get a fresh budget for each mix of cases and widths.
    return name, unicodedata.normalize("NFKC", name).casefold().strip()


def tell(change: str, trace: SignInTrace) -> None:
    """Emit an event."""
    event = SignInEvent(change, trace.user_id, trace.client, trace.reason, trace.method, trace.actor)
    if hooks.observers:
        hooks.emit(event)
    log_security_event(event)


def told(kit: SignInContext, notice: SignInNotice) -> Op[None]:
    """Hand a notice on; a mailer in trouble must neither undo what was done nor tell who has an account."""
    if kit.on_notice is None:
        return
    if not (yield from send_notice(kit.on_notice, notice)):
        tell("notice_failed", SignInTrace(client="", user_id=notice.account.user_id, reason=notice.kind))


class Credentials(NamedTuple):
    """What a sign-in has proved, to be compared with the account again once its session has begun.

    Attributes:
        account: as it was when its credentials were checked.
        factor: whether a second factor was on then; ``None`` where that does not matter.
        password: which was right, where one was given in this request.
    """

    account: SignInAccount
    factor: bool | None
    password: str | None = None


def hashing_for(client: HashingClient, operation: Op[T]) -> Op[T]:
    """Run an operation that hashes for this client."""
    with on_behalf_of(client):
        return (yield from operation)


def stranger(client: SignInClient) -> HashingClient:
    """For whom the password of a sign-in is hashed."""
    if parse_address(client.address) is None:  # without an address all are one client, who must not be capped
        return HashingClient("", "")
    return HashingClient(network_of(client.address), client_key(client.address))


def known_client(user_id: str, by: str) -> HashingClient:
    """The same for somebody who has proved something already: served first, each user in turn."""
    return HashingClient(f"user {user_id}", by, known=True)


def is_right(kit: SignInContext, password: str, stored: str | None) -> Op[bool]:
    """Whether the password belongs to the stored form.

    Raises:
        ConfigurationError: the check answers something other than ``True`` or ``False``; a text counts as true.
    """
    return flag((yield from ask(kit.passwords.verify, password, stored)), parameter="passwords.verify()")


def renewed(kit: SignInContext, account: SignInAccount, password: str) -> Op[SignInAccount | None]:
    """The account after its password was stored in today's form; ``None`` if the password is no longer its own.

    A sign-in does not fail because the form cannot be stored.
    """
    stored = account.password_hash
    if stored is None or not kit.passwords.needs_rehash(stored):
        return account
    try:
        fresh = yield from ask(kit.passwords.hash, password)
        yield from ask(kit.accounts.set_password, account.user_id, fresh, expected=stored)
        # Read again, as the stamp follows the stored form: a challenge bound to the old one would be dead on
        # arrival.
        after = yield from ask(kit.accounts.get, account.user_id)
    except Exception as error:  # noqa: BLE001 - the next sign-in tries again
        tell("rehash_failed", SignInTrace(client="", user_id=account.user_id, reason=type(error).__name__))
        return account
    # Only our own form was made from the password that was checked. Any other was stored meanwhile: by a reset,
    # whose stamp a challenge for the old password must not get, or by another sign-in that renewed the form.
    if after is not None and not after.disabled and after.password_hash == fresh:
        return after
    return (yield from present(kit, Credentials(account, None, password)))


def present(kit: SignInContext, proof: Credentials) -> Op[SignInAccount | None]:
    """The account as it is now, if everything that was proved still holds; else ``None``."""
    account = proof.account
    for _ in range(_MOST_LOOKS):
        now = yield from ask(kit.accounts.get, account.user_id)
        if now is None or now.disabled:
            return None
        if now.stamp == account.stamp:
            break
        # Another sign-in may only have renewed the stored form: then the password is right still.
        if proof.password is None or not (yield from is_right(kit, proof.password, now.password_hash)):
            return None
        account = now
    else:
        return None
    if proof.factor is not None and (yield from kit.has_factor(account.user_id)) != proof.factor:
        return None
    return now


def finish(
    place: Place,
    event: Event,
    hits: AttemptHits,
    trace: SignInTrace,
    *,
    retry_after: float | None = None,
    factor: FactorOutcome | None = None,
) -> Op[SignInStep]:
    """Do what the table says: keep or give back the hits, tell who listens, and answer."""
    rule = TABLE[place, event]
    if not rule.counted:
        yield from hits.give_back()
    tell(rule.change, trace)
    decision = hits.disclosed if event == "throttled" else None
    return SignInStep(state=rule.state, retry_after=retry_after, factor=factor, decision=decision)


def asking(client: SignInClient) -> SignInClient:
    """Who asks.

    Raises:
        ConfigurationError: this is something else, an address for example.
    """
    return instance(client, SignInClient, parameter="client")


class SignInRequest(NamedTuple):
    """Who is about to have a session, and which."""

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
        """What the application gave.

        Raises:
            ConfigurationError: one of it is of another kind.
        """
        if session is not None:
            offers(session, "start", "end", parameter="session", kind="a SignInSession or None")
        if data is not None:
            mapping(data, parameter="data", of="names to values")
        return cls(asking(client), session, remember, data)


def admitted(
    kit: SignInContext,
    arrival: SignInRequest,
    proof: Credentials,
    facts: SessionFacts,
    hits: AttemptHits,
    *,
    place: Place,
    risks: tuple[str, ...],
    factor: FactorOutcome | None,
) -> Op[SignInStep]:
    """Start the session of somebody who has signed in completely: the one way to one.

    Checking a password takes long. Meanwhile the password may be reset, the account disabled, the factor taken off.
    Each of these changes the account first and ends its sessions second. A sign-in begins its session first and
    reads the account again second. If the account changed before that read, the session ends here. If it changed
    after that read, the sessions are ended later still, and this one is among them. So no session outlives the
    credentials it was begun with (ASVS 5.0, 7.4.3), without a transaction over the accounts and the sessions. It
    requires that each of the four steps sees what was completed before it: true in memory, for scripts of one Redis
    server, and for a database that is read outside of an older snapshot.
    """
    account, session = proof.account, arrival.session
    if session is not None:
        data = {**(arrival.data or {}), **facts.as_data(account.user_id)}
        # The facts last, so that `data` of the application cannot claim another authentication.
        yield from ask(session.start, account.user_id, data=data)
    now = None
    try:
        now = yield from present(kit, proof)
    finally:
        # Also when the accounts did not answer: what could not be looked at again is not begun.
        if now is None and session is not None:
            yield from ask(session.end)
    trace = SignInTrace(
        client=client_key(arrival.client.address),
        user_id=account.user_id,
        method=" ".join(facts.amr),
        reason=" ".join(risks),
    )
    if now is None:
        event: Event = "wrong" if place == "begun" else "dead"
        return (yield from finish(place, event, hits, replace(trace, reason="changed")))
    step = yield from finish(place, "whole", hits, trace, factor=factor)
    if "new_device" in risks:
        yield from _tell_of_new_device(kit, now, arrival.client)
    return replace(
        step,
        user_id=account.user_id,
        amr=facts.amr,
        auth_time=facts.auth_time,
        risks=risks,
        device=(yield from _remembered(kit, now, facts.auth_time)) if arrival.remember else None,
    )


def _remembered(kit: SignInContext, account: SignInAccount, now: float) -> Op[str | None]:
    """The token of a device; a store that is away at this moment costs the device and not the sign-in."""
    try:
        return (yield from kit.devices.issue(account, now=now))
    except BackendUnavailableError as error:
        tell("device_failed", SignInTrace(client="", user_id=account.user_id, reason=error.reason))
        return None


def _tell_of_new_device(kit: SignInContext, account: SignInAccount, client: SignInClient) -> Op[None]:
    """Tell the owner of a sign-in from a network that the account was not used in (ASVS 5.0, 6.3.5).

    A remembered device is never new. The first sign-in of an account is compared with nothing, and not told.
    """
    if kit.on_notice is None:
        return
    try:
        is_new = yield from _is_new_network(kit, account.user_id, network_of(client.address))
    except BackendUnavailableError as error:
        tell("notice_failed", SignInTrace(client="", user_id=account.user_id, reason=error.reason))
        return
    if is_new:
        notice = SignInNotice(kind="new_device", account=account, to=account.email, client=client.address)
        yield from told(kit, notice)


def _is_new_network(kit: SignInContext, user_id: str, network: str) -> Op[bool]:
    """Whether the account was used before, but not in this network for as long as a device is remembered."""
    key, name = f"networks:{digest_of(user_id)}", digest_of(user_id, network)[:16]
    now, ttl = int(kit.clock.time()), kit.devices.ttl

    def used(facts: dict[str, object]) -> dict[str, int]:
        seen = numbers_of(facts.get("networks"))
        return {known: last for known, last in seen.items() if now - last < ttl}

    def note(facts: dict[str, object]) -> dict[str, object]:
        latest = sorted({**used(facts), name: now}.items(), key=lambda item: item[1])
        return {"networks": dict(latest[-_MOST_NETWORKS:])}

    before = used((yield from kit.entries.peek(key)))
    if now - before.get(name, 0) >= _EVERY:
        yield from kit.entries.change(key, note, ttl=ttl)
    return bool(before) and name not in before


def binding_of(client: SignInClient, session: SignInSession | None) -> tuple[str, str]:
    """To which client and session a challenge belongs, as digests."""
    reference = None if session is None else session.reference
    return digest_of("client", client_key(client.address)), digest_of("session", reference or "")
