"""Second step of a sign-in: the challenge issued for a correct password, and a second factor."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from mks_hardening._core.checks import shows
from mks_hardening._core.operations import Op
from mks_hardening._core.origin.network_addresses import client_key
from mks_hardening._core.store_calls import call_store
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security.passkeys.passkey_results import PasskeyAssertion
from mks_hardening.security.sign_in._attempt_hits import AttemptHits, LimitKey, client_limit_keys
from mks_hardening.security.sign_in._context import (
    Credentials,
    SignInContext,
    SignInRequest,
    SignInTrace,
    apply_transition,
    binding_of,
    start_session,
)
from mks_hardening.security.sign_in._session_facts import SessionFacts
from mks_hardening.security.sign_in._state_machine import AMR_PASSKEY_ONLY, Event, amr_of, factor_event
from mks_hardening.security.sign_in.sign_in_results import SignInStep

if TYPE_CHECKING:
    from mks_hardening.security.sign_in._one_time_tokens import TokenEntry
    from mks_hardening.security.sign_in.sign_in_protocols import FactorOutcome, PasswordlessOutcome
    from mks_hardening.security.sign_in.sign_in_results import SignInAccount, SignInClient

__all__ = [
    "FactorAttempt",
    "FactorCheck",
    "challenged_user",
    "check_factor",
    "factor_step",
    "passwordless_step",
]

_LONGEST_CHECK: Final = 10.0
"""Maximum duration of a check, in seconds; every store responds or fails much sooner."""
_BUSY: Final = 1.0


class FactorAttempt(NamedTuple):
    """Input of the second step."""

    challenge: object
    code: object
    arrival: SignInRequest


class FactorCheck(NamedTuple):
    """Event of a verifier's result; without a result the verifier was not called."""

    event: Event
    outcome: FactorOutcome | None = None

    @property
    def retry_after(self) -> float | None:
        """Seconds until codes are checked again, if they are locked."""
        return self.outcome.retry_after if self.outcome is not None and self.outcome.locked else None

    def trace(self, client: str, user_id: str) -> SignInTrace:
        """Return the fields of the audit event."""
        if self.outcome is None:
            return SignInTrace(client=client, user_id=user_id, reason="malformed")
        return SignInTrace(
            client=client, user_id=user_id, reason=self.outcome.reason, method=self.outcome.method or ""
        )


def factor_step(context: SignInContext, attempt: FactorAttempt) -> Op[SignInStep]:
    """Check the second factor and consume the challenge."""
    hits = AttemptHits(context.limiter)
    client = client_key(attempt.arrival.client.address)
    found = yield from context.entries.find("challenge", attempt.challenge)
    account = None if found is None else (yield from _owner(context, found, attempt.arrival))
    if found is None or account is None:
        return (yield from apply_transition("challenged", "dead", hits, SignInTrace(client=client)))
    user_id = account.user_id
    mark = context.devices.read(attempt.arrival.client.device, now=context.clock.time())
    trusted = yield from context.devices.knows(mark, account)
    # The nonce of the token, not the address: the limit follows the device across networks.
    guesser = f"device {mark.nonce}" if mark is not None and trusted else client
    refusal = yield from hits.take(*_rows(attempt.arrival.client, guesser, user_id, trusted=trusted))
    if refusal is not None:
        trace = SignInTrace(client=client, user_id=user_id)
        return (
            yield from apply_transition(
                "challenged", "throttled", hits, trace, retry_after=refusal.retry_after
            )
        )
    held = None
    try:
        # One code at a time: if several correct recovery codes arrive at once, only one may be consumed.
        held = yield from context.entries.hold(found, longest=_LONGEST_CHECK)
        if held is None:
            trace = SignInTrace(client=client, user_id=user_id, reason="busy")
            return (yield from apply_transition("challenged", "busy", hits, trace, retry_after=_BUSY))
        code = None if _is_of_another_sign_in(attempt.code, attempt.challenge) else attempt.code
        judged = yield from check_factor(context, user_id, code, client=guesser, trusted=trusted)
        event, outcome = judged
        if event == "shut" and mark is not None and trusted:
            # The device has guessed too often, so it may be stolen and must not bypass the limit of the account.
            yield from context.devices.forget(user_id, mark.nonce)
        # The code is checked before the challenge is consumed: a wrong code leaves the challenge valid, and of
        # two correct ones a single one succeeds.
        if event == "whole" and not (yield from context.entries.use(held)):
            event = "dead"
        if event != "whole" or outcome is None:
            yield from context.entries.release(held)
            trace, retry_after = judged.trace(client, user_id), judged.retry_after
            return (
                yield from apply_transition(
                    "challenged", event, hits, trace, retry_after=retry_after, factor=outcome
                )
            )
        now = context.clock.time()
        facts = SessionFacts(amr_of(outcome.method), now, now)
        risks = _risks(found, outcome)
        arrival = attempt.arrival._replace(
            remember=attempt.arrival.remember or found.facts.get("remember") is True
        )
        return (
            yield from start_session(
                context,
                arrival,
                Credentials(account, factor=True),
                facts,
                hits,
                place="challenged",
                risks=risks,
                factor=outcome,
            )
        )
    except BaseException:  # an outage or a cancellation is not counted as a wrong guess
        yield from hits.give_back()
        if held is not None:
            with suppress(BackendUnavailableError):  # the hold expires by itself
                yield from context.entries.release(held)
        raise


def challenged_user(context: SignInContext, challenge: object, arrival: SignInRequest) -> Op[str | None]:
    """Return the user of a challenge, for a factor that needs a request to the browser first."""
    found = yield from context.entries.find("challenge", challenge)
    account = None if found is None else (yield from _owner(context, found, arrival))
    return None if account is None else account.user_id


def passwordless_step(
    context: SignInContext, outcome: PasswordlessOutcome, arrival: SignInRequest
) -> Op[SignInStep]:
    """Complete a sign-in with a factor that was already checked and needs no password."""
    shows(outcome, "user_id", "result", parameter="outcome", kind="a PasswordlessOutcome")
    hits = AttemptHits(context.limiter)
    result = outcome.result
    # Read before the account: whoever removes a factor does so before ending the sessions.
    factor = result.ok and (yield from context.has_factor(outcome.user_id))
    account = (yield from call_store(context.accounts.get, outcome.user_id)) if result.ok else None
    if account is None or account.disabled:
        network, address, _ = client_limit_keys(arrival.client.address, "")
        # Counted although already checked: a stream of forged assertions uses up the limit of its network.
        yield from hits.take(network, address)
        reason = result.reason or ("unknown" if account is None else "disabled")
        trace = SignInTrace(
            client=client_key(arrival.client.address),
            user_id=outcome.user_id,
            reason=reason,
            method=result.method or "",
        )
        return (yield from apply_transition("begun", "wrong", hits, trace))
    now = context.clock.time()
    facts = SessionFacts(AMR_PASSKEY_ONLY, now, now)
    mark = context.devices.read(arrival.client.device, now=now)
    risks = () if (yield from context.devices.knows(mark, account)) else ("new_device",)
    return (
        yield from start_session(
            context,
            arrival,
            Credentials(account, factor),
            facts,
            hits,
            place="begun",
            risks=risks,
            factor=result,
        )
    )


def check_factor(
    context: SignInContext, user_id: str, code: object, *, client: str, trusted: bool = False
) -> Op[FactorCheck]:
    """Call the verifier and return the event of its result."""
    outcome = yield from context.try_factor(user_id, code, client=client, trusted=trusted)
    return FactorCheck("unusable") if outcome is None else FactorCheck(factor_event(outcome), outcome)


def _is_of_another_sign_in(code: object, challenge: object) -> bool:
    """Return whether a passkey assertion belongs to another sign-in (ASVS 5.0, 6.6.2)."""
    return isinstance(code, PasskeyAssertion) and code.session != challenge


def _owner(context: SignInContext, found: TokenEntry, arrival: SignInRequest) -> Op[SignInAccount | None]:
    """Return the account of a challenge if client and session match and the account has not changed since."""
    # A challenge is invalid in another browser, so phishing the second page alone fails.
    if (found.text("client"), found.text("session")) != binding_of(arrival.client, arrival.session):
        return None
    account = yield from call_store(context.accounts.get, found.text("user"))
    good = account is not None and not account.disabled and account.stamp == found.text("stamp")
    return account if good else None


def _rows(client: SignInClient, guesser: str, user_id: str, *, trusted: bool) -> tuple[LimitKey, ...]:
    own = ("auth_2fa_verify", f"{guesser} {user_id}")
    if trusted:
        return (own,)
    network, address, _ = client_limit_keys(client.address, "")
    return (network, address, own)


def _risks(found: TokenEntry, outcome: FactorOutcome) -> tuple[str, ...]:
    listed = found.facts.get("risks")
    noted = tuple(str(risk) for risk in cast("list[object]", listed)) if isinstance(listed, list) else ()
    return (*noted, "recovery_code") if outcome.method == "recovery" else noted
