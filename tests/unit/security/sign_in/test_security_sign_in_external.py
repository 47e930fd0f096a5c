"""Sign-ins that an identity provider has checked."""

from __future__ import annotations

import asyncio

import pytest

from mks_hardening.security import SignInAccount
from sign_in_scenario import ELSEWHERE, HERE, RIGHT, START, Scenario, audited

DAY = 86_400.0


@pytest.fixture
def scenario() -> Scenario:
    return Scenario()


@pytest.mark.parametrize(
    ("user_id", "second_factor", "state"),
    [
        ("1", False, "challenged"),  # the account has a second factor
        ("1", True, "done"),
        ("2", False, "done"),  # the account has none
        ("2", True, "done"),
        ("3", False, "refused"),  # disabled
        ("3", True, "refused"),
        ("9", True, "refused"),  # unknown
    ],
)
def test_a_session_starts_only_for_an_enabled_account_with_every_factor(
    scenario: Scenario, user_id: str, second_factor: bool, state: str
) -> None:
    session = scenario.browser()
    step = scenario.sign_in.external_sign_in(
        user_id, client=HERE, session=session, second_factor=second_factor
    )
    assert step.state == state
    assert session.user_id == (user_id if state == "done" else None)
    assert (step.challenge is not None) == (state == "challenged")


def test_the_challenge_keeps_what_the_provider_stated(scenario: Scenario) -> None:
    session = scenario.browser()
    stated = scenario.clock.time() - 60
    half = scenario.sign_in.external_sign_in(
        "1", client=HERE, session=session, amr=["fed", "pwd"], auth_time=stated
    )
    code = scenario.code()
    assert (
        scenario.sign_in.second_factor(half.challenge, code, client=ELSEWHERE, session=session).state
        == "expired"
    )
    step = scenario.sign_in.second_factor(half.challenge, code, client=HERE, session=session)
    assert (step.state, step.amr, step.auth_time) == ("done", ("fed", "pwd", "otp", "mfa"), stated)
    assert scenario.sign_in.factor_within(session, 1)


@pytest.mark.parametrize(
    ("auth_time", "recent", "lately"),
    [
        (START + 30 - 60, True, True),
        (START + 30 - 7200, False, True),
        (START + 30 + 7200, True, True),  # the clock of the provider is ahead: as old as now, no younger
        (None, False, True),  # a day old
    ],
)
def test_the_age_of_an_authentication_is_that_of_the_provider(
    scenario: Scenario, auth_time: float | None, recent: bool, lately: bool
) -> None:
    session = scenario.browser()
    step = scenario.sign_in.external_sign_in(
        "1", client=HERE, session=session, auth_time=auth_time, second_factor=True
    )
    assert step.auth_time is not None
    assert step.auth_time <= scenario.clock.time()
    assert scenario.sign_in.confirmed_within(session, 900) is recent
    assert scenario.sign_in.factor_within(session, DAY) is lately


def test_a_session_without_any_second_factor_has_none(scenario: Scenario) -> None:
    session = scenario.browser()
    step = scenario.sign_in.external_sign_in(
        "2", client=HERE, session=session, amr=["mfa"], auth_time=scenario.clock.time()
    )
    assert step.risks == ("new_device", "no_second_factor")
    assert not scenario.sign_in.factor_within(session, DAY)


def test_an_account_without_a_password_signs_in(scenario: Scenario) -> None:
    scenario.people.by_id["4"] = SignInAccount(user_id="4", name="mori", password_hash=None)
    assert scenario.sign_in.external_sign_in("4", client=HERE)
    assert not scenario.sign_in.password("mori", RIGHT, client=HERE)


def test_events_name_the_methods_and_the_reason(scenario: Scenario) -> None:
    with audited() as seen:
        scenario.sign_in.external_sign_in("2", client=HERE, amr=["fed", "hwk"])
        scenario.sign_in.external_sign_in("3", client=HERE, amr=["fed"])
        scenario.sign_in.external_sign_in("1", client=HERE, amr=["fed"])
    assert [(each.change, each.user_id, each.method, each.reason) for each in seen] == [
        ("signed_in", "2", "fed hwk", "new_device no_second_factor"),
        ("refused", "3", "fed", "disabled"),
        ("challenged", "1", "fed", ""),
    ]


def test_an_account_that_is_disabled_in_between_gets_no_session(scenario: Scenario) -> None:
    session = scenario.browser()
    start = session.start

    def disabled_meanwhile(user_id: str, **options: object) -> None:
        start(user_id, **options)  # type: ignore[arg-type]  # passed on unchanged
        scenario.people.change("2", disabled=True)

    session.start = disabled_meanwhile  # type: ignore[method-assign]  # for this session only
    assert scenario.sign_in.external_sign_in("2", client=HERE, session=session).state == "refused"
    assert session.user_id is None


@pytest.mark.parametrize(
    "change", [{"disabled": True}, {"password_hash": "new:reset", "stamp": ""}], ids=["disabled", "reset"]
)
def test_a_challenge_ends_with_a_change_of_the_account(scenario: Scenario, change: dict[str, object]) -> None:
    session = scenario.browser()
    half = scenario.sign_in.external_sign_in("1", client=HERE, session=session)
    scenario.people.change("1", **change)
    step = scenario.sign_in.second_factor(half.challenge, scenario.code(), client=HERE, session=session)
    assert step.state == "expired"
    assert session.user_id is None


def test_two_tabs_share_one_session_and_do_not_finish_for_each_other(scenario: Scenario) -> None:
    session = scenario.browser()
    first = scenario.sign_in.external_sign_in("1", client=HERE, session=session)
    other = scenario.sign_in.external_sign_in("1", client=HERE, session=session)
    assert scenario.sign_in.external_sign_in("2", client=HERE, session=session).state == "done"
    for half in (first, other):  # issued to the session before it belonged to another account
        step = scenario.sign_in.second_factor(half.challenge, scenario.code(), client=HERE, session=session)
        assert step.state == "expired"
    assert session.user_id == "2"


def test_a_remembered_device_is_not_new(scenario: Scenario) -> None:
    step = scenario.sign_in.external_sign_in("2", client=HERE, remember=True)
    known = type(HERE)(address="192.0.2.1", device=step.device)
    assert scenario.sign_in.external_sign_in("2", client=known).risks == ("no_second_factor",)


def test_the_asyncio_version_does_the_same(scenario: Scenario) -> None:
    assert asyncio.run(scenario.sign_in.aexternal_sign_in("2", client=HERE)).user_id == "2"
