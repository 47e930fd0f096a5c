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
from sign_in_scenario import ELSEWHERE, HERE, KEY, RIGHT, Scenario, audited

Told = Callable[[], list[str]]


@pytest.fixture
def scenario() -> Scenario:
    return Scenario()


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


def spray(scenario: Scenario, addresses: Callable[[int], str], times: int) -> int:
    """One password at many names; how many were looked at."""
    states = [
        scenario.sign_in.password(
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
    scenario: Scenario, addresses: Callable[[int], str], looked_at: int
) -> None:
    assert spray(scenario, addresses, 350) == looked_at
    assert scenario.sign_in.password("sato", RIGHT, client=ELSEWHERE)  # others are not touched


def test_who_succeeds_is_not_counted(scenario: Scenario) -> None:
    """An office of hundreds behind one address signs in."""
    assert all(scenario.sign_in.password("sato", RIGHT, client=HERE) for _ in range(700))


@pytest.mark.parametrize("name", ["sato", "SATO", " sato ", "ｓａｔｏ"])
def test_another_spelling_is_not_another_budget(scenario: Scenario, name: str) -> None:
    for _ in range(5):
        scenario.sign_in.password("sato", "guess", client=HERE)
    assert scenario.sign_in.password(name, "guess", client=HERE).state == "limited"


def test_parallel_guesses_do_not_exceed_a_limit(scenario: Scenario) -> None:
    with ThreadPoolExecutor(16) as pool:
        steps = list(
            pool.map(lambda _: scenario.sign_in.password("sato", "guess", client=HERE).state, range(64))
        )
    assert steps.count("refused") == 5


# --- the account-wide lock -------------------------------------------------------------------------------


def test_many_networks_lock_the_account_and_its_owner_is_told_once(
    scenario: Scenario, sent_notices: Told
) -> None:
    scenario.locked("sato", times=49)
    assert scenario.notices == []
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: scenario.sign_in.password("sato", "guess", client=scenario.stranger(100 + n)),
                range(8),
            )
        )
    assert [(notice.kind, notice.to) for notice in scenario.notices] == [("locked", "sato@example.com")]
    assert sent_notices().count("locked") == 1
    assert scenario.sign_in.password("sato", RIGHT, client=ELSEWHERE) == SignInStep(state="refused")
    scenario.clock.advance(3601)
    scenario.locked("sato", times=50)
    assert len(scenario.notices) == 1  # the same siege
    scenario.clock.advance(2 * 86400)
    assert scenario.sign_in.password("sato", RIGHT, client=ELSEWHERE)
    scenario.locked("sato")
    assert len(scenario.notices) == 2


def test_no_single_client_can_lock_an_account(scenario: Scenario) -> None:
    """However patient it is."""
    for _ in range(2 * 24 * 4):
        for _ in range(6):
            scenario.sign_in.password("sato", "guess", client=HERE)
        scenario.clock.advance(900)
        assert scenario.limiter.test("auth_login_account", "user 2")
    assert scenario.notices == []
    assert scenario.sign_in.password("sato", RIGHT, client=ELSEWHERE)


def test_a_name_that_nobody_has_is_locked_and_nobody_is_told(scenario: Scenario, sent_notices: Told) -> None:
    scenario.locked("nobody")
    assert scenario.notices == []
    assert "locked" not in sent_notices()


def test_a_mailer_in_trouble_changes_nothing(sent_notices: Told, caplog: pytest.LogCaptureFixture) -> None:
    def broken(notice: SignInNotice) -> None:
        raise OSError(notice.to)

    scenario = Scenario(on_notice=broken)
    scenario.locked("sato")
    assert sent_notices()[-2:] == ["locked", "notice_failed"]
    assert "not passed on (OSError)" in caplog.text
    assert "sato@" not in caplog.text


def test_a_remembered_device_passes_the_lock(scenario: Scenario) -> None:
    scenario.signed_in("sato", remember=True)
    client = SignInClient(address="198.51.100.7", device=scenario.device)
    scenario.locked("sato")
    step = scenario.sign_in.password("sato", RIGHT, client=client)
    assert step
    assert "new_device" not in step.risks
    assert scenario.sign_in.password("sato", RIGHT, client=ELSEWHERE).state == "refused"


@pytest.mark.parametrize("change", [{"user_id": "社" * 255}, {"stamp": "s" * 5000}])
def test_a_device_is_remembered_however_long_the_ids_are(scenario: Scenario, change: dict[str, Any]) -> None:
    """Every token that is issued is read again, and fits a cookie beside others."""
    longest = replace(scenario.people.by_id["2"], **change)
    scenario.people.by_id = {longest.user_id: longest}
    scenario.signed_in("sato", remember=True)
    assert scenario.device is not None
    assert len(scenario.device) < 256
    scenario.locked("sato")
    client = SignInClient(address="198.51.100.7", device=scenario.device)
    assert "new_device" not in scenario.sign_in.password("sato", RIGHT, client=client).risks
    assert scenario.sign_in.password("sato", RIGHT, client=client)


def test_a_device_passes_the_limits_of_its_network_too(scenario: Scenario) -> None:
    """The stranger may sit in the same office."""
    scenario.signed_in("sato", remember=True)
    client = SignInClient(address="192.0.2.1", device=scenario.device)
    spray(scenario, lambda number: "192.0.2.1", 61)
    for _ in range(5):
        scenario.sign_in.password("sato", "guess", client=HERE)
    assert scenario.sign_in.password("sato", RIGHT, client=HERE).state == "limited"
    assert scenario.sign_in.password("sato", RIGHT, client=client)


def test_a_stolen_device_has_a_budget(scenario: Scenario) -> None:
    scenario.signed_in("sato", remember=True)
    thief = SignInClient(address="203.0.113.1", device=scenario.device)
    states = [scenario.sign_in.password("sato", "guess", client=thief).state for _ in range(11)]
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
def test_a_forged_device_is_none(scenario: Scenario, spoil: Callable[[str], str]) -> None:
    scenario.signed_in("sato", remember=True)
    scenario.locked("sato")
    assert scenario.device is not None
    client = SignInClient(address="198.51.100.7", device=spoil(scenario.device))
    assert scenario.sign_in.password("sato", RIGHT, client=client).state == "refused"


def test_a_device_belongs_to_one_user_and_one_password(scenario: Scenario) -> None:
    scenario.signed_in("tanaka", remember=True)
    mine = SignInClient(address="198.51.100.7", device=scenario.device)
    scenario.locked("sato")
    assert scenario.sign_in.password("sato", RIGHT, client=mine).state == "refused"
    scenario.locked("tanaka")
    assert scenario.sign_in.password("tanaka", RIGHT, client=mine).state == "challenged"
    scenario.people.change("1", password_hash="h:another", stamp="")
    assert scenario.sign_in.password("tanaka", "another", client=mine).state == "refused"


@pytest.mark.parametrize(("seconds", "state"), [(99, "done"), (100, "refused")])
def test_a_device_is_forgotten(seconds: float, state: str) -> None:
    scenario = Scenario(device_ttl=100)
    scenario.signed_in("sato", remember=True)
    scenario.locked("sato")
    scenario.clock.advance(seconds)
    client = SignInClient(address="198.51.100.7", device=scenario.device)
    assert scenario.sign_in.password("sato", RIGHT, client=client).state == state


def test_keys_of_devices_rotate(scenario: Scenario) -> None:
    scenario.signed_in("sato", remember=True)
    scenario.locked("sato")
    client = SignInClient(address="198.51.100.7", device=scenario.device)
    newest = SecretBox.generate_key()
    for keys, state in (([newest, KEY], "done"), ([newest], "refused"), ([], "refused")):
        sign_in = SignIn(scenario.people, **{**scenario.parts, "device_keys": keys})
        assert sign_in.password("sato", RIGHT, client=client).state == state


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (False, False)])
def test_a_device_is_remembered_that_either_step_wants_to(
    scenario: Scenario, first: bool, second: bool
) -> None:
    """It is ticked beside the password, and the page of the code does not ask again."""
    half = scenario.sign_in.password("tanaka", RIGHT, client=HERE, remember=first)
    assert half.device is None
    done = scenario.sign_in.second_factor(half.challenge, scenario.code(), client=HERE, remember=second)
    assert done
    assert (done.device is not None) is (first or second)


def test_without_keys_no_device_is_remembered() -> None:
    scenario = Scenario(device_keys=())
    scenario.signed_in("sato", remember=True)
    assert scenario.device is None


def test_a_recovery_code_passes_the_lock_and_lifts_it(scenario: Scenario, sent_notices: Told) -> None:
    scenario.locked("tanaka")
    assert scenario.sign_in.password("tanaka", RIGHT, client=HERE).state == "refused"
    for wrong in ("0" * 24, scenario.code(), "", None, 7):
        refused = scenario.sign_in.password("tanaka", RIGHT, client=ELSEWHERE, recovery_code=wrong)  # type: ignore[arg-type]
        assert refused == SignInStep(state="refused")
    scenario.clock.advance(60)
    assert (
        scenario.sign_in.password("tanaka", "guess", client=HERE, recovery_code=scenario.codes[0]).state
        == "refused"
    )
    session = scenario.browser()
    step = scenario.sign_in.password(
        "tanaka", RIGHT, client=HERE, session=session, recovery_code=scenario.codes[0]
    )
    assert (step.state, step.amr) == ("done", ("pwd", "otp", "mfa"))
    assert {"account_locked", "recovery_code"} <= set(step.risks)
    assert session.user_id == "1"
    assert scenario.sign_in.factor_within(session, 1)
    assert sent_notices()[-2:] == ["lock_passed", "signed_in"]
    assert scenario.factors.status("1").recovery_codes_left == 9
    assert scenario.sign_in.password("tanaka", RIGHT, client=HERE).state == "challenged"


def test_a_recovery_code_is_not_used_up_where_no_lock_is(scenario: Scenario) -> None:
    step = scenario.sign_in.password("tanaka", RIGHT, client=HERE, recovery_code=scenario.codes[0])
    assert step.state == "challenged"
    assert scenario.factors.status("1").recovery_codes_left == 10


def test_failures_of_others_are_noted_as_a_risk(scenario: Scenario) -> None:
    scenario.sign_in.password("sato", "guess", client=ELSEWHERE)
    assert "recent_failures" in scenario.sign_in.password("sato", RIGHT, client=HERE).risks


# --- guessing codes --------------------------------------------------------------------------------------


def test_guessing_codes_is_limited_by_the_factor_and_by_the_client(scenario: Scenario) -> None:
    """ASVS 5.0, 6.6.3."""
    challenge = scenario.challenge()
    states = [scenario.sign_in.second_factor(challenge, scenario.wrong_code(), client=HERE) for _ in range(5)]
    assert [step.state for step in states] == ["refused", "refused", "limited", "limited", "limited"]
    assert states[2].retry_after == pytest.approx(300, abs=1)
    assert scenario.sign_in.second_factor(challenge, scenario.codes[0], client=HERE)


def test_where_waiting_does_not_help_there_is_no_time_to_wait(scenario: Scenario) -> None:
    for number in range(12):
        scenario.factors.verify("1", scenario.wrong_code(), client=f"{number}")
    step = scenario.sign_in.second_factor(scenario.challenge(), scenario.code(), client=HERE)
    assert (step.state, step.retry_after) == ("limited", None)


def test_a_code_seen_twice_is_not_a_guess(scenario: Scenario) -> None:
    code = scenario.code()
    assert scenario.sign_in.second_factor(scenario.challenge(), code, client=HERE)
    challenge = scenario.challenge()
    assert {scenario.sign_in.second_factor(challenge, code, client=HERE).state for _ in range(20)} == {
        "refused"
    }
    assert not scenario.factors.status("1", client="192.0.2.1").locked


# --- help ------------------------------------------------------------------------------------------------


def test_an_administrator_unlocks(scenario: Scenario, sent_notices: Told) -> None:
    session = scenario.signed_in("tanaka")
    scenario.locked("tanaka")
    assert scenario.sign_in.unlock("1", actor="ito", reason="asked by telephone")
    assert sent_notices()[-1] == "unlocked"
    notice = scenario.notices[-1]
    assert (notice.kind, notice.actor, notice.reason) == ("unlocked", "ito", "asked by telephone")
    assert scenario.sign_in.password("tanaka", RIGHT, client=ELSEWHERE).state == "challenged"
    assert session.user_id == "1"
    assert not scenario.sign_in.unlock("1", actor="ito", reason="again", end_sessions=True)
    assert session.user_id is None
    scenario.locked("tanaka")
    assert [notice.kind for notice in scenario.notices].count("locked") == 2


def test_an_administrator_takes_the_factor_off_and_sessions_end(
    scenario: Scenario, sent_notices: Told
) -> None:
    session, other = scenario.signed_in("tanaka"), scenario.signed_in("sato")
    scenario.locked("tanaka")
    assert scenario.sign_in.admin_reset("1", actor="ito", reason="lost the telephone")
    assert sent_notices()[-1] == "factor_reset"
    assert (session.user_id, other.user_id) == (None, "2")
    assert scenario.notices[-1].kind == "factor_reset"
    assert scenario.sign_in.password("tanaka", RIGHT, client=ELSEWHERE).amr == ("pwd",)


@pytest.mark.parametrize("text", ["", "  ", None, 7])
def test_nobody_helps_anonymously_or_without_a_reason(scenario: Scenario, text: Any) -> None:
    scenario.locked("sato")
    for help_ in (scenario.sign_in.unlock, scenario.sign_in.admin_reset):
        with pytest.raises(ConfigurationError):
            help_("2", actor=text, reason="x")
        with pytest.raises(ConfigurationError):
            help_("2", actor="ito", reason=text)
    assert scenario.sign_in.password("sato", RIGHT, client=ELSEWHERE).state == "refused"


def test_help_for_somebody_who_is_gone_is_recorded(scenario: Scenario, sent_notices: Told) -> None:
    assert not scenario.sign_in.unlock("99", actor="ito", reason="asked")
    assert sent_notices() == ["unlocked"]
