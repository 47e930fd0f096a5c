"""What each step answers, and what the audit record of it says: who, from where, by what, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest

from mks_hardening.events import SignInEvent
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import RedisSignInStore, SignInClient
from sign_in_scenario import ELSEWHERE, HERE, RIGHT, PasskeyScenario, Scenario, audited
from soft_authenticator import Lies

Asked = Callable[[], Any]
NEW = "an entirely new sentence"
MORE = {"auth_2fa_verify": 10, "auth_login_device": 10, "auth_password_reset": 3}


def used_up(scenario: Scenario, group: str, key: str) -> None:
    for _ in range(MORE[group]):
        assert scenario.limiter.hit(group, key)


def confirm_password(scenario: Scenario) -> Asked:
    session = scenario.signed_in("sato")
    scenario.clock.advance(60)
    return lambda: scenario.sign_in.confirm_password(session, RIGHT, client=HERE)


def confirm_password_wrong(scenario: Scenario) -> Asked:
    session = scenario.signed_in("sato")
    return lambda: scenario.sign_in.confirm_password(session, "guess", client=HERE)


def confirm_password_too_often(scenario: Scenario) -> Asked:
    session = scenario.signed_in("sato")
    used_up(scenario, "auth_login_device", f"session {session.reference}")
    return lambda: scenario.sign_in.confirm_password(session, RIGHT, client=HERE)


def confirm_password_of_nobody(scenario: Scenario) -> Asked:
    return lambda: scenario.sign_in.confirm_password(scenario.browser(), RIGHT, client=HERE)


def confirm_factor(scenario: Scenario) -> Asked:
    session = scenario.signed_in()
    scenario.clock.advance(60)
    return lambda: scenario.sign_in.confirm_factor(session, scenario.code(), client=HERE)


def confirm_factor_by_recovery_code(scenario: Scenario) -> Asked:
    session = scenario.signed_in()
    return lambda: scenario.sign_in.confirm_factor(session, scenario.codes[0], client=HERE)


def confirm_factor_wrong(scenario: Scenario) -> Asked:
    session = scenario.signed_in()
    return lambda: scenario.sign_in.confirm_factor(session, scenario.wrong_code(), client=HERE)


def confirm_factor_wrong_for_the_last_time(scenario: Scenario) -> Asked:
    session = scenario.signed_in()
    for _ in range(2):
        scenario.sign_in.confirm_factor(session, scenario.wrong_code(), client=HERE)
    return lambda: scenario.sign_in.confirm_factor(session, scenario.wrong_code(), client=HERE)


def confirm_factor_too_often(scenario: Scenario) -> Asked:
    session = scenario.signed_in()
    used_up(scenario, "auth_2fa_verify", "192.0.2.1 1")
    return lambda: scenario.sign_in.confirm_factor(session, scenario.code(), client=HERE)


def confirm_factor_of_nobody(scenario: Scenario) -> Asked:
    return lambda: scenario.sign_in.confirm_factor(scenario.browser(), scenario.code(), client=HERE)


def second_factor_too_often(scenario: Scenario) -> Asked:
    challenge = scenario.challenge()
    used_up(scenario, "auth_2fa_verify", "192.0.2.1 1")
    return lambda: scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE)


def second_factor_without_challenge(scenario: Scenario) -> Asked:
    return lambda: scenario.sign_in.second_factor("x", scenario.code(), client=HERE)


def second_factor_wrong(scenario: Scenario) -> Asked:
    challenge = scenario.challenge()
    return lambda: scenario.sign_in.second_factor(challenge, scenario.wrong_code(), client=HERE)


def alone(scenario: PasskeyScenario) -> Asked:
    outcome = scenario.alone()
    return lambda: scenario.sign_in.passwordless_sign_in(outcome, client=HERE, session=scenario.browser())


def alone_from_a_known_device(scenario: PasskeyScenario) -> Asked:
    first = scenario.sign_in.passwordless_sign_in(scenario.alone(), client=HERE, remember=True)
    known = SignInClient(address="192.0.2.1", device=first.device)
    outcome = scenario.alone()
    return lambda: scenario.sign_in.passwordless_sign_in(outcome, client=known)


def alone_forged(scenario: PasskeyScenario) -> Asked:
    outcome = scenario.alone(Lies(signature=b"x" * 70))
    return lambda: scenario.sign_in.passwordless_sign_in(outcome, client=HERE)


def alone_disabled(scenario: PasskeyScenario) -> Asked:
    outcome = scenario.alone()
    scenario.people.change("2", disabled=True)
    return lambda: scenario.sign_in.passwordless_sign_in(outcome, client=HERE)


def alone_gone(scenario: PasskeyScenario) -> Asked:
    outcome = scenario.alone()
    del scenario.people.by_id["2"]
    return lambda: scenario.sign_in.passwordless_sign_in(outcome, client=HERE)


def change_password(scenario: Scenario) -> Asked:
    session = scenario.signed_in("sato")
    return lambda: scenario.changes.change_password(session, RIGHT, NEW, client=HERE)


def change_password_too_often(scenario: Scenario) -> Asked:
    session = scenario.signed_in("sato")
    used_up(scenario, "auth_login_device", f"session {session.reference}")
    return lambda: scenario.changes.change_password(session, RIGHT, NEW, client=HERE)


def change_email(scenario: Scenario) -> Asked:
    session = scenario.signed_in("sato")
    return lambda: scenario.changes.request_email_change(session, "new@example.com", client=HERE)


def change_email_too_often(scenario: Scenario) -> Asked:
    session = scenario.signed_in("sato")
    used_up(scenario, "auth_password_reset", "user 2")
    return lambda: scenario.changes.request_email_change(session, "new@example.com", client=HERE)


def confirm_email(scenario: Scenario) -> Asked:
    scenario.changes.request_email_change(scenario.signed_in("sato"), "new@example.com", client=HERE)
    return lambda: scenario.changes.confirm_email(scenario.notices[-1].token or "", client=ELSEWHERE)


def confirm_email_without_token(scenario: Scenario) -> Asked:
    return lambda: scenario.changes.confirm_email("x", client=ELSEWHERE)


def reset(scenario: Scenario) -> Asked:
    scenario.changes.request_reset("sato", client=HERE)
    return lambda: scenario.changes.reset_password(scenario.notices[-1].token or "", NEW, client=ELSEWHERE)


def reset_without_token(scenario: Scenario) -> Asked:
    return lambda: scenario.changes.reset_password("x", NEW, client=ELSEWHERE)


def reset_for_nobody(scenario: Scenario) -> Asked:
    return lambda: scenario.changes.request_reset("nobody", client=HERE)


HOME, AWAY = "192.0.2.1", "198.51.100.7"
PASSKEY = {"state": "done", "user_id": "2", "amr": ("swk", "user", "mfa"), "auth_time": 1_700_000_040.0}
FACTOR = {"state": "done", "user_id": "1", "amr": ("pwd", "otp", "mfa"), "auth_time": 1_700_000_070.0}
CASES: list[tuple[Callable[[Any], Asked], dict[str, Any], list[tuple[str, ...]]]] = [
    (
        confirm_password,
        {"state": "done", "user_id": "2", "amr": ("pwd",), "auth_time": 1_700_000_100.0},
        [("confirmed", "2", HOME, "", "password")],
    ),
    (
        confirm_password_wrong,
        {"state": "refused"},
        [("confirmation_refused", "2", HOME, "wrong", "password")],
    ),
    (
        confirm_password_too_often,
        {"state": "limited", "retry_after": 3600.0},
        [("limited", "2", HOME, "", "password")],
    ),
    (confirm_password_of_nobody, {"state": "expired"}, [("confirmation_refused", "", HOME)]),
    (confirm_factor, FACTOR, [("confirmed", "1", HOME, "", "totp")]),
    (confirm_factor_by_recovery_code, FACTOR, [("confirmed", "1", HOME, "", "recovery")]),
    (
        confirm_factor_wrong,
        {"state": "refused", "factor": "wrong"},
        [("confirmation_refused", "1", HOME, "wrong", "totp")],
    ),
    (
        confirm_factor_wrong_for_the_last_time,
        {"state": "limited", "retry_after": 300.0, "factor": "wrong"},
        [("confirmation_refused", "1", HOME, "wrong", "totp")],
    ),
    (confirm_factor_too_often, {"state": "limited", "retry_after": 60.0}, [("limited", "1", HOME)]),
    (confirm_factor_of_nobody, {"state": "expired"}, [("confirmation_refused", "", HOME)]),
    (second_factor_too_often, {"state": "limited", "retry_after": 60.0}, [("limited", "1", HOME)]),
    (second_factor_without_challenge, {"state": "expired"}, [("challenge_refused", "", HOME)]),
    (
        second_factor_wrong,
        {"state": "refused", "factor": "wrong"},
        [("factor_refused", "1", HOME, "wrong", "totp")],
    ),
    (
        alone,
        {**PASSKEY, "risks": ("new_device",), "factor": ""},
        [("signed_in", "2", HOME, "new_device", "swk user mfa")],
    ),
    (alone_from_a_known_device, {**PASSKEY, "factor": ""}, [("signed_in", "2", HOME, "", "swk user mfa")]),
    (alone_forged, {"state": "refused"}, [("refused", "", HOME, "wrong", "passkey")]),
    (alone_disabled, {"state": "refused"}, [("refused", "2", HOME, "disabled", "passkey")]),
    (alone_gone, {"state": "refused"}, [("refused", "2", HOME, "unknown", "passkey")]),
    (
        change_password,
        {"state": "done"},
        [("confirmed", "2", HOME, "", "password"), ("password_changed", "2", HOME)],
    ),
    (
        change_password_too_often,
        {"state": "limited", "retry_after": 3600.0},
        [("limited", "2", HOME, "", "password")],
    ),
    (change_email, {"state": "done"}, [("email_change_requested", "2", HOME)]),
    (
        change_email_too_often,
        {"state": "limited", "retry_after": 3600.0},
        [("limited", "2", HOME, "", "email")],
    ),
    (confirm_email, {"state": "done"}, [("email_changed", "2", AWAY)]),
    (confirm_email_without_token, {"state": "expired"}, [("email_change_refused", "", AWAY)]),
    (reset, {"state": "done"}, [("password_changed", "2", AWAY, "", "reset")]),
    (reset_without_token, {"state": "expired"}, [("reset_refused", "", AWAY)]),
    (reset_for_nobody, {"state": "done"}, [("reset_requested", "", HOME, "unknown")]),
]


@pytest.mark.parametrize(("prepare", "answer", "events"), CASES, ids=[case[0].__name__ for case in CASES])
def test_each_step_is_answered_and_told_of(
    prepare: Callable[[Any], Asked], answer: dict[str, Any], events: list[tuple[str, ...]]
) -> None:
    ask = prepare(PasskeyScenario() if prepare.__name__.startswith("alone") else Scenario())
    with audited() as seen:
        step = ask()
    assert seen == [SignInEvent(*fields) for fields in events]
    said = {field: getattr(step, field) for field in step.__dataclass_fields__}
    if said.get("factor") is not None:
        said["factor"] = said["factor"].reason
    assert {field: value for field, value in said.items() if value not in (None, ())} == answer


def test_a_notice_says_whose_it_is(scenario: Scenario) -> None:
    """With the account as it was found, so that the mail can be written."""
    session = scenario.signed_in("sato")
    scenario.changes.request_email_change(session, "new@example.com", client=HERE)
    scenario.changes.confirm_email(scenario.notices[-1].token or "", client=HERE)
    assert [(notice.account.name, notice.to) for notice in scenario.notices] == [
        ("sato", "new@example.com"),
        ("sato", "sato@example.com"),
    ]


def test_wrong_codes_of_one_client_do_not_shut_out_another(scenario: Scenario) -> None:
    """In a step-up as in a sign-in: the budget is the client's, and the thief of a session is another client."""
    session = scenario.signed_in()
    for _ in range(3):
        scenario.sign_in.confirm_factor(session, scenario.wrong_code(), client=ELSEWHERE)
    scenario.clock.advance(30)
    assert scenario.sign_in.confirm_factor(session, scenario.code(), client=ELSEWHERE).state == "limited"
    assert scenario.sign_in.confirm_factor(session, scenario.code(), client=HERE)


@pytest.mark.parametrize(
    ("passed", "recent"), [(-61, False), (-60, True), (0, True), (300, True), (300.5, False)]
)
def test_recent_is_up_to_the_very_second(scenario: Scenario, passed: float, recent: bool) -> None:
    session = scenario.signed_in()
    scenario.clock.step_wall(passed)
    assert scenario.sign_in.factor_within(session, 300) is recent


@pytest.mark.parametrize(
    ("email", "state"),
    [
        ("a@b@example.com", "unusable"),
        ("a" * 242 + "@example.com", "done"),
        ("a" * 243 + "@example.com", "unusable"),
    ],
)
def test_the_longest_address_is_254_characters(scenario: Scenario, email: str, state: str) -> None:
    """RFC 5321, 4.5.3.1.3; of two at-signs mail systems take one or the other for the last."""
    session = scenario.signed_in("sato")
    assert scenario.changes.request_email_change(session, email, client=HERE).state == state


def test_a_challenge_in_redis_works_once_for_def_and_async_def() -> None:
    scenario = Scenario(store=RedisSignInStore(fakeredis.FakeRedis(), store_budget=30))
    first, second = scenario.challenge(), scenario.challenge()
    assert scenario.sign_in.second_factor(first, scenario.code(), client=HERE)
    assert scenario.sign_in.second_factor(first, scenario.codes[0], client=HERE).state == "expired"

    async def on_a_loop() -> list[str]:
        return [
            (await scenario.sign_in.asecond_factor(second, code, client=HERE)).state
            for code in scenario.codes[1:3]
        ]

    assert asyncio.run(on_a_loop()) == ["done", "expired"]


@pytest.mark.parametrize("act", ["unlock", "admin_reset"])
@pytest.mark.parametrize("missing", ["actor", "reason"])
def test_an_act_without_actor_or_reason_is_refused_by_name(
    scenario: Scenario, act: str, missing: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        getattr(scenario.sign_in, act)("1", **{"actor": "suzuki", "reason": "telephone", missing: " "})
    assert refused.value.parameter == missing


@pytest.fixture
def scenario() -> Scenario:
    return Scenario()
