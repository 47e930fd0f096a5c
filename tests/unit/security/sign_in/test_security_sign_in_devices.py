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
from sign_in_house import ELSEWHERE, HERE, RIGHT, House, audited


def remembered(house: House, name: str = "sato") -> str:
    house.signed_in(name, remember=True)
    assert house.device is not None
    return house.device


def is_known(house: House, token: str) -> bool:
    client = SignInClient(address="192.0.2.99", device=token)
    return "new_device" not in house.sign_in.password("sato", RIGHT, client=client).risks


def test_listed_with_the_latest_first() -> None:
    house = House()
    first = remembered(house)
    house.clock.advance(60)
    second = remembered(house)
    latest, older = house.sign_in.devices("2", token=first)
    assert (latest.current, older.current) == (False, True)
    assert older.remembered_at == pytest.approx(house.clock.time() - 60, abs=1)
    assert latest.expires_at == latest.remembered_at + 90 * 86400
    assert asyncio.run(house.sign_in.adevices("2", token=second))[0].current
    assert house.sign_in.devices("nobody") == ()
    assert latest.id in second  # a name for it, which is no token by itself
    assert not is_known(house, latest.id)


def test_revoked_singly() -> None:
    house = House()
    first, second = remembered(house), remembered(house)
    [device] = [device for device in house.sign_in.devices("2", token=first) if device.current]
    with audited() as seen:
        assert house.sign_in.revoke_device("2", device.id)
        assert not house.sign_in.revoke_device("2", device.id)
        assert not house.sign_in.revoke_device("1", device.id)
    assert [event.change for event in seen] == ["device_revoked"]
    assert not is_known(house, first)
    assert is_known(house, second)
    assert asyncio.run(house.sign_in.aforget_devices("2")) == 1
    assert not is_known(house, second)
    assert house.sign_in.forget_devices("2") == 0


def test_ended_by_an_administrators_help() -> None:
    house = House()
    token = remembered(house)
    house.sign_in.admin_reset("2", actor="ito", reason="lost the telephone")
    assert not is_known(house, token)
    assert house.sign_in.devices("2") == ()


def test_ended_by_a_new_password() -> None:
    house = House()
    remembered(house)
    house.people.change("2", password_hash=f"x:{RIGHT}", stamp="")
    assert house.sign_in.devices("2") == ()
    remembered(house)
    assert len(house.sign_in.devices("2")) == 1


def test_a_store_that_lost_its_entries_forgets_devices() -> None:
    house = House()
    token = remembered(house)
    house.store._records.clear()
    assert not is_known(house, token)


def test_no_account_keeps_more_than_twenty() -> None:
    house = House()
    tokens = []
    for _ in range(22):
        tokens.append(remembered(house))
        house.clock.advance(1)
    assert len(house.sign_in.devices("2")) == 20
    assert [is_known(house, token) for token in (tokens[1], tokens[2], tokens[-1])] == [False, True, True]


def test_a_device_that_is_remembered_while_another_is() -> None:
    """Both are listed: the second write finds the first one and is made again."""
    house = House()
    replace, others = house.store.replace, []

    def slowly(key: str, data: bytes, /, **options: Any) -> bool:
        if key.startswith("devices:") and not others:
            others.append(key)
            remembered(house)
        return replace(key, data, **options)

    house.store.replace = slowly
    remembered(house)
    assert len(house.sign_in.devices("2")) == 2


def test_a_store_that_goes_away_costs_the_device_and_not_the_sign_in() -> None:
    house = House()
    replace = house.store.replace

    def fail(key: str, data: bytes, /, **options: Any) -> bool:
        if key.startswith(("devices:", "networks:")):
            raise BackendUnavailableError("sign-in", "timeout")
        return replace(key, data, **options)

    house.store.replace = fail
    session = house.browser()
    with audited() as seen:
        step = house.sign_in.password("sato", RIGHT, client=HERE, session=session, remember=True)
    assert (step.state, step.device, session.user_id) == ("done", None, "2")
    assert {"device_failed", "notice_failed"} <= {event.change for event in seen}


# --- the cap of wrong codes


def capped() -> tuple[House, str]:
    """An owner on a remembered device, whose account is at the cap of wrong codes."""
    house = House()
    factors = TwoFactorManager(
        MemoryTwoFactorStore(),
        issuer="現場",
        secret_box=SecretBox(bytes(range(32))),
        failure_budget=FailureBudget(3, lock=300, lifetime=4),
        clock=house.clock,
    )
    house.factors = factors
    house.sign_in = type(house.sign_in)(house.people, **{**house.parts, "factors": factors})
    house.secret = factors.begin_enrolment("1", account_name="tanaka").secret
    factors.confirm_enrolment("1", house.code())
    house.clock.advance(30)
    house.signed_in("tanaka", remember=True)
    assert house.device is not None
    for number in range(4):
        factors.verify("1", house.wrong_code(), client=f"203.0.113.{number}")
    house.clock.advance(30)
    return house, house.device


def second_step(house: House, client: SignInClient, code: str) -> Any:
    challenge = house.challenge(client)
    return house.sign_in.second_factor(challenge, code, client=client)


def test_the_cap_on_wrong_codes_does_not_keep_the_owner_out_of_a_remembered_device() -> None:
    house, token = capped()
    step = second_step(house, ELSEWHERE, house.code())
    assert (step.state, step.retry_after) == ("limited", None)
    assert second_step(house, SignInClient(address="198.51.100.7", device=token), house.code())


def test_a_device_that_guesses_too_often_is_remembered_no_more() -> None:
    house, token = capped()
    client = SignInClient(address="198.51.100.7", device=token)
    for _ in range(3):
        assert not second_step(house, client, house.wrong_code())
    assert house.sign_in.devices("1") == ()
    step = second_step(house, client, house.code())
    assert (step.state, step.retry_after) == ("limited", None)


def test_a_verifier_that_does_not_know_of_trust_is_asked_as_before() -> None:
    class Own:
        def __init__(self, inside: TwoFactorManager) -> None:
            self.inside = inside

        def status(self, user_id: str, /) -> Any:
            return self.inside.status(user_id)

        def verify(self, user_id: str, code: str, /, *, client: str | None = None) -> Any:
            return self.inside.verify(user_id, code, client=client)

    house, token = capped()
    house.sign_in = type(house.sign_in)(house.people, **{**house.parts, "factors": Own(house.factors)})
    step = second_step(house, SignInClient(address="198.51.100.7", device=token), house.code())
    assert step.state == "limited"


# --- the notice


def test_a_sign_in_from_a_new_network_is_told_once() -> None:
    house = House()
    for address in ("192.0.2.1", "192.0.2.77", "198.51.100.7", "192.0.2.1", "198.51.100.9"):
        assert house.sign_in.password("sato", RIGHT, client=SignInClient(address=address))
    notices = [(notice.kind, notice.to, notice.client) for notice in house.new_devices]
    assert notices == [
        ("new_device", "sato@example.com", "198.51.100.7"),
    ]
    assert "198.51.100.7" not in repr(house.new_devices)
    house.clock.advance(89 * 86400)
    assert house.sign_in.password("sato", RIGHT, client=HERE)
    house.clock.advance(2 * 86400)
    assert house.sign_in.password("sato", RIGHT, client=HERE)
    assert len(house.new_devices) == 1
    assert house.sign_in.password("sato", RIGHT, client=ELSEWHERE)  # too long ago
    assert len(house.new_devices) == 2


def test_a_remembered_device_is_new_nowhere() -> None:
    house = House()
    token = remembered(house)
    assert house.sign_in.password("sato", RIGHT, client=SignInClient(address="203.0.113.5", device=token))
    assert house.new_devices == []


def test_with_a_second_factor_only_once_it_was_given() -> None:
    house = House()
    house.signed_in("tanaka")
    house.clock.advance(30)
    challenge = house.challenge(ELSEWHERE)
    assert house.new_devices == []
    assert not house.sign_in.second_factor(challenge, house.wrong_code(), client=ELSEWHERE)
    assert house.new_devices == []
    assert house.sign_in.second_factor(challenge, house.code(), client=ELSEWHERE)
    assert [notice.kind for notice in house.new_devices] == ["new_device"]
