"""The table of the machine: every state and event, what follows, and that nothing can be left out."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest

from mks_hardening.security import SIGN_IN_LIMITS, SignInStep, VerificationResult
from mks_hardening.security.sign_in._state_machine import (
    TRANSITIONS,
    Event,
    FlowState,
    PasswordFacts,
    amr_of,
    amr_with_password,
    factor_event,
    password_event,
    risks_of,
)

REGISTERED = {"hwk", "mfa", "otp", "pwd", "swk"}  # of those in RFC 8176, section 2
IMPOSSIBLE = {("begun", event) for event in ("malformed", "locked_now", "locked", "expired")} | {
    ("challenged", "factor_required"),
    ("open", "factor_required"),
    ("begun", "busy"),
    ("open", "busy"),
}


@pytest.mark.parametrize(("place", "event"), sorted(product(get_args(FlowState), get_args(Event))))
def test_every_event_has_one_outcome_in_every_state(place: Any, event: Any) -> None:
    assert ((place, event) in TRANSITIONS) != ((place, event) in IMPOSSIBLE)


@pytest.mark.parametrize(("place", "event"), sorted(TRANSITIONS))
def test_what_follows(place: Any, event: Any) -> None:
    rule = TRANSITIONS[place, event]
    assert (rule.state == "done") == (event == "complete")
    assert (rule.state == "challenged") == (event == "factor_required")
    assert rule.counted == (event in {"wrong", "locked_now"})
    assert SignInStep(state=rule.state).__bool__() == (event == "complete")


@pytest.mark.parametrize("facts", [PasswordFacts(*row) for row in product([True, False], repeat=5)])
def test_only_a_right_password_goes_on(facts: PasswordFacts) -> None:
    good = facts.known and facts.enabled and facts.right and not facts.locked
    assert password_event(facts) == (("factor_required" if facts.factor else "complete") if good else "wrong")
    assert bool(facts.reason) == (not good)


@pytest.mark.parametrize(
    ("known", "enabled", "right", "locked", "reason"),
    [
        (False, False, False, False, "unknown"),
        (False, False, False, True, "unknown"),
        (True, False, False, True, "wrong"),
        (True, False, True, True, "disabled"),
        (True, True, True, True, "locked"),
        (True, True, True, False, ""),
    ],
)
def test_the_audit_reason_is_the_first_that_holds(
    known: bool, enabled: bool, right: bool, locked: bool, reason: str
) -> None:
    facts = PasswordFacts(known=known, enabled=enabled, right=right, locked=locked, factor=False)
    assert facts.reason == reason


@pytest.mark.parametrize(
    ("outcome", "event"),
    [
        (VerificationResult(ok=True, method="totp"), "complete"),
        (VerificationResult(ok=False, reason="wrong"), "wrong"),
        (VerificationResult(ok=False, reason="wrong", locked=True), "locked_now"),
        (VerificationResult(ok=False, reason="locked", locked=True), "locked"),
        (VerificationResult(ok=False, reason="replayed"), "malformed"),
        (VerificationResult(ok=False, reason="malformed"), "malformed"),
        (VerificationResult(ok=False, reason="not_enrolled"), "expired"),
    ],
)
def test_only_a_guess_counts_and_a_factor_that_is_gone_lets_nobody_in(
    outcome: VerificationResult, event: str
) -> None:
    assert factor_event(outcome) == event


@pytest.mark.parametrize("method", [None, "totp", "recovery", "passkey", "webauthn", "carrier pigeon"])
def test_authentication_methods_are_registered_ones(method: str | None) -> None:
    amr = amr_of(method)
    assert set(amr) <= REGISTERED
    assert amr[0] == "pwd"
    assert ("mfa" in amr) == (method is not None)


@pytest.mark.parametrize(
    ("before", "method", "after"),
    [
        (("pwd",), "totp", ("pwd", "otp", "mfa")),
        (("pwd", "otp", "mfa"), "passkey", ("pwd", "otp", "swk", "mfa")),
        (("swk", "user", "mfa"), "totp", ("swk", "user", "otp", "mfa")),
        (("swk", "user", "mfa"), "passkey", ("user", "swk", "mfa")),
    ],
)
def test_a_session_begun_by_a_passkey_alone_has_seen_no_password(
    before: tuple[str, ...], method: str, after: tuple[str, ...]
) -> None:
    assert amr_of(method, before) == after
    assert amr_with_password(after) == (after if "pwd" in after else ("pwd", *after))


def test_risks_stand_in_a_fixed_order() -> None:
    assert risks_of(trusted=True, failures=False, passed_lock=False, method=None, factor=True) == ()
    assert risks_of(trusted=False, failures=True, passed_lock=True, method="recovery", factor=False) == (
        "new_device",
        "recent_failures",
        "account_locked",
        "recovery_code",
        "no_second_factor",
    )


def test_no_account_takes_more_than_a_hundred_failures_a_day() -> None:
    """NIST SP 800-63B, 3.2.2."""
    assert max(limit.quota for limit in SIGN_IN_LIMITS["auth_login_account"]) <= 100
