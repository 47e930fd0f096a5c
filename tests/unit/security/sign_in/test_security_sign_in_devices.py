"""Remembered devices: listed, revoked singly, ended by help, and the notice of a new one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import (
    FailureBudget,
    MemoryTwoFactorStore,
    SecretBox,
    SignInClient,
    TwoFactorManager,
)
from sign_in_scenario import ELSEWHERE, HERE, RIGHT, Scenario, audited


def remembered(scenario: Scenario, name: str = "sato") -> str:
    scenario.signed_in(name, remember=True)
    assert scenario.device is not None
    return scenario.device


def is_known(scenario: Scenario, token: str) -> bool:
    client = SignInClient(address="192.0.2.99", device=token)
    return "new_device" not in scenario.sign_in.password("sato", RIGHT, client=client).risks


def test_listed_with_the_latest_first() -> None:
    scenario = Scenario()
    first = remembered(scenario)
    scenario.clock.advance(60)
    second = remembered(scenario)
    latest, older = scenario.sign_in.devices("2", token=first)
    assert (latest.current, older.current) == (False, True)
    assert older.remembered_at == pytest.approx(scenario.clock.time() - 60, abs=1)
    assert latest.expires_at == latest.remembered_at + 90 * 86400
    assert asyncio.run(scenario.sign_in.adevices("2", token=second))[0].current
    assert scenario.sign_in.devices("nobody") == ()
    assert latest.id in second  # a name for it, which is no token by itself
    assert not is_known(scenario, latest.id)


def test_revoked_singly() -> None:
    scenario = Scenario()
    first, second = remembered(scenario), remembered(scenario)
    [device] = [device for device in scenario.sign_in.devices("2", token=first) if device.current]
    with audited() as seen:
        assert scenario.sign_in.revoke_device("2", device.id)
        assert not scenario.sign_in.revoke_device("2", device.id)
        assert not scenario.sign_in.revoke_device("1", device.id)
    assert [event.change for event in seen] == ["device_revoked"]
    assert not is_known(scenario, first)
    assert is_known(scenario, second)
    assert asyncio.run(scenario.sign_in.aforget_devices("2")) == 1
    assert not is_known(scenario, second)
    assert scenario.sign_in.forget_devices("2") == 0


def test_ended_by_an_administrators_help() -> None:
    scenario = Scenario()
    token = remembered(scenario)
    scenario.sign_in.admin_reset("2", actor="ito", reason="lost the telephone")
    assert not is_known(scenario, token)
    assert scenario.sign_in.devices("2") == ()


def test_ended_by_a_new_password() -> None:
    scenario = Scenario()
    remembered(scenario)
    scenario.people.change("2", password_hash=f"x:{RIGHT}", stamp="")
    assert scenario.sign_in.devices("2") == ()
    remembered(scenario)
    assert len(scenario.sign_in.devices("2")) == 1


def test_a_store_that_lost_its_entries_forgets_devices() -> None:
    scenario = Scenario()
    token = remembered(scenario)
    scenario.store._records.clear()
    assert not is_known(scenario, token)


def test_no_account_keeps_more_than_twenty() -> None:
    scenario = Scenario()
    tokens = []
    for _ in range(22):
        tokens.append(remembered(scenario))
        scenario.clock.advance(1)
    assert len(scenario.sign_in.devices("2")) == 20
    assert [is_known(scenario, token) for token in (tokens[1], tokens[2], tokens[-1])] == [False, True, True]


def test_a_device_that_is_remembered_while_another_is() -> None:
    """Both are listed: the second write finds the first one and is made again."""
    scenario = Scenario()
    replace, others = scenario.store.replace, []

    def slowly(key: str, data: bytes, /, **options: Any) -> bool:
        if key.startswith("devices:") and not others:
            others.append(key)
            remembered(scenario)
        return replace(key, data, **options)

    scenario.store.replace = slowly
    remembered(scenario)
    assert len(scenario.sign_in.devices("2")) == 2


def test_a_store_that_goes_away_costs_the_device_and_not_the_sign_in() -> None:
    scenario = Scenario()
    replace = scenario.store.replace

    def fail(key: str, data: bytes, /, **options: Any) -> bool:
        if key.startswith(("devices:", "networks:")):
            raise BackendUnavailableError("sign-in", "timeout")
        return replace(key, data, **options)

    scenario.store.replace = fail
    session = scenario.browser()
    with audited() as seen:
        step = scenario.sign_in.password("sato", RIGHT, client=HERE, session=session, remember=True)
    assert (step.state, step.device, session.user_id) == ("done", None, "2")
    assert {"device_failed", "notice_failed"} <= {event.change for event in seen}


# --- the cap of wrong codes


def capped() -> tuple[Scenario, str]:
    """An owner on a remembered device, whose account is at the cap of wrong codes."""
    scenario = Scenario()
    factors = TwoFactorManager(
        MemoryTwoFactorStore(),
        issuer="現場",
        secret_box=SecretBox(bytes(range(32))),
        failure_budget=FailureBudget(3, lock=300, lifetime=4),
        clock=scenario.clock,
    )
    scenario.factors = factors
    scenario.sign_in = type(scenario.sign_in)(scenario.people, **{**scenario.parts, "factors": factors})
    scenario.secret = factors.begin_enrolment("1", account_name="tanaka").secret
    factors.confirm_enrolment("1", scenario.code())
    scenario.clock.advance(30)
    scenario.signed_in("tanaka", remember=True)
    assert scenario.device is not None
    for number in range(4):
        factors.verify("1", scenario.wrong_code(), client=f"203.0.113.{number}")
    scenario.clock.advance(30)
    return scenario, scenario.device


def second_step(scenario: Scenario, client: SignInClient, code: str) -> Any:
    challenge = scenario.challenge(client)
    return scenario.sign_in.second_factor(challenge, code, client=client)


def test_the_cap_on_wrong_codes_does_not_keep_the_owner_out_of_a_remembered_device() -> None:
    scenario, token = capped()
    step = second_step(scenario, ELSEWHERE, scenario.code())
    assert (step.state, step.retry_after) == ("limited", None)
    assert second_step(scenario, SignInClient(address="198.51.100.7", device=token), scenario.code())


def test_a_device_that_guesses_too_often_is_remembered_no_more() -> None:
    scenario, token = capped()
    client = SignInClient(address="198.51.100.7", device=token)
    for _ in range(3):
        assert not second_step(scenario, client, scenario.wrong_code())
    assert scenario.sign_in.devices("1") == ()
    step = second_step(scenario, client, scenario.code())
    assert (step.state, step.retry_after) == ("limited", None)


def test_a_verifier_that_does_not_know_of_trust_is_asked_as_before() -> None:
    class Own:
        def __init__(self, inside: TwoFactorManager) -> None:
            self.inside = inside

        def status(self, user_id: str, /) -> Any:
            return self.inside.status(user_id)

        def verify(self, user_id: str, code: str, /, *, client: str | None = None) -> Any:
            return self.inside.verify(user_id, code, client=client)

    scenario, token = capped()
    scenario.sign_in = type(scenario.sign_in)(
        scenario.people, **{**scenario.parts, "factors": Own(scenario.factors)}
    )
    step = second_step(scenario, SignInClient(address="198.51.100.7", device=token), scenario.code())
    assert step.state == "limited"


# --- the notice


def test_a_sign_in_from_a_new_network_is_told_once() -> None:
    scenario = Scenario()
    for address in ("192.0.2.1", "192.0.2.77", "198.51.100.7", "192.0.2.1", "198.51.100.9"):
        assert scenario.sign_in.password("sato", RIGHT, client=SignInClient(address=address))
    notices = [(notice.kind, notice.to, notice.client) for notice in scenario.new_devices]
    assert notices == [
        ("new_device", "sato@example.com", "198.51.100.7"),
    ]
    assert "198.51.100.7" not in repr(scenario.new_devices)
    scenario.clock.advance(89 * 86400)
    assert scenario.sign_in.password("sato", RIGHT, client=HERE)
    scenario.clock.advance(2 * 86400)
    assert scenario.sign_in.password("sato", RIGHT, client=HERE)
    assert len(scenario.new_devices) == 1
    assert scenario.sign_in.password("sato", RIGHT, client=ELSEWHERE)  # too long ago
    assert len(scenario.new_devices) == 2


def test_a_remembered_device_is_new_nowhere() -> None:
    scenario = Scenario()
    token = remembered(scenario)
    assert scenario.sign_in.password("sato", RIGHT, client=SignInClient(address="203.0.113.5", device=token))
    assert scenario.new_devices == []


def test_with_a_second_factor_only_once_it_was_given() -> None:
    scenario = Scenario()
    scenario.signed_in("tanaka")
    scenario.clock.advance(30)
    challenge = scenario.challenge(ELSEWHERE)
    assert scenario.new_devices == []
    assert not scenario.sign_in.second_factor(challenge, scenario.wrong_code(), client=ELSEWHERE)
    assert scenario.new_devices == []
    assert scenario.sign_in.second_factor(challenge, scenario.code(), client=ELSEWHERE)
    assert [notice.kind for notice in scenario.new_devices] == ["new_device"]
