"""Signing in, step by step: what is equal to the outside, what is counted, what belongs to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from mks_hardening import events
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    MemorySignInStore,
    RateLimiter,
    SignIn,
    SignInClient,
    SignInStep,
    hash_password,
)
from sign_in_scenario import ELSEWHERE, HERE, KEY, RIGHT, Passwords, Scenario, Traced, audited
from testbed.ids import plain_repr


@pytest.fixture
def scenario() -> Scenario:
    return Scenario()


@pytest.fixture
def seen_events() -> Iterator[list[events.SignInEvent]]:
    with audited() as seen:
        yield seen


class Forgetful:
    """Cannot say which stored form is old; that would be found out by the first right password."""

    def verify(self, password: str, stored: str | None, /) -> bool:
        return stored == password

    def hash(self, password: str, /) -> str:
        return password


def failures(scenario: Scenario) -> dict[str, tuple[int, ...]]:
    """Hits taken by group, for the client HERE and both people."""
    keys = {
        "auth_login_network": "192.0.2.0/24",
        "auth_login_address": "192.0.2.1",
        "auth_login": "192.0.2.1 tanaka",
        "auth_login_account": "user 1",
        "auth_2fa_verify": "192.0.2.1 1",
        "auth_login_device": "session",
    }
    found = {}
    for group, key in keys.items():
        decision = scenario.limiter.test(group, key)
        found[group] = tuple(
            limit.quota - left for limit, left in zip(decision.limits, decision.remaining, strict=True)
        )
    return found


NOTHING = {
    "auth_login_network": (0, 0),
    "auth_login_address": (0, 0),
    "auth_login": (0, 0, 0),
    "auth_login_account": (0, 0),
    "auth_2fa_verify": (0, 0),
    "auth_login_device": (0, 0),
}


# --- one answer ------------------------------------------------------------------------------------------


def traced(cause: str) -> tuple[SignInStep, list[str], int, Scenario]:
    """The answer to one cause of refusal, every call it made, and how many passwords were checked."""
    scenario = Scenario()
    if cause == "locked":
        scenario.locked("sato")
        assert scenario.notices[0].kind == "locked"
    trace: list[str] = []
    names = ("store", "limiter", "factors", "passwords")
    parts = {**scenario.parts, **{name: Traced(scenario.parts[name], trace, name) for name in names}}
    sign_in = SignIn(Traced(scenario.people, trace, "accounts"), **parts)
    scenario.passwords.checked.clear()
    name, password = {
        "unknown": ("nobody", "guess"),
        "wrong": ("sato", "guess"),
        "wrong, with a factor": ("tanaka", "guess"),
        "disabled": ("gone", RIGHT),
        "disabled and wrong": ("gone", "guess"),
        "locked": ("sato", RIGHT),
    }[cause]
    step = sign_in.password(name, password, client=HERE, session=scenario.browser())
    return step, trace, len(scenario.passwords.checked), scenario


@pytest.mark.parametrize(
    "cause", ["wrong", "wrong, with a factor", "disabled", "disabled and wrong", "locked"]
)
def test_who_is_refused_gets_the_answer_and_the_work_of_an_unknown_name(cause: str) -> None:
    """ASVS 5.0, 6.3.8: not only the words, every call to the outside is the same one."""
    unknown, step = traced("unknown"), traced(cause)
    assert step[0] == unknown[0] == SignInStep(state="refused")
    assert step[1] == unknown[1]
    assert step[2] == unknown[2] == 1
    assert all(session.user_id is None for session in step[3].sessions)


@pytest.mark.parametrize("name", ["nobody", "sato"])
def test_the_failure_that_begins_a_lock_is_answered_alike(name: str) -> None:
    scenario = Scenario()
    answers = [
        scenario.sign_in.password(name, "guess", client=scenario.stranger(number)) for number in range(51)
    ]
    assert set(answers) == {SignInStep(state="refused")}


def test_a_client_that_must_wait_is_told_so_whoever_is_meant() -> None:
    scenario = Scenario()
    for name in ("nobody", "sato"):
        answers = [scenario.sign_in.password(name, "guess", client=HERE) for _ in range(6)]
        assert [step.state for step in answers] == ["refused"] * 5 + ["limited"]
        assert answers[-1].retry_after == pytest.approx(60, abs=1)
    assert len(scenario.passwords.checked) == 10  # who has to wait costs no work


# --- the way in ------------------------------------------------------------------------------------------


def test_a_password_alone_is_enough_where_no_factor_is_on(scenario: Scenario, seen_events: list[Any]) -> None:
    session = scenario.browser()
    step = scenario.sign_in.password("sato", RIGHT, client=HERE, session=session, data={"theme": "dark"})
    assert (step.state, step.user_id, step.amr) == ("done", "2", ("pwd",))
    assert step.auth_time == scenario.clock.time()
    assert step.risks == ("new_device", "no_second_factor")
    assert session.user_id == "2"
    assert session.data["theme"] == "dark"
    assert [(event.change, event.client, event.method) for event in seen_events] == [
        ("signed_in", "192.0.2.1", "pwd")
    ]
    assert failures(scenario) == NOTHING


def test_a_password_alone_is_no_session_where_a_factor_is_on(
    scenario: Scenario, seen_events: list[Any]
) -> None:
    """ASVS 5.0, 6.3.3."""
    session = scenario.browser()
    step = scenario.sign_in.password("tanaka", RIGHT, client=HERE, session=session)
    assert not step
    assert (step.state, step.user_id, step.amr, step.auth_time) == ("challenged", None, (), None)
    assert session.user_id is None
    done = scenario.sign_in.second_factor(step.challenge, scenario.code(), client=HERE, session=session)
    assert (done.state, done.user_id, done.amr) == ("done", "1", ("pwd", "otp", "mfa"))
    assert session.user_id == "1"
    assert done.risks == ("new_device",)
    assert [event.change for event in seen_events] == ["challenged", "signed_in"]
    assert failures(scenario) == NOTHING


def test_a_recovery_code_is_noted(scenario: Scenario) -> None:
    step = scenario.sign_in.second_factor(scenario.challenge(), scenario.codes[0], client=HERE)
    assert step.amr == ("pwd", "otp", "mfa")
    assert "recovery_code" in step.risks
    assert step.factor is not None
    assert step.factor.method == "recovery"


def test_nothing_secret_is_printed(scenario: Scenario) -> None:
    step = scenario.sign_in.password("tanaka", RIGHT, client=HERE, session=scenario.browser(), remember=True)
    done = scenario.sign_in.password(
        "sato", RIGHT, client=SignInClient(address="::1", device="dev"), remember=True
    )
    assert step.challenge is not None
    assert done.device is not None
    scenario.changes.request_reset("sato", client=HERE)
    printed = repr(
        (step, done, SignInClient(address="::1", device="dev-token"), scenario.people.by_id, scenario.notices)
    )
    for secret in (step.challenge, done.device, "dev-token", RIGHT, scenario.notices[0].token):
        assert str(secret) not in printed


# --- the challenge ---------------------------------------------------------------------------------------


def test_a_challenge_works_once(scenario: Scenario) -> None:
    challenge = scenario.challenge()
    assert scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE)
    scenario.clock.advance(30)
    again = scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE)
    assert again == SignInStep(state="expired")
    assert scenario.factors.verify("1", scenario.code())  # and the code was not even looked at


def test_a_challenge_works_for_one_of_many_at_once(scenario: Scenario) -> None:
    challenge = scenario.challenge()
    with ThreadPoolExecutor(8) as pool:
        steps = list(
            pool.map(
                lambda code: scenario.sign_in.second_factor(challenge, code, client=HERE), scenario.codes[:8]
            )
        )
    states = [step.state for step in steps]
    assert states.count("done") == 1
    assert set(states) <= {"done", "expired", "limited"}
    # Whoever came while another code was checked has not used a code up for nothing.
    assert scenario.factors.status("1").recovery_codes_left == 9


def test_while_a_code_is_checked_no_other_is_looked_at(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    challenge, verify = scenario.challenge(), scenario.factors.verify
    during: list[SignInStep] = []

    def slow(user_id: str, code: str, *, client: str) -> Any:
        monkeypatch.undo()
        during.append(scenario.sign_in.second_factor(challenge, scenario.codes[0], client=HERE))
        scenario.clock.advance(9)
        during.append(scenario.sign_in.second_factor(challenge, scenario.codes[1], client=HERE))
        return verify(user_id, code, client=client)

    monkeypatch.setattr(scenario.factors, "verify", slow)
    assert scenario.sign_in.second_factor(challenge, scenario.wrong_code(), client=HERE).state == "refused"
    assert during == [SignInStep(state="limited", retry_after=1.0)] * 2
    assert scenario.factors.status("1").recovery_codes_left == 10
    assert scenario.sign_in.second_factor(challenge, scenario.codes[0], client=HERE)


@pytest.mark.parametrize("error", [BackendUnavailableError("factors", "refused"), KeyboardInterrupt()])
def test_a_check_that_fails_leaves_the_challenge(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    challenge = scenario.challenge()

    def away(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(scenario.factors, "verify", away)
    with pytest.raises(type(error)):
        scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE)
    monkeypatch.undo()
    assert scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE)


def test_a_process_that_dies_while_it_checks_keeps_the_challenge_for_some_seconds(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    challenge = scenario.challenge()

    def killed(*_: Any, **__: Any) -> Any:
        monkeypatch.setattr(scenario.store, "replace", killed)
        raise SystemExit

    monkeypatch.setattr(scenario.factors, "verify", killed)
    with pytest.raises(SystemExit):
        scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE)
    monkeypatch.undo()
    assert scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE).state == "limited"
    scenario.clock.advance(10)
    assert scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE)


def test_a_wrong_code_leaves_the_challenge(scenario: Scenario) -> None:
    challenge = scenario.challenge()
    assert scenario.sign_in.second_factor(challenge, scenario.wrong_code(), client=HERE).state == "refused"
    assert scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE).state == "done"


@pytest.mark.parametrize(
    ("ttl", "seconds", "state"), [(300, 299, "done"), (300, 300, "expired"), (600, 599, "done")]
)
def test_a_challenge_does_not_wait_for_ever(ttl: float, seconds: float, state: str) -> None:
    scenario = Scenario(challenge_ttl=ttl)
    challenge = scenario.challenge()
    scenario.clock.advance(seconds)
    assert scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE).state == state


def test_a_clock_that_steps_back_revives_no_challenge(scenario: Scenario) -> None:
    challenge = scenario.challenge()
    scenario.clock.advance(301)
    scenario.clock.step_wall(-400)
    assert scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE).state == "expired"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda scenario: scenario.people.change("1", password_hash="h:other", stamp=""),
        lambda scenario: scenario.people.change("1", disabled=True),
        lambda scenario: scenario.people.by_id.pop("1"),
        lambda scenario: scenario.sign_in.admin_reset("1", actor="ito", reason="lost"),
    ],
)
def test_a_challenge_dies_with_what_it_was_given_for(
    scenario: Scenario, spoil: Callable[[Scenario], object]
) -> None:
    """A factor that was taken off meanwhile lets nobody in without one."""
    challenge = scenario.challenge()
    spoil(scenario)
    session = scenario.browser()
    step = scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE, session=session)
    assert step.state == "expired"
    assert session.user_id is None


def test_a_challenge_belongs_to_its_client_and_session(scenario: Scenario, seen_events: list[Any]) -> None:
    """ASVS 5.0, 6.6.2."""
    mine = scenario.signed_in("sato")
    challenge = scenario.challenge(session=mine)
    seen_events.clear()
    for client, session in (
        (ELSEWHERE, mine),
        (HERE, None),
        (HERE, scenario.signed_in("sato")),
        (HERE, scenario.browser()),
    ):
        step = scenario.sign_in.second_factor(challenge, scenario.code(), client=client, session=session)
        assert step == SignInStep(state="expired")
    assert {(event.change, event.user_id) for event in seen_events if event.change != "signed_in"} == {
        ("challenge_refused", "")
    }
    assert failures(scenario) == NOTHING
    assert scenario.factors.status("1").recovery_codes_left == 10
    assert scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE, session=mine)
    assert mine.user_id == "1"


def test_two_tabs_and_two_people(scenario: Scenario) -> None:
    """The later sign-in of one browser replaces the earlier, whichever half of it comes last."""
    session = scenario.browser()
    challenge = scenario.challenge(session=session)
    assert scenario.sign_in.password("sato", RIGHT, client=HERE, session=session)
    assert (
        scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE, session=session).state
        == "expired"
    )
    assert session.user_id == "2"


# --- what comes in ---------------------------------------------------------------------------------------

BAD = [
    None, 0, 1.5, True, b"tanaka", [], {}, object(), "", " ", "\0", "tan\0aka", "\ud800", "x" * 256, "x" * 100_000,
    "ｔａｎａｋａ", "таnака", "\u202etanaka", "../1", "' or 1=1 --", "{}", "null", "①②③④⑤⑥",
    "１２３４５６", "٠١٢٣٤٥",
    "1_23456", "+123456", "-12345", "123456\n", "\U0001f600" * 6,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=plain_repr)
def test_whatever_is_sent_is_refused_and_counts_against_nobody_else(scenario: Scenario, bad: Any) -> None:
    """Names, passwords, codes, challenges and cookies of wrong type, length, script or encoding."""
    challenge = scenario.challenge(client=ELSEWHERE)
    steps = [
        scenario.sign_in.password(bad, RIGHT, client=ELSEWHERE),
        scenario.sign_in.password("sato", bad, client=ELSEWHERE),
        scenario.sign_in.password(bad, bad, client=SignInClient(address="198.51.100.8", device=bad)),
        scenario.sign_in.second_factor(bad, scenario.code(), client=ELSEWHERE),
        scenario.sign_in.second_factor(challenge, bad, client=ELSEWHERE),
        scenario.changes.reset_password(bad, "an entirely new sentence", client=ELSEWHERE),
        scenario.changes.confirm_email(bad, client=ELSEWHERE),
    ]
    assert {step.state for step in steps} <= {"refused", "expired", "limited"}
    assert not any(steps)
    assert failures(scenario) == NOTHING
    assert scenario.factors.status("1").locked is False
    assert scenario.sign_in.second_factor(challenge, scenario.code(), client=ELSEWHERE)
    assert scenario.sign_in.password("sato", RIGHT, client=SignInClient(address="192.0.2.8", device=bad))


@pytest.mark.parametrize(
    "address", ["", "unknown", "x" * 100, "2001:db8::1", "::ffff:192.0.2.1", "fe80::1%eth0", "\ud800"]
)
def test_any_address_is_one(scenario: Scenario, address: str) -> None:
    assert scenario.sign_in.password("sato", "guess", client=SignInClient(address=address)).state == "refused"
    assert scenario.sign_in.password("sato", RIGHT, client=SignInClient(address=address))


# --- trouble ---------------------------------------------------------------------------------------------

TROUBLE = [
    BackendUnavailableError("database", "timeout"),
    OSError("away"),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("trouble", TROUBLE, ids=plain_repr)
@pytest.mark.parametrize("part", ["accounts", "passwords", "factors", "store", "session"])
def test_trouble_is_nobodys_wrong_password(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, trouble: Any, part: str
) -> None:
    def away(*_: object, **__: object) -> None:
        raise trouble

    if part == "passwords" and not isinstance(trouble, Exception):
        return  # called off while it is hashed: see below
    session = scenario.browser()
    challenge = scenario.challenge(session=session)
    owner, method = {
        "accounts": (scenario.people, "find"),
        "passwords": (scenario.passwords, "verify"),
        "factors": (scenario.factors, "status"),
        "store": (scenario.store, "replace"),
        "session": (session, "start"),
    }[part]
    monkeypatch.setattr(owner, method, away)
    name = "sato" if part == "session" else "tanaka"
    for _ in range(10):
        with pytest.raises(type(trouble)):
            scenario.sign_in.password(name, RIGHT, client=HERE, session=session)
    monkeypatch.setattr(scenario.factors, "verify", away)
    with pytest.raises(type(trouble)):
        scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE, session=session)
    assert failures(scenario) == NOTHING


@pytest.mark.parametrize("trouble", TROUBLE, ids=plain_repr)
@pytest.mark.parametrize("row", [1, 2, 3, 4])
def test_a_limiter_that_goes_away_between_its_rows_counts_nothing(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, trouble: Any, row: int
) -> None:
    reserve, asked = scenario.limiter.reserve, iter(range(1, 100))

    def going(group: str, key: str) -> Any:
        if next(asked) == row:
            raise trouble
        return reserve(group, key)

    monkeypatch.setattr(RateLimiter, "reserve", lambda _, group, key: going(group, key))
    with pytest.raises(type(trouble)):
        scenario.sign_in.password("tanaka", "guess", client=HERE)
    assert failures(scenario) == NOTHING


def test_who_hangs_up_while_the_password_is_hashed_has_had_a_try(scenario: Scenario) -> None:
    """Or a client that always hangs up has all the hashing it wants, and is never limited."""

    class Slow(Passwords):
        begun: asyncio.Event

        async def averify(self, password: str, stored: str | None, /) -> bool:
            self.checked.append(stored)
            self.begun.set()
            await asyncio.Event().wait()
            return False

    slow = Slow()
    sign_in = SignIn(scenario.people, **{**scenario.parts, "passwords": slow})

    async def hang_up() -> Any:
        slow.begun = asyncio.Event()
        step = asyncio.ensure_future(sign_in.apassword("sato", "guess", client=HERE))
        begun = asyncio.ensure_future(slow.begun.wait())
        await asyncio.wait({step, begun}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        step.cancel()
        return (await asyncio.gather(step, return_exceptions=True))[0]

    async def again() -> list[Any]:
        return [await hang_up() for _ in range(8)]

    answers = asyncio.run(again())
    assert [type(answer) for answer in answers[:5]] == [asyncio.CancelledError] * 5
    assert [answer.state for answer in answers[5:]] == ["limited"] * 3
    assert len(slow.checked) == 5


def test_a_password_in_an_old_form_is_stored_anew(scenario: Scenario, seen_events: list[Any]) -> None:
    scenario.people.change("2", password_hash=f"old:{RIGHT}", stamp="")
    assert scenario.sign_in.password("sato", RIGHT, client=HERE)
    assert scenario.people.by_id["2"].password_hash == f"new1:{RIGHT}"
    assert scenario.sign_in.password("sato", RIGHT, client=HERE)
    assert scenario.passwords.hashed == 1


def test_a_sign_in_does_not_fail_because_the_new_form_could_not_be_stored(
    scenario: Scenario, seen_events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError

    scenario.people.change("1", password_hash=f"old:{RIGHT}", stamp="")
    monkeypatch.setattr(scenario.people, "set_password", read_only)
    assert scenario.sign_in.second_factor(scenario.challenge(), scenario.code(), client=HERE)
    assert seen_events[0] == events.SignInEvent("rehash_failed", "1", reason="OSError")


def test_a_rehash_does_not_cost_the_challenge(scenario: Scenario) -> None:
    scenario.people.change("1", password_hash=f"old:{RIGHT}", stamp="")
    assert scenario.sign_in.second_factor(scenario.challenge(), scenario.code(), client=HERE)


def test_the_same_on_an_event_loop(scenario: Scenario) -> None:
    """One algorithm, two ways to run it; parts without twins are asked in a thread."""

    async def play() -> list[str]:
        session = scenario.browser()
        wrong = await scenario.sign_in.apassword("sato", "guess", client=HERE)
        half = await scenario.sign_in.apassword("tanaka", RIGHT, client=HERE, session=session)
        done = await scenario.sign_in.asecond_factor(
            half.challenge, scenario.code(), client=HERE, session=session
        )
        scenario.clock.advance(301)
        stale = await scenario.sign_in.aconfirmed_within(session, 300)
        again = await scenario.sign_in.aconfirm_factor(session, scenario.code(), client=HERE)
        fresh = await scenario.sign_in.aconfirmed_within(session, 300)
        password = await scenario.sign_in.aconfirm_password(session, RIGHT, client=HERE)
        changed = await scenario.changes.achange_password(
            session, RIGHT, "an entirely new sentence", client=HERE
        )
        reset = await scenario.changes.arequest_reset("tanaka", client=HERE)
        used = await scenario.changes.areset_password(
            scenario.notices[-1].token or "", "another new sentence", client=HERE
        )
        unlocked = await scenario.sign_in.aunlock("1", actor="ito", reason="asked")
        off = await scenario.sign_in.aadmin_reset("1", actor="ito", reason="lost")
        return [wrong.state, half.state, done.state, str(stale), again.state, str(fresh), password.state,
                changed.state, reset.state, used.state, str(unlocked), str(off)]  # fmt: skip

    assert asyncio.run(play()) == [
        "refused", "challenged", "done", "False", "done", "True", "done", "done", "done", "done", "False", "True",
    ]  # fmt: skip


@pytest.mark.parametrize("offered", [("start",), ("end",), ()])
def test_a_session_that_can_only_be_started_or_ended_is_refused(offered: tuple[str, ...]) -> None:
    half = SimpleNamespace(**dict.fromkeys(offered, lambda *_given, **_named: None))
    with pytest.raises(ConfigurationError) as refused:
        Scenario().sign_in.password("tanaka", RIGHT, client=HERE, session=half)  # type: ignore[arg-type]  # on purpose
    assert refused.value.parameter == "session"


@pytest.mark.parametrize(
    "options",
    [
        {"challenge_ttl": 59},
        {"challenge_ttl": 601},
        {"challenge_ttl": "5m"},
        {"device_ttl": 0},
        {"device_keys": b"short"},
        {"device_keys": "not base64"},
        {"device_keys": [b"k" * 32]},
        {"device_keys": [KEY, ""]},
        {"passwords": Forgetful()},
    ],
)
def test_impossible_parts_are_refused_at_construction(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        SignIn(
            Scenario().people,
            store=MemorySignInStore(),
            limiter=None,
            factors=None,
            end_sessions=None,
            **options,
        )


def test_a_limiter_that_lacks_a_group_is_refused_at_construction(scenario: Scenario) -> None:
    fewer = {group: limits for group, limits in SIGN_IN_LIMITS.items() if group != "auth_login_network"}
    with pytest.raises(ConfigurationError, match="it lacks auth_login_network"):
        SignIn(scenario.people, **{**scenario.parts, "limiter": RateLimiter(fewer)})


def test_the_passwords_of_the_process_are_the_default(scenario: Scenario) -> None:
    scenario.people.change("2", password_hash=hash_password(RIGHT), stamp="")
    parts = {name: part for name, part in scenario.parts.items() if name != "passwords"}
    sign_in = SignIn(scenario.people, **parts)
    assert sign_in.password("sato", RIGHT, client=HERE)
    assert asyncio.run(sign_in.apassword("sato", "guess", client=HERE)).state == "refused"


def test_without_limiter_and_factors_it_is_a_password_check(scenario: Scenario) -> None:
    sign_in = SignIn(
        scenario.people,
        store=scenario.store,
        limiter=None,
        factors=None,
        end_sessions=None,
        passwords=scenario.passwords,
    )
    assert {sign_in.password("tanaka", "guess", client=HERE).state for _ in range(20)} == {"refused"}
    assert sign_in.password("tanaka", RIGHT, client=HERE).amr == ("pwd",)
