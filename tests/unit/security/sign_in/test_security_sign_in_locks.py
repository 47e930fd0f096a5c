"""Guesses from one client, one network, many networks; who is locked, who is not, who is told, who helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import SecretBox, SignIn, SignInClient, SignInNotice, SignInStep
from mks_hardening.security.sign_in._attempt_hits import network_of
from sign_in_house import ELSEWHERE, HERE, KEY, RIGHT, House, audited

Told = Callable[[], list[str]]


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def sent_notices() -> Iterator[Told]:
    """Asked, the names of the events so far."""
    with audited() as seen:
        yield lambda: [event.change for event in seen]


# --- spraying --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.0/24"),
        ("::ffff:192.0.2.99", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("2001:db8:1:ffff::", "2001:db8:1::/48"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ("192.0.2.999", "unknown"),
    ],
)
def test_networks(address: str, network: str) -> None:
    assert network_of(address) == network


def spray(house: House, addresses: Callable[[int], str], times: int) -> int:
    """One password at many names; how many were looked at."""
    states = [
        house.sign_in.password(
            f"user{number}", "Summer2026!", client=SignInClient(address=addresses(number))
        ).state
        for number in range(times)
    ]
    assert set(states) <= {"refused", "limited"}
    return states.count("refused")


@pytest.mark.parametrize(
    ("addresses", "looked_at"),
    [
        (lambda number: "192.0.2.1", 60),
        (lambda number: f"2001:db8:1:2::{number:x}", 60),  # a /64 is one client
        (lambda number: f"192.0.2.{number % 250}", 300),  # a /24 is one network
        (lambda number: f"2001:db8:1:{number:x}::1", 300),  # a /48 too
    ],
    ids=["one address", "one /64", "one /24", "one /48"],
)
def test_spraying_is_stopped_by_address_and_by_network(
    house: House, addresses: Callable[[int], str], looked_at: int
) -> None:
    assert spray(house, addresses, 350) == looked_at
    assert house.sign_in.password("sato", RIGHT, client=ELSEWHERE)  # others are not touched


def test_who_succeeds_is_not_counted(house: House) -> None:
    """An office of hundreds behind one address signs in."""
    assert all(house.sign_in.password("sato", RIGHT, client=HERE) for _ in range(700))


@pytest.mark.parametrize("name", ["sato", "SATO", " sato ", "ｓａｔｏ"])
def test_another_spelling_is_not_another_budget(house: House, name: str) -> None:
    for _ in range(5):
        house.sign_in.password("sato", "guess", client=HERE)
    assert house.sign_in.password(name, "guess", client=HERE).state == "limited"


def test_parallel_guesses_do_not_exceed_a_limit(house: House) -> None:
    with ThreadPoolExecutor(16) as pool:
        steps = list(
            pool.map(lambda _: house.sign_in.password("sato", "guess", client=HERE).state, range(64))
        )
    assert steps.count("refused") == 5


# --- the account-wide lock -------------------------------------------------------------------------------


def test_many_networks_lock_the_account_and_its_owner_is_told_once(house: House, sent_notices: Told) -> None:
    house.locked("sato", times=49)
    assert house.notices == []
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: house.sign_in.password("sato", "guess", client=house.stranger(100 + n)), range(8)
            )
        )
    assert [(notice.kind, notice.to) for notice in house.notices] == [("locked", "sato@example.com")]
    assert sent_notices().count("locked") == 1
    assert house.sign_in.password("sato", RIGHT, client=ELSEWHERE) == SignInStep(state="refused")
    house.clock.advance(3601)
    house.locked("sato", times=50)
    assert len(house.notices) == 1  # the same siege
    house.clock.advance(2 * 86400)
    assert house.sign_in.password("sato", RIGHT, client=ELSEWHERE)
    house.locked("sato")
    assert len(house.notices) == 2


def test_no_single_client_can_lock_an_account(house: House) -> None:
    """However patient it is."""
    for _ in range(2 * 24 * 4):
        for _ in range(6):
            house.sign_in.password("sato", "guess", client=HERE)
        house.clock.advance(900)
        assert house.limiter.test("auth_login_account", "user 2")
    assert house.notices == []
    assert house.sign_in.password("sato", RIGHT, client=ELSEWHERE)


def test_a_name_that_nobody_has_is_locked_and_nobody_is_told(house: House, sent_notices: Told) -> None:
    house.locked("nobody")
    assert house.notices == []
    assert "locked" not in sent_notices()


def test_a_mailer_in_trouble_changes_nothing(sent_notices: Told, caplog: pytest.LogCaptureFixture) -> None:
    def broken(notice: SignInNotice) -> None:
        raise OSError(notice.to)

    house = House(on_notice=broken)
    house.locked("sato")
    assert sent_notices()[-2:] == ["locked", "notice_failed"]
    assert "not passed on (OSError)" in caplog.text
    assert "sato@" not in caplog.text


def test_a_remembered_device_passes_the_lock(house: House) -> None:
    house.signed_in("sato", remember=True)
    client = SignInClient(address="198.51.100.7", device=house.device)
    house.locked("sato")
    step = house.sign_in.password("sato", RIGHT, client=client)
    assert step
    assert "new_device" not in step.risks
    assert house.sign_in.password("sato", RIGHT, client=ELSEWHERE).state == "refused"


@pytest.mark.parametrize("change", [{"user_id": "社" * 255}, {"stamp": "s" * 5000}])
def test_a_device_is_remembered_however_long_the_ids_are(house: House, change: dict[str, Any]) -> None:
    """Every token that is issued is read again, and fits a cookie beside others."""
    longest = replace(house.people.by_id["2"], **change)
    house.people.by_id = {longest.user_id: longest}
    house.signed_in("sato", remember=True)
    assert house.device is not None
    assert len(house.device) < 256
    house.locked("sato")
    client = SignInClient(address="198.51.100.7", device=house.device)
    assert "new_device" not in house.sign_in.password("sato", RIGHT, client=client).risks
    assert house.sign_in.password("sato", RIGHT, client=client)


def test_a_device_passes_the_limits_of_its_network_too(house: House) -> None:
    """The stranger may sit in the same office."""
    house.signed_in("sato", remember=True)
    client = SignInClient(address="192.0.2.1", device=house.device)
    spray(house, lambda number: "192.0.2.1", 61)
    for _ in range(5):
        house.sign_in.password("sato", "guess", client=HERE)
    assert house.sign_in.password("sato", RIGHT, client=HERE).state == "limited"
    assert house.sign_in.password("sato", RIGHT, client=client)


def test_a_stolen_device_has_a_budget(house: House) -> None:
    house.signed_in("sato", remember=True)
    thief = SignInClient(address="203.0.113.1", device=house.device)
    states = [house.sign_in.password("sato", "guess", client=thief).state for _ in range(11)]
    assert states == ["refused"] * 10 + ["limited"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1],
        lambda token: token[:-2] + ("A=" if token[-2] != "A" else "B="),
        lambda token: "x" + token,
        lambda token: ".".join([token.split(".")[0][::-1], *token.split(".")[1:]]),
        lambda token: token + "\n",
        lambda token: "....",
        lambda token: "",
    ],
)
def test_a_forged_device_is_none(house: House, spoil: Callable[[str], str]) -> None:
    house.signed_in("sato", remember=True)
    house.locked("sato")
    assert house.device is not None
    client = SignInClient(address="198.51.100.7", device=spoil(house.device))
    assert house.sign_in.password("sato", RIGHT, client=client).state == "refused"


def test_a_device_belongs_to_one_user_and_one_password(house: House) -> None:
    house.signed_in("tanaka", remember=True)
    mine = SignInClient(address="198.51.100.7", device=house.device)
    house.locked("sato")
    assert house.sign_in.password("sato", RIGHT, client=mine).state == "refused"
    house.locked("tanaka")
    assert house.sign_in.password("tanaka", RIGHT, client=mine).state == "challenged"
    house.people.change("1", password_hash="h:another", stamp="")
    assert house.sign_in.password("tanaka", "another", client=mine).state == "refused"


@pytest.mark.parametrize(("seconds", "state"), [(99, "done"), (100, "refused")])
def test_a_device_is_forgotten(seconds: float, state: str) -> None:
    house = House(device_ttl=100)
    house.signed_in("sato", remember=True)
    house.locked("sato")
    house.clock.advance(seconds)
    client = SignInClient(address="198.51.100.7", device=house.device)
    assert house.sign_in.password("sato", RIGHT, client=client).state == state


def test_keys_of_devices_rotate(house: House) -> None:
    house.signed_in("sato", remember=True)
    house.locked("sato")
    client = SignInClient(address="198.51.100.7", device=house.device)
    newest = SecretBox.generate_key()
    for keys, state in (([newest, KEY], "done"), ([newest], "refused"), ([], "refused")):
        sign_in = SignIn(house.people, **{**house.parts, "device_keys": keys})
        assert sign_in.password("sato", RIGHT, client=client).state == state


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (False, False)])
def test_a_device_is_remembered_that_either_step_wants_to(house: House, first: bool, second: bool) -> None:
    """It is ticked beside the password, and the page of the code does not ask again."""
    half = house.sign_in.password("tanaka", RIGHT, client=HERE, remember=first)
    assert half.device is None
    done = house.sign_in.second_factor(half.challenge, house.code(), client=HERE, remember=second)
    assert done
    assert (done.device is not None) is (first or second)


def test_without_keys_no_device_is_remembered() -> None:
    house = House(device_keys=())
    house.signed_in("sato", remember=True)
    assert house.device is None


def test_a_recovery_code_passes_the_lock_and_lifts_it(house: House, sent_notices: Told) -> None:
    house.locked("tanaka")
    assert house.sign_in.password("tanaka", RIGHT, client=HERE).state == "refused"
    for wrong in ("0" * 24, house.code(), "", None, 7):
        refused = house.sign_in.password("tanaka", RIGHT, client=ELSEWHERE, recovery_code=wrong)  # type: ignore[arg-type]
        assert refused == SignInStep(state="refused")
    house.clock.advance(60)
    assert (
        house.sign_in.password("tanaka", "guess", client=HERE, recovery_code=house.codes[0]).state
        == "refused"
    )
    session = house.browser()
    step = house.sign_in.password("tanaka", RIGHT, client=HERE, session=session, recovery_code=house.codes[0])
    assert (step.state, step.amr) == ("done", ("pwd", "otp", "mfa"))
    assert {"account_locked", "recovery_code"} <= set(step.risks)
    assert session.user_id == "1"
    assert house.sign_in.factor_within(session, 1)
    assert sent_notices()[-2:] == ["lock_passed", "signed_in"]
    assert house.factors.status("1").recovery_codes_left == 9
    assert house.sign_in.password("tanaka", RIGHT, client=HERE).state == "challenged"


def test_a_recovery_code_is_not_used_up_where_no_lock_is(house: House) -> None:
    step = house.sign_in.password("tanaka", RIGHT, client=HERE, recovery_code=house.codes[0])
    assert step.state == "challenged"
    assert house.factors.status("1").recovery_codes_left == 10


def test_failures_of_others_are_noted_as_a_risk(house: House) -> None:
    house.sign_in.password("sato", "guess", client=ELSEWHERE)
    assert "recent_failures" in house.sign_in.password("sato", RIGHT, client=HERE).risks


# --- guessing codes --------------------------------------------------------------------------------------


def test_guessing_codes_is_limited_by_the_factor_and_by_the_client(house: House) -> None:
    """ASVS 5.0, 6.6.3."""
    challenge = house.challenge()
    states = [house.sign_in.second_factor(challenge, house.wrong_code(), client=HERE) for _ in range(5)]
    assert [step.state for step in states] == ["refused", "refused", "limited", "limited", "limited"]
    assert states[2].retry_after == pytest.approx(300, abs=1)
    assert house.sign_in.second_factor(challenge, house.codes[0], client=HERE)


def test_where_waiting_does_not_help_there_is_no_time_to_wait(house: House) -> None:
    for number in range(12):
        house.factors.verify("1", house.wrong_code(), client=f"{number}")
    step = house.sign_in.second_factor(house.challenge(), house.code(), client=HERE)
    assert (step.state, step.retry_after) == ("limited", None)


def test_a_code_seen_twice_is_not_a_guess(house: House) -> None:
    code = house.code()
    assert house.sign_in.second_factor(house.challenge(), code, client=HERE)
    challenge = house.challenge()
    assert {house.sign_in.second_factor(challenge, code, client=HERE).state for _ in range(20)} == {"refused"}
    assert not house.factors.status("1", client="192.0.2.1").locked


# --- help ------------------------------------------------------------------------------------------------


def test_an_administrator_unlocks(house: House, sent_notices: Told) -> None:
    session = house.signed_in("tanaka")
    house.locked("tanaka")
    assert house.sign_in.unlock("1", actor="ito", reason="asked by telephone")
    assert sent_notices()[-1] == "unlocked"
    notice = house.notices[-1]
    assert (notice.kind, notice.actor, notice.reason) == ("unlocked", "ito", "asked by telephone")
    assert house.sign_in.password("tanaka", RIGHT, client=ELSEWHERE).state == "challenged"
    assert session.user_id == "1"
    assert not house.sign_in.unlock("1", actor="ito", reason="again", end_sessions=True)
    assert session.user_id is None
    house.locked("tanaka")
    assert [notice.kind for notice in house.notices].count("locked") == 2


def test_an_administrator_takes_the_factor_off_and_sessions_end(house: House, sent_notices: Told) -> None:
    session, other = house.signed_in("tanaka"), house.signed_in("sato")
    house.locked("tanaka")
    assert house.sign_in.admin_reset("1", actor="ito", reason="lost the telephone")
    assert sent_notices()[-1] == "factor_reset"
    assert (session.user_id, other.user_id) == (None, "2")
    assert house.notices[-1].kind == "factor_reset"
    assert house.sign_in.password("tanaka", RIGHT, client=ELSEWHERE).amr == ("pwd",)


@pytest.mark.parametrize("text", ["", "  ", None, 7])
def test_nobody_helps_anonymously_or_without_a_reason(house: House, text: Any) -> None:
    house.locked("sato")
    for help_ in (house.sign_in.unlock, house.sign_in.admin_reset):
        with pytest.raises(ConfigurationError):
            help_("2", actor=text, reason="x")
        with pytest.raises(ConfigurationError):
            help_("2", actor="ito", reason=text)
    assert house.sign_in.password("sato", RIGHT, client=ELSEWHERE).state == "refused"


def test_help_for_somebody_who_is_gone_is_recorded(house: House, sent_notices: Told) -> None:
    assert not house.sign_in.unlock("99", actor="ito", reason="asked")
    assert sent_notices() == ["unlocked"]
