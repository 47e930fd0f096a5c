"""Second factor of a sign-in after its challenge, and sign-ins whose credentials were checked elsewhere."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from mks_hardening._core.checks import instance
from mks_hardening._core.operations import Op
from mks_hardening._core.origin.network_addresses import client_key
from mks_hardening._core.store_calls import call_store
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security.passkeys.passkey_results import PasskeyAssertion
from mks_hardening.security.second_factor.factor_results import PasskeySignIn
from mks_hardening.security.sign_in._attempt_hits import AttemptHits, LimitKey, client_limit_keys
from mks_hardening.security.sign_in._context import (
    Credentials,
    SignInContext,
    SignInRequest,
    SignInTrace,
    apply_transition,
    binding_of,
    issue_challenge,
    start_session,
)
from mks_hardening.security.sign_in._session_facts import SessionFacts
from mks_hardening.security.sign_in._state_machine import AMR_PASSKEY_ONLY, amr_of, factor_event
from mks_hardening.security.sign_in.sign_in_results import SignInStep

if TYPE_CHECKING:
    from mks_hardening.security.sign_in._one_time_tokens import TokenEntry
    from mks_hardening.security.sign_in.sign_in_protocols import FactorOutcome
    from mks_hardening.security.sign_in.sign_in_results import SignInAccount, SignInClient

__all__ = ["challenged_user", "external_step", "factor_step", "passwordless_step", "trace_of_factor"]

_LONGEST_CHECK: Final = 10.0
"""Maximum duration of a check, in seconds; every store responds or fails much sooner."""


def factor_step(
    context: SignInContext, challenge: object, code: object, request: SignInRequest
) -> Op[SignInStep]:
    """Check the second factor and consume the challenge."""
    hits = AttemptHits(context.limiter)
    client = client_key(request.client.address)
    found = yield from context.entries.find("challenge", challenge)
    account = None if found is None else (yield from _owner(context, found, request))
    if found is None or account is None:
        return (yield from apply_transition("challenged", "expired", hits, SignInTrace(client=client)))
    trace = SignInTrace(client=client, user_id=account.user_id)
    device = context.devices.read(request.client.device, now=context.clock.time())
    trusted = yield from context.devices.is_remembered(device, account)
    # The nonce of the token, not the address: the limit follows the device across networks.
    guesser = f"device {device.nonce}" if device is not None and trusted else client
    limits = _limit_keys(request.client, guesser, account.user_id, trusted=trusted)
    if not (yield from hits.reserve(*limits)):
        return (yield from apply_transition("challenged", "throttled", hits, trace))
    held = None
    try:
        # One code at a time: if several correct recovery codes arrive at once, only one may be consumed.
        held = yield from context.entries.hold(found, longest=_LONGEST_CHECK)
        if held is None:
            return (yield from apply_transition("challenged", "busy", hits, replace(trace, reason="busy")))
        # A passkey assertion of another sign-in is not accepted (ASVS 5.0, 6.6.2).
        if isinstance(code, PasskeyAssertion) and code.session != challenge:
            code = None
        outcome = yield from context.try_factor(account.user_id, code, client=guesser, trusted=trusted)
        event = factor_event(outcome)
        if event == "locked_now" and device is not None and trusted:
            # The device has guessed too often, so it may be stolen and must not bypass the limit of the account.
            yield from context.devices.forget(account.user_id, device.nonce)
        # The code is checked before the challenge is consumed: a wrong code leaves the challenge valid, and of
        # two correct ones a single one succeeds.
        if event == "complete" and not (yield from context.entries.use(held)):
            event = "expired"
        if event != "complete" or outcome is None:
            yield from context.entries.release(held)
            trace = trace_of_factor(trace, outcome)
            return (yield from apply_transition("challenged", event, hits, trace, outcome))
        now = context.clock.time()
        return (
            yield from start_session(
                context,
                request._replace(remember=request.remember or found.facts.get("remember") is True),
                Credentials(account, outcome),
                _facts_with_factor(found, outcome, now),
                hits,
                place="challenged",
                risks=_risks(found, outcome),
                factor=outcome,
            )
        )
    except BaseException:  # an outage or a cancellation is not counted as a wrong guess
        yield from hits.give_back()
        if held is not None:
            with suppress(BackendUnavailableError):  # the hold expires by itself
                yield from context.entries.release(held)
        raise


def trace_of_factor(trace: SignInTrace, outcome: FactorOutcome | None) -> SignInTrace:
    """Return the fields of the audit event with a verifier's result."""
    if outcome is None:
        return replace(trace, reason="malformed")
    return replace(trace, reason=outcome.reason, method=outcome.method or "")


def challenged_user(context: SignInContext, challenge: object, request: SignInRequest) -> Op[str | None]:
    """Return the user of a challenge, for a factor that needs a request to the browser first."""
    found = yield from context.entries.find("challenge", challenge)
    account = None if found is None else (yield from _owner(context, found, request))
    return None if account is None else account.user_id


def passwordless_step(
    context: SignInContext, outcome: PasskeySignIn, request: SignInRequest
) -> Op[SignInStep]:
    """Complete a sign-in with a passkey that was already checked.

    Raises:
        ConfigurationError: the result is not that of a passkey that has verified its user.
    """
    result = instance(outcome, PasskeySignIn, parameter="outcome").result
    if result.ok and not (result.method == "passkey" and result.user_verified):
        raise ConfigurationError(
            "outcome must be the result of Passkeys.finish_sign_in: a passkey that has verified its user",
            parameter="outcome",
        )
    hits = AttemptHits(context.limiter)
    accepted = result.ok and outcome.consume()
    # Read before the account: whoever removes a factor does so before ending the sessions.
    factor: FactorOutcome | bool = result
    if accepted and context.is_current is None:
        factor = yield from context.has_factor(outcome.user_id)
    account = (yield from call_store(context.accounts.get, outcome.user_id)) if accepted else None
    if account is None or account.disabled:
        network, address, _ = client_limit_keys(request.client.address, "")
        # Counted although already checked: a stream of forged assertions uses up the limit of its network.
        yield from hits.reserve(network, address)
        reason = result.reason or ("disabled" if account else "unknown" if accepted else "replayed")
        trace = SignInTrace(
            client=client_key(request.client.address),
            user_id=outcome.user_id,
            reason=reason,
            method=result.method or "",
        )
        return (yield from apply_transition("begun", "wrong", hits, trace))
    now = context.clock.time()
    facts = SessionFacts(AMR_PASSKEY_ONLY, now, now)
    device = context.devices.read(request.client.device, now=now)
    risks = () if (yield from context.devices.is_remembered(device, account)) else ("new_device",)
    return (
        yield from start_session(
            context,
            request,
            Credentials(account, factor),
            facts,
            hits,
            place="begun",
            risks=risks,
            factor=result,
        )
    )


def external_step(
    context: SignInContext, user_id: str, facts: SessionFacts, request: SignInRequest
) -> Op[SignInStep]:
    """Complete a sign-in that an identity provider has checked, or ask for the second factor of the account."""
    hits = AttemptHits(context.limiter)
    # Read before the account, as in ``passwordless_step``.
    factor = yield from context.has_factor(user_id)
    account = yield from call_store(context.accounts.get, user_id)
    trace = SignInTrace(
        client=client_key(request.client.address), user_id=user_id, method=" ".join(facts.amr)
    )
    if account is None or account.disabled:
        trace = replace(trace, reason="unknown" if account is None else "disabled")
        return (yield from apply_transition("begun", "wrong", hits, trace))
    device = context.devices.read(request.client.device, now=context.clock.time())
    risks = () if (yield from context.devices.is_remembered(device, account)) else ("new_device",)
    proved = facts.factor_time is not None
    if factor and not proved:
        challenge = yield from issue_challenge(context, request, account, risks, facts)
        step = yield from apply_transition("begun", "factor_required", hits, trace)
        return SignInStep(state=step.state, challenge=challenge, risks=risks)
    if not proved:
        risks = (*risks, "no_second_factor")
    return (
        yield from start_session(
            context,
            request,
            # The factor of the provider counts, whatever becomes of that of the account.
            Credentials(account, None if proved else factor),
            facts,
            hits,
            place="begun",
            risks=risks,
            factor=None,
        )
    )


def _facts_with_factor(found: TokenEntry, outcome: FactorOutcome, now: float) -> SessionFacts:
    """Return the facts of a session after the second factor; ``issue_challenge`` stored those of a provider."""
    amr, auth_time = found.facts.get("amr"), found.facts.get("auth_time")
    if not isinstance(amr, list) or not isinstance(auth_time, (int, float)):
        return SessionFacts(amr_of(outcome.method), now, now)
    methods = tuple(str(each) for each in cast("list[object]", amr))
    return SessionFacts(amr_of(outcome.method, methods), auth_time, now)


def _owner(context: SignInContext, found: TokenEntry, request: SignInRequest) -> Op[SignInAccount | None]:
    """Return the account of a challenge if client and session match and the account has not changed since."""
    # A challenge is invalid in another browser, so phishing the second page alone fails.
    if (found.text("client"), found.text("session")) != binding_of(request.client, request.session):
        return None
    account = yield from call_store(context.accounts.get, found.text("user"))
    good = account is not None and not account.disabled and account.stamp == found.text("stamp")
    return account if good else None


def _limit_keys(client: SignInClient, guesser: str, user_id: str, *, trusted: bool) -> tuple[LimitKey, ...]:
    own = ("auth_2fa_verify", f"{guesser} {user_id}")
    if trusted:
        return (own,)
    network, address, _ = client_limit_keys(client.address, "")
    return (network, address, own)


def _risks(found: TokenEntry, outcome: FactorOutcome) -> tuple[str, ...]:
    listed = found.facts.get("risks")
    noted = tuple(str(risk) for risk in cast("list[object]", listed)) if isinstance(listed, list) else ()
    return (*noted, "recovery_code") if outcome.method == "recovery" else noted
