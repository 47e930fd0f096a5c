"""First step of a sign-in: name and password, with the same work and the same response for every account."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from mks_hardening._core.operations import Op
from mks_hardening._core.origin.network_addresses import client_key
from mks_hardening._core.store_calls import call_store
from mks_hardening.security.second_factor.codes.recovery_codes import normalize_recovery_code
from mks_hardening.security.sign_in._attempt_hits import (
    AttemptHits,
    LimitKey,
    account_limit_key,
    client_limit_keys,
)
from mks_hardening.security.sign_in._context import (
    Credentials,
    SignInContext,
    SignInRequest,
    SignInTrace,
    apply_transition,
    authenticated_hashing_client,
    binding_of,
    check_password,
    emit_event,
    hashing_for,
    normalize_name,
    notify_owner,
    rehash_if_needed,
    start_session,
    unauthenticated_hashing_client,
)
from mks_hardening.security.sign_in._one_time_tokens import digest_of
from mks_hardening.security.sign_in._session_facts import SessionFacts
from mks_hardening.security.sign_in._state_machine import PasswordFacts, amr_of, password_event, risks_of
from mks_hardening.security.sign_in.sign_in_results import SignInNotice, SignInStep

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision
    from mks_hardening.security.sign_in._device_tokens import DeviceToken
    from mks_hardening.security.sign_in.sign_in_protocols import FactorOutcome
    from mks_hardening.security.sign_in.sign_in_results import SignInAccount, SignInClient

__all__ = ["PasswordAttempt", "lift_lock", "lock_key", "password_step"]


class PasswordAttempt(NamedTuple):
    """Input of the first step."""

    name: object
    password: object
    recovery_code: object
    arrival: SignInRequest


def password_step(context: SignInContext, attempt: PasswordAttempt) -> Op[SignInStep]:
    """Check name and password under all limits."""
    name, counted_as = normalize_name(attempt.name)
    hits = AttemptHits(context.limiter)
    mark = context.devices.read(attempt.arrival.client.device, now=context.clock.time())
    # Looked up early only for a client with a token that we signed: for strangers the limits come before the
    # database.
    account = (yield from _find(context, name)) if mark is not None else None
    trusted = account is not None and (yield from context.devices.knows(mark, account))
    refusal = yield from hits.take(*_rows(attempt.arrival.client, counted_as, mark if trusted else None))
    if refusal is not None:
        trace = SignInTrace(client=client_key(attempt.arrival.client.address))
        return (
            yield from apply_transition("begun", "throttled", hits, trace, retry_after=refusal.retry_after)
        )
    try:
        if mark is None:
            account = yield from _find(context, name)
        who = unauthenticated_hashing_client(attempt.arrival.client)
        if trusted and mark is not None and account is not None:
            who = authenticated_hashing_client(account.user_id, f"device {mark.nonce}")
        judged = _check_credentials(context, attempt, account, counted_as, hits, trusted=trusted)
        return (yield from hashing_for(who, judged))
    except BaseException:  # an outage or a cancelled sign-in is not counted as a wrong guess
        yield from hits.give_back()
        raise


def lock_key(row: LimitKey) -> str:
    """Return the key of the marker that the owner was notified of a lock."""
    return f"lock:{digest_of(*row)}"


def _check_credentials(
    context: SignInContext,
    attempt: PasswordAttempt,
    account: SignInAccount | None,
    counted_as: str,
    hits: AttemptHits,
    *,
    trusted: bool,
) -> Op[SignInStep]:
    # By id if the account exists: counting by the typed name would give an account one limit per spelling.
    row = account_limit_key(None if account is None else account.user_id, counted_as)
    standing = None if trusted else (yield from hits.take_one(row))
    locked = standing is not None and not standing.allowed
    password = attempt.password if isinstance(attempt.password, str) else ""
    # ``None`` costs a full check too (see PasswordCheck), so that the time does not reveal whether the account
    # exists.
    stored = None if account is None else account.password_hash
    try:
        right = yield from check_password(context, password, stored)
    except BaseException as error:
        # A client that disconnects during hashing has used CPU time, so its hits stay counted.
        if not isinstance(error, Exception):
            hits.keep()
        raise
    client = client_key(attempt.arrival.client.address)
    well = account is not None and not account.disabled and right
    outcome = None
    if account is not None and well and locked:
        # Only after the correct password: otherwise a locked account would be an oracle for recovery codes.
        outcome = yield from _check_recovery_code(context, account, attempt.recovery_code, client)
    passed = outcome is not None and outcome.ok
    factor = passed
    if account is not None and well and not locked:
        factor = yield from context.has_factor(account.user_id)
    facts = PasswordFacts(
        known=account is not None,
        enabled=account is not None and not account.disabled,
        right=right,
        locked=locked and not passed,
        factor=factor and not passed,
    )
    event = password_event(facts)
    user_id = "" if account is None else account.user_id
    trace = SignInTrace(client=client, user_id=user_id, reason=facts.reason, method="password")
    if account is None or event == "wrong":
        step = yield from apply_transition("begun", "wrong", hits, trace)
        yield from _notify_lock(context, account, row, standing, trace)
        return step

    if passed:
        yield from lift_lock(context, row)
        emit_event("lock_passed", SignInTrace(client=client, user_id=user_id, method="recovery"))
    # Before the challenge is issued, which is bound to the stamp and thereby to the hash.
    account = yield from rehash_if_needed(context, account, password)
    if account is None:
        return (yield from apply_transition("begun", "wrong", hits, replace(trace, reason="changed")))
    method = outcome.method if passed and outcome is not None else None
    risks = risks_of(
        trusted=trusted,
        failures=_failed_before(standing),
        passed_lock=locked,
        method=method,
        factor=factor,
    )
    now = context.clock.time()
    if event == "half":
        challenge = yield from _challenge(context, attempt, account, risks, now)
        step = yield from apply_transition("begun", "half", hits, trace)
        return SignInStep(state=step.state, challenge=challenge, risks=risks)
    how = SessionFacts(amr_of(method), now, now if passed else None)
    return (
        yield from start_session(
            context,
            attempt.arrival,
            Credentials(account, passed, password),
            how,
            hits,
            place="begun",
            risks=risks,
            factor=outcome,
        )
    )


def _check_recovery_code(
    context: SignInContext, account: SignInAccount, code: object, client: str
) -> Op[FactorOutcome | None]:
    """Check a recovery code, which bypasses an account-wide lock because it cannot be guessed.

    A TOTP code can be guessed and is not checked here.
    """
    if normalize_recovery_code(code) is None:
        return None
    return (yield from context.try_factor(account.user_id, code, client=client))


def _notify_lock(
    context: SignInContext,
    account: SignInAccount | None,
    row: LimitKey,
    standing: LimitDecision | None,
    trace: SignInTrace,
) -> Op[None]:
    """Notify the owner if this failure starts a lock; unknown names are treated alike."""
    if standing is None or not standing.allowed or min(standing.remaining, default=1) > 0:
        return
    # One mail per lock, not one for each guess.
    first = yield from context.entries.mark(lock_key(row), ttl=max(standing.reset_after))
    if first and account is not None:
        emit_event("locked", SignInTrace(client=trace.client, user_id=account.user_id))
        yield from notify_owner(context, SignInNotice(kind="locked", account=account, to=account.email))


def lift_lock(context: SignInContext, row: LimitKey) -> Op[bool]:
    """Lift an account-wide lock; return whether its owner had been notified of one."""
    if context.limiter is not None:
        yield from call_store(context.limiter.reset, *row)
    return (yield from context.entries.unmark(lock_key(row)))


def _challenge(
    context: SignInContext,
    attempt: PasswordAttempt,
    account: SignInAccount,
    risks: tuple[str, ...],
    now: float,
) -> Op[str]:
    client, session = binding_of(attempt.arrival.client, attempt.arrival.session)
    facts: dict[str, object] = {
        "user": account.user_id,
        "stamp": account.stamp,
        "client": client,
        "session": session,
        "at": now,
        "risks": list(risks),
        # Requested together with the password; the page of the second factor does not ask again.
        "remember": attempt.arrival.remember,
    }
    return context.entries.issue("challenge", facts, ttl=context.challenge_ttl)


def _find(context: SignInContext, name: str | None) -> Op[SignInAccount | None]:
    return None if name is None else (yield from call_store(context.accounts.find, name))


def _rows(client: SignInClient, name: str, mark: DeviceToken | None) -> tuple[LimitKey, ...]:
    """Return the limits to check: a remembered device has its own, which strangers cannot use up."""
    if mark is not None:
        return (("auth_login_device", f"device {mark.nonce}"),)
    return client_limit_keys(client.address, name)


def _failed_before(standing: LimitDecision | None) -> bool:
    if standing is None:
        return False
    return any(
        # The hit of this attempt is included: it is given back later.
        left + 1 < limit.quota
        for left, limit in zip(standing.remaining, standing.limits, strict=True)
    )
