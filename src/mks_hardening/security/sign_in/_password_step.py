"""First step of a sign-in: name and password, with the same work and the same response for every account."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mks_hardening._core.operations import Op
from mks_hardening._core.origin.network_addresses import client_key
from mks_hardening._core.store_calls import call_store
from mks_hardening.security.second_factor.codes.recovery_codes import normalize_recovery_code
from mks_hardening.security.sign_in._attempt_hits import (
    AttemptHits,
    LimitKey,
    account_limit_key,
    client_limit_keys,
    device_limit_key,
)
from mks_hardening.security.sign_in._context import (
    Credentials,
    SignInContext,
    SignInRequest,
    SignInTrace,
    apply_transition,
    authenticated_hashing_client,
    check_password,
    emit_event,
    hashing_for,
    issue_challenge,
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

__all__ = ["lift_lock", "lock_key", "password_step"]


def password_step(
    context: SignInContext,
    typed_name: object,
    password: object,
    recovery_code: object,
    request: SignInRequest,
) -> Op[SignInStep]:
    """Check name and password under all limits."""
    name, counted_as = normalize_name(typed_name)
    hits = AttemptHits(context.limiter)
    device = context.devices.read(request.client.device, now=context.clock.time())
    # Looked up early only for a client with a token that we signed: for strangers the limits come before the
    # database.
    account = (yield from _find(context, name)) if device is not None else None
    trusted = account is not None and (yield from context.devices.is_remembered(device, account))
    if not (yield from hits.reserve(*_limit_keys(request.client, counted_as, device if trusted else None))):
        trace = SignInTrace(client=client_key(request.client.address))
        return (yield from apply_transition("begun", "throttled", hits, trace))
    try:
        if device is None:
            account = yield from _find(context, name)
        who = unauthenticated_hashing_client(request.client)
        if trusted and device is not None and account is not None:
            who = authenticated_hashing_client(account.user_id, f"device {device.nonce}")
        # By id if the account exists: counting by the typed name would give an account one limit per spelling.
        key = account_limit_key(None if account is None else account.user_id, counted_as)
        checked = _check_credentials(
            context, account, password, recovery_code, request=request, key=key, hits=hits, trusted=trusted
        )
        return (yield from hashing_for(who, checked))
    except BaseException:  # an outage or a cancelled sign-in is not counted as a wrong guess
        yield from hits.give_back()
        raise


def lock_key(key: LimitKey) -> str:
    """Return the key of the marker that the owner was notified of a lock."""
    return f"lock:{digest_of(*key)}"


def _check_credentials(
    context: SignInContext,
    account: SignInAccount | None,
    given_password: object,
    recovery_code: object,
    *,
    request: SignInRequest,
    key: LimitKey,
    hits: AttemptHits,
    trusted: bool,
) -> Op[SignInStep]:
    decision = None if trusted else (yield from hits.reserve_one(key))
    locked = decision is not None and not decision.allowed
    password = given_password if isinstance(given_password, str) else ""
    # ``None`` costs a full check too (see PasswordCheck), so that the time does not reveal whether the account
    # exists.
    stored = None if account is None else account.password_hash
    try:
        matches = yield from check_password(context, password, stored)
    except Exception:
        raise
    except (
        BaseException
    ):  # a client that disconnects during hashing has used CPU time, so its hits stay counted
        hits.keep()
        raise
    client = client_key(request.client.address)
    outcome = None
    factor = False
    if account is not None and not account.disabled and matches:
        if locked:
            # Only after the correct password: otherwise a locked account would be an oracle for recovery codes.
            outcome = yield from _check_recovery_code(context, account, recovery_code, client)
        else:
            factor = yield from context.has_factor(account.user_id)
    passed = outcome is not None and outcome.ok
    facts = PasswordFacts(
        known=account is not None,
        enabled=account is not None and not account.disabled,
        right=matches,
        locked=locked and not passed,
        factor=factor,
    )
    event = password_event(facts)
    user_id = "" if account is None else account.user_id
    trace = SignInTrace(client=client, user_id=user_id, reason=facts.reason, method="password")
    if account is None or event == "wrong":
        step = yield from apply_transition("begun", "wrong", hits, trace)
        yield from _notify_lock(context, account, key, decision, trace)
        return step

    if passed:
        yield from lift_lock(context, key)
        emit_event("lock_passed", SignInTrace(client=client, user_id=user_id, method="recovery"))
    # Before the challenge is issued, which is bound to the stamp and thereby to the hash.
    account = yield from rehash_if_needed(context, account, password)
    if account is None:
        return (yield from apply_transition("begun", "wrong", hits, replace(trace, reason="changed")))
    method = outcome.method if passed and outcome is not None else None
    risks = risks_of(
        trusted=trusted,
        failures=_failed_before(decision),
        passed_lock=locked,
        method=method,
        factor=factor or passed,
    )
    now = context.clock.time()
    if event == "factor_required":
        challenge = yield from issue_challenge(context, request, account, risks)
        step = yield from apply_transition("begun", "factor_required", hits, trace)
        return SignInStep(state=step.state, challenge=challenge, risks=risks)
    how = SessionFacts(amr_of(method), now, now if passed else None)
    return (
        yield from start_session(
            context,
            request,
            Credentials(account, outcome if passed and outcome is not None else False, password),
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
    key: LimitKey,
    decision: LimitDecision | None,
    trace: SignInTrace,
) -> Op[None]:
    """Notify the owner if this failure starts a lock; unknown names are treated alike."""
    if decision is None or not decision.allowed or min(decision.remaining, default=1) > 0:
        return
    # One mail per lock, not one for each guess.
    first = yield from context.entries.set_marker(lock_key(key), ttl=max(decision.reset_after))
    if first and account is not None:
        emit_event("locked", SignInTrace(client=trace.client, user_id=account.user_id))
        yield from notify_owner(context, SignInNotice(kind="locked", account=account, to=account.email))


def lift_lock(context: SignInContext, key: LimitKey) -> Op[bool]:
    """Lift an account-wide lock; return whether its owner had been notified of one."""
    if context.limiter is not None:
        yield from call_store(context.limiter.reset, *key)
    return (yield from context.entries.remove_marker(lock_key(key)))


def _find(context: SignInContext, name: str | None) -> Op[SignInAccount | None]:
    return None if name is None else (yield from call_store(context.accounts.find, name))


def _limit_keys(client: SignInClient, name: str, device: DeviceToken | None) -> tuple[LimitKey, ...]:
    """Return the limits to check: a remembered device has its own, which strangers cannot use up."""
    if device is not None:
        return (device_limit_key(device.nonce),)
    return client_limit_keys(client.address, name)


def _failed_before(decision: LimitDecision | None) -> bool:
    if decision is None:
        return False
    return any(
        # The hit of this attempt is included: it is given back later.
        left + 1 < limit.quota
        for left, limit in zip(decision.remaining, decision.limits, strict=True)
    )
