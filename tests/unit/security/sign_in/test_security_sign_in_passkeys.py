"""Passkeys in a sign-in: as the second step, and alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import PasskeySignIn, SignInStep, VerificationResult
from sign_in_scenario import ELSEWHERE, HERE, RIGHT, PasskeyScenario, audited
from soft_authenticator import Lies


@pytest.fixture
def scenario() -> PasskeyScenario:
    return PasskeyScenario()


def test_a_passkey_is_a_second_factor(scenario: PasskeyScenario) -> None:
    half = scenario.sign_in.password("sato", RIGHT, client=HERE)
    assert half.challenge is not None
    wrong = scenario.answered(half.challenge, Lies(signature=b"x" * 70))
    assert scenario.sign_in.second_factor(half.challenge, wrong, client=HERE).state == "refused"
    right = scenario.answered(half.challenge)
    session = scenario.browser()
    assert scenario.sign_in.second_factor(half.challenge, right, client=ELSEWHERE).state == "expired"
    step = scenario.sign_in.second_factor(half.challenge, right, client=HERE)
    assert (step.state, step.user_id, step.amr) == ("done", "2", ("pwd", "swk", "mfa"))
    assert session.user_id is None


def test_an_answer_to_one_sign_in_is_none_to_another(scenario: PasskeyScenario) -> None:
    first = scenario.sign_in.password("sato", RIGHT, client=HERE).challenge
    second = scenario.sign_in.password("sato", RIGHT, client=HERE).challenge
    assert first is not None
    assert second is not None
    answer = scenario.answered(first)
    assert scenario.sign_in.second_factor(second, answer, client=HERE).state == "refused"


@pytest.mark.parametrize("challenge", [None, "", "A" * 43, "x"])
def test_a_challenge_that_is_none_is_nobodys(scenario: PasskeyScenario, challenge: str | None) -> None:
    assert scenario.sign_in.challenged_user(challenge, client=HERE) is None


def test_a_passkey_alone_signs_in(scenario: PasskeyScenario) -> None:
    scenario.locked("sato")  # nobody can guess it, so no lock holds it back
    session = scenario.browser()
    step = scenario.sign_in.passwordless_sign_in(scenario.alone(), client=HERE, session=session)
    assert (step.state, step.user_id, step.amr) == ("done", "2", ("swk", "user", "mfa"))
    assert session.user_id == "2"
    assert scenario.sign_in.factor_within(session, 1)


def test_a_result_completes_one_sign_in(scenario: PasskeyScenario) -> None:
    outcome = scenario.alone()
    with audited() as seen:
        states = [scenario.sign_in.passwordless_sign_in(outcome, client=HERE).state for _ in range(3)]
    assert states == ["done", "refused", "refused"]
    assert [event.reason for event in seen][1:] == ["replayed"] * 2
    outcome = scenario.alone()
    with ThreadPoolExecutor(8) as pool:
        steps = pool.map(lambda _: scenario.sign_in.passwordless_sign_in(outcome, client=HERE), range(8))
    assert sorted(step.state for step in steps) == ["done", *["refused"] * 7]


@pytest.mark.parametrize("kind", [PasskeySignIn, SimpleNamespace])
def test_a_code_is_no_passkey(scenario: PasskeyScenario, kind: Any) -> None:
    """Nor is a passkey that has only proved that somebody has it."""
    code = scenario.factors.verify("1", scenario.codes[0])
    assert code
    unverified = VerificationResult(ok=True, method="passkey")
    for user_id, result in (("1", code), ("2", unverified)):
        session = scenario.browser()
        with pytest.raises(ConfigurationError) as caught:
            scenario.sign_in.passwordless_sign_in(
                kind(user_id=user_id, result=result), client=HERE, session=session
            )
        assert caught.value.parameter == "outcome"
        assert session.user_id is None


@pytest.mark.parametrize("cause", ["forged", "disabled", "gone"])
def test_who_is_refused_is_told_nothing(scenario: PasskeyScenario, cause: str) -> None:
    lies = Lies(signature=b"x" * 70) if cause == "forged" else None
    if cause == "disabled":
        scenario.people.change("2", disabled=True)
    elif cause == "gone":
        del scenario.people.by_id["2"]
    session = scenario.browser()
    step = scenario.sign_in.passwordless_sign_in(scenario.alone(lies), client=HERE, session=session)
    assert step == SignInStep(state="refused")
    assert session.user_id is None
    assert scenario.limiter.test("auth_login_address", "192.0.2.1").remaining == (59, 599)
