"""Reauthentication within a session: step-up belongs to the session, not to the user (ASVS 5.0, 7.5.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mks_hardening._core.operations import Op
from mks_hardening._core.origin.network_addresses import client_key
from mks_hardening._core.store_calls import call_store
from mks_hardening.security.sign_in._attempt_hits import AttemptHits
from mks_hardening.security.sign_in._context import (
    Credentials,
    SignInContext,
    SignInTrace,
    apply_transition,
    authenticated_hashing_client,
    check_password,
    hashing_for,
    recheck_account,
)
from mks_hardening.security.sign_in._factor_step import trace_of_factor
from mks_hardening.security.sign_in._session_facts import (
    SessionFacts,
    checked_session,
    is_recent,
    read_session_facts,
)
from mks_hardening.security.sign_in._state_machine import amr_of, amr_with_password, factor_event
from mks_hardening.security.sign_in.sign_in_results import SignInStep

if TYPE_CHECKING:
    from mks_hardening.protocols import SignInSession
    from mks_hardening.security.sign_in.sign_in_results import SignInAccount, SignInClient

__all__ = ["confirm_factor", "confirm_password", "confirmed_within", "owner_of"]


def confirm_password(
    context: SignInContext, session: SignInSession, password: object, client: SignInClient
) -> Op[SignInStep]:
    """Check the password again."""
    hits = AttemptHits(context.limiter)
    key = client_key(client.address)
    facts = read_session_facts(session)
    account = yield from owner_of(context, session)
    if account is None or facts is None:
        return (yield from apply_transition("open", "expired", hits, SignInTrace(client=key)))
    trace = SignInTrace(client=key, user_id=account.user_id, method="password")
    # Counted per session, not per account: strangers who guess at the account cannot use up this limit.
    if not (
        yield from hits.reserve(("auth_login_device", f"session {session.reference or account.user_id}"))
    ):
        return (yield from apply_transition("open", "throttled", hits, trace))
    try:
        typed = password if isinstance(password, str) else ""
        who = authenticated_hashing_client(account.user_id, f"session {session.reference}")
        if not (yield from hashing_for(who, check_password(context, typed, account.password_hash))):
            return (yield from apply_transition("open", "wrong", hits, replace(trace, reason="wrong")))
        proved = facts._replace(amr=amr_with_password(facts.amr), auth_time=context.clock.time())
        return (
            yield from _record_confirmation(
                context, session, Credentials(account, None, typed), proved, hits=hits, trace=trace
            )
        )
    except BaseException:  # an outage or a cancellation is not counted as a wrong guess
        yield from hits.give_back()
        raise


def confirm_factor(
    context: SignInContext, session: SignInSession, code: object, client: SignInClient
) -> Op[SignInStep]:
    """Check a second factor, again or for the first time in this session."""
    hits = AttemptHits(context.limiter)
    key = client_key(client.address)
    facts = read_session_facts(session)
    account = yield from owner_of(context, session)
    if account is None or facts is None:
        return (yield from apply_transition("open", "expired", hits, SignInTrace(client=key)))
    trace = SignInTrace(client=key, user_id=account.user_id)
    if not (yield from hits.reserve(("auth_2fa_verify", f"{key} {account.user_id}"))):
        return (yield from apply_transition("open", "throttled", hits, trace))
    try:
        outcome = yield from context.try_factor(account.user_id, code, client=key)
        event, trace = factor_event(outcome), trace_of_factor(trace, outcome)
        if event != "complete" or outcome is None:
            return (yield from apply_transition("open", event, hits, trace, outcome))
        now = context.clock.time()
        proved = SessionFacts(amr_of(outcome.method, facts.amr), facts.auth_time, now)
        return (
            yield from _record_confirmation(
                context, session, Credentials(account, outcome), proved, hits=hits, trace=trace
            )
        )
    except BaseException:  # an outage or a cancellation is not counted as a wrong guess
        yield from hits.give_back()
        raise


def confirmed_within(context: SignInContext, session: SignInSession, longest: float) -> Op[bool]:
    """Return whether the user authenticated in this session within the last ``longest`` seconds.

    If the account has a second factor, only that factor counts.
    """
    facts = read_session_facts(session)
    if facts is None or session.user_id is None:
        return False
    needed = yield from context.has_factor(session.user_id)
    # With a second factor, the password alone confirms nothing, not even one given a second ago.
    moment = facts.factor_time if needed else max(facts.auth_time, facts.factor_time or facts.auth_time)
    return is_recent(moment, now=context.clock.time(), longest=longest)


def owner_of(context: SignInContext, session: SignInSession) -> Op[SignInAccount | None]:
    """Return the account of a session, if it exists and is enabled."""
    user_id = checked_session(session).user_id
    if user_id is None:
        return None
    account = yield from call_store(context.accounts.get, user_id)
    return None if account is None or account.disabled else account


def _record_confirmation(
    context: SignInContext,
    session: SignInSession,
    credentials: Credentials,
    facts: SessionFacts,
    *,
    hits: AttemptHits,
    trace: SignInTrace,
) -> Op[SignInStep]:
    """Rotate the session id, then record the authentication, never the reverse (ASVS 5.0, 7.2.4)."""
    # The account is read again after the slow check, because a session that changed the password itself stays
    # open.
    kept = (yield from recheck_account(context, credentials)) is not None and (
        yield from call_store(session.rotate)
    )
    kept = kept and (yield from call_store(session.update_data, **facts.as_data(trace.user_id)))
    step = yield from apply_transition("open", "complete" if kept else "expired", hits, trace)
    if not kept:
        return step
    return SignInStep(state=step.state, user_id=session.user_id, amr=facts.amr, auth_time=facts.auth_time)
