"""A sign-in under way while the account changes: what was verified must still hold when the session begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mks_hardening import events
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import PasskeyAssertion, SignIn, totp_code
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware
from sign_in_scenario import ELSEWHERE, HERE, ORIGIN, RIGHT, PasskeyScenario, Passwords, Scenario, audited
from soft_authenticator import SoftAuthenticator

Act = Callable[[Scenario], object]


class SlowPasswords(Passwords):
    """A check during which something else happens, once."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None
        self.while_hashing: Callable[[], object] | None = None

    def verify(self, password: str, stored: str | None, /) -> bool:
        right = super().verify(password, stored)
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()
        return right

    def hash(self, password: str, /) -> str:
        form = super().hash(password)
        act, self.while_hashing = self.while_hashing, None
        if act is not None:
            act()
        return form


class SlowScenario(Scenario):
    def __init__(self, **options: Any) -> None:
        self.slow = SlowPasswords()
        super().__init__(**{"passwords": self.slow, **options})


def reset(scenario: Scenario, name: str = "sato") -> None:
    scenario.changes.request_reset(name, client=ELSEWHERE)
    token = scenario.notices[-1].token
    assert token is not None
    assert scenario.changes.reset_password(token, "朝の体操を忘れない", client=ELSEWHERE)


def change(scenario: Scenario, name: str = "sato") -> None:
    session = scenario.signed_in(name, ELSEWHERE)
    assert scenario.changes.change_password(session, RIGHT, "朝の体操を忘れない", client=ELSEWHERE)


def disable(scenario: Scenario, user_id: str = "2") -> None:
    scenario.people.change(user_id, disabled=True)
    scenario.end_user(user_id)


def remove(scenario: Scenario) -> None:
    del scenario.people.by_id["2"]


def enrol(scenario: Scenario) -> None:
    secret = scenario.factors.begin_enrolment("2", account_name="sato").secret
    scenario.secret = secret
    scenario.factors.confirm_enrolment("2", scenario.code())
    scenario.end_user("2")


def admin_reset(scenario: Scenario) -> None:
    scenario.sign_in.admin_reset("1", actor="ito", reason="lost")


@pytest.mark.parametrize("on_a_loop", [False, True])
@pytest.mark.parametrize("act", [reset, change, disable, remove])
def test_while_the_password_is_checked(act: Act, on_a_loop: bool) -> None:
    scenario = SlowScenario()
    session = scenario.browser()
    scenario.slow.meanwhile = lambda: act(scenario)
    with audited() as seen:
        if on_a_loop:
            step = asyncio.run(scenario.sign_in.apassword("sato", RIGHT, client=HERE, session=session))
        else:
            step = scenario.sign_in.password("sato", RIGHT, client=HERE, session=session)
    assert (step.state, step.user_id) == ("refused", None)
    assert session.user_id is None
    assert [event.reason for event in seen if event.client == HERE.address] == ["changed"]


def test_a_factor_that_is_turned_on_meanwhile() -> None:
    """A password alone was enough when it was asked, and is not any more."""
    scenario = Scenario()
    session = scenario.browser()
    status = scenario.factors.status

    def slowly(user_id: str) -> Any:
        found = status(user_id)
        scenario.factors.status = status  # type: ignore[method-assign]  # the test's own object
        enrol(scenario)
        return found

    scenario.factors.status = slowly  # type: ignore[method-assign, assignment]  # the test's own object
    assert scenario.sign_in.password("sato", RIGHT, client=HERE, session=session).state == "refused"
    assert session.user_id is None
    assert scenario.sign_in.password("sato", RIGHT, client=HERE, session=session).state == "challenged"


@pytest.mark.parametrize("act", [reset, disable])
def test_without_a_session_too(act: Act) -> None:
    scenario = SlowScenario()
    scenario.slow.meanwhile = lambda: act(scenario)
    assert scenario.sign_in.password("sato", RIGHT, client=HERE).state == "refused"


@pytest.mark.parametrize(
    "act",
    [
        lambda scenario: reset(scenario, "tanaka"),
        lambda scenario: disable(scenario, "1"),
        admin_reset,
    ],
    ids=["reset", "disable", "admin_reset"],
)
def test_while_the_second_factor_is_checked(act: Act) -> None:
    scenario = Scenario()
    session = scenario.browser()
    challenge = scenario.challenge(session=session)
    verify = scenario.factors.verify

    def slowly(*args: Any, **options: Any) -> Any:
        result = verify(*args, **options)
        assert result
        act(scenario)
        return result

    scenario.factors.verify = slowly  # type: ignore[method-assign]  # the test's own object
    step = scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE, session=session)
    assert step.state == "expired"
    assert session.user_id is None


def test_a_passkey_that_is_taken_off_meanwhile() -> None:
    scenario = PasskeyScenario()
    session = scenario.browser()
    outcome = scenario.alone()
    get = scenario.people.get
    looks: list[str] = []

    def slowly(user_id: str, /) -> Any:
        looks.append(user_id)
        if len(looks) == 1:
            scenario.sign_in.admin_reset("2", actor="ito", reason="lost")
        return get(user_id)

    scenario.people.get = slowly  # type: ignore[method-assign]  # the test's own object
    assert scenario.sign_in.passwordless_sign_in(outcome, client=HERE, session=session).state == "refused"
    assert session.user_id is None


class SeveralFactors(PasskeyScenario):
    """``sato`` has a passkey, an authenticator app and another passkey."""

    def __init__(self) -> None:
        super().__init__()
        asked = self.keyed.passkeys.begin_verification("2", session="s")
        proof: Any = PasskeyAssertion(self.authenticator.get(asked.json), session="s")
        self.totp = self.keyed.begin_enrolment("2", account_name="sato", proof=proof).secret
        self.recovery = list(self.keyed.confirm_enrolment("2", self.totp_code()))
        asked = self.keyed.passkeys.begin_registration(
            "2", session="s", account_name="sato", proof=self.recovery.pop()
        )
        self.keyed.passkeys.finish_registration(
            "2", SoftAuthenticator(ORIGIN).create(asked.json), session="s"
        )
        self.clock.advance(30)

    def totp_code(self) -> str:
        return totp_code(self.totp, at=self.clock.time())

    def revoke_passkey(self) -> None:
        [passkey] = [one for one in self.keyed.passkeys.list("2") if one.name == "key"]
        assert self.keyed.passkeys.revoke("2", passkey.id, proof=self.recovery.pop())

    def replace_totp(self) -> None:
        proof = self.recovery.pop()
        self.totp = self.keyed.begin_enrolment("2", account_name="sato", proof=proof).secret
        self.keyed.confirm_enrolment("2", self.totp_code())

    def after_verification(self, act: Callable[[], object]) -> None:
        verify = self.keyed.verify

        def slowly(*args: Any, **options: Any) -> Any:
            result = verify(*args, **options)
            assert result
            act()
            return result

        self.keyed.verify = slowly  # type: ignore[method-assign]  # the test's own object


@pytest.mark.parametrize("on_a_loop", [False, True])
def test_a_passkey_that_is_revoked_before_its_sign_in(on_a_loop: bool) -> None:
    """The account still has other factors."""
    scenario = SeveralFactors()
    session = scenario.browser()
    outcome = scenario.alone()
    scenario.revoke_passkey()
    if on_a_loop:
        step = asyncio.run(scenario.sign_in.apasswordless_sign_in(outcome, client=HERE, session=session))
    else:
        step = scenario.sign_in.passwordless_sign_in(outcome, client=HERE, session=session)
    assert (step.state, session.user_id) == ("refused", None)


@pytest.mark.parametrize("factor", ["passkey", "totp"])
def test_a_factor_that_is_replaced_while_it_is_checked(factor: str) -> None:
    scenario = SeveralFactors()
    session = scenario.browser()
    challenge = scenario.sign_in.password("sato", RIGHT, client=HERE, session=session).challenge or ""
    code: Any
    if factor == "passkey":
        asked = scenario.keyed.passkeys.begin_verification("2", session=challenge)
        code = PasskeyAssertion(scenario.authenticator.get(asked.json), session=challenge)
        scenario.after_verification(scenario.revoke_passkey)
    else:
        code = scenario.totp_code()
        scenario.after_verification(scenario.replace_totp)
    step = scenario.sign_in.second_factor(challenge, code, client=HERE, session=session)
    assert (step.state, session.user_id) == ("expired", None)


def test_a_factor_that_is_replaced_while_it_confirms_a_session() -> None:
    scenario = SeveralFactors()
    session = scenario.browser()
    challenge = scenario.sign_in.password("sato", RIGHT, client=HERE, session=session).challenge or ""
    assert scenario.sign_in.second_factor(challenge, scenario.totp_code(), client=HERE, session=session)
    scenario.clock.advance(301)
    code = scenario.totp_code()
    scenario.after_verification(scenario.replace_totp)
    assert scenario.sign_in.confirm_factor(session, code, client=HERE).state == "expired"


@pytest.mark.parametrize("factor", ["recovery", "totp", "passkey"])
def test_other_changes_of_the_factors_end_no_sign_in(factor: str) -> None:
    scenario = SeveralFactors()
    session = scenario.browser()
    challenge = scenario.sign_in.password("sato", RIGHT, client=HERE, session=session).challenge or ""
    code: Any = scenario.recovery.pop()
    if factor == "totp":
        code = scenario.totp_code()
        scenario.after_verification(scenario.revoke_passkey)
    elif factor == "passkey":
        code = scenario.answered(challenge)
        scenario.after_verification(lambda: scenario.keyed.passkeys.rename("2", "x", name="y"))
    step = scenario.sign_in.second_factor(challenge, code, client=HERE, session=session)
    assert step.state == "done"


@pytest.mark.parametrize("act", [admin_reset, lambda scenario: scenario.sign_in.forget_devices("1")])
def test_a_device_that_is_remembered_while_all_are_forgotten(act: Act) -> None:
    scenario = Scenario()
    challenge = scenario.challenge()

    def observe(event: object) -> None:
        if isinstance(event, events.SignInEvent) and event.change == "signed_in":
            act(scenario)

    events.add_observer(observe)
    try:
        step = scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE, remember=True)
    finally:
        events.remove_observer(observe)
    assert step.device is not None
    assert scenario.sign_in.devices("1") == ()


@pytest.mark.parametrize(("look", "unavailable"), [(2, False), (3, False), (3, True)])
def test_a_sign_in_that_is_undone_remembers_no_device(look: int, unavailable: bool) -> None:
    scenario = Scenario()
    challenge = scenario.challenge()
    get, looks = scenario.people.get, []

    def slowly(user_id: str, /) -> Any:
        looks.append(user_id)
        if len(looks) == look:  # the account is read again, before or after the device is remembered
            scenario.people.change("1", disabled=True)
            if unavailable:
                scenario.store.load = away  # type: ignore[method-assign]  # the test's own object
        return get(user_id)

    def away(*_: object) -> Any:
        raise BackendUnavailableError("sign-in", "timeout")

    load, scenario.people.get = scenario.store.load, slowly  # type: ignore[method-assign]  # the test's own object
    step = scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE, remember=True)
    assert (step.state, step.device) == ("expired", None)
    scenario.store.load = load  # type: ignore[method-assign]  # the test's own object
    scenario.people.change("1", disabled=False)
    assert len(scenario.sign_in.devices("1")) == unavailable


def test_a_sign_in_that_is_refused_makes_no_remembered_device_forgotten() -> None:
    """An account has room for 20 devices, and the oldest makes room for the next."""
    scenario = Scenario()
    for _ in range(20):
        assert scenario.sign_in.external_sign_in("2", client=HERE, remember=True)
    before = scenario.sign_in.devices("2")
    assert len(before) == 20
    looks = iter([scenario.people.get("2")])
    scenario.people.get = lambda _: next(looks, None)  # type: ignore[method-assign]  # the test's own object
    assert not scenario.sign_in.external_sign_in("2", client=HERE, remember=True)
    del scenario.people.get
    assert scenario.sign_in.devices("2") == before


def test_a_device_of_an_old_authentication_is_remembered_from_now_on() -> None:
    scenario = Scenario()
    step = scenario.sign_in.external_sign_in("2", client=HERE, auth_time=1_600_000_000.25, remember=True)
    assert step.auth_time == 1_600_000_000.25
    [device] = scenario.sign_in.devices("2")
    assert device.remembered_at == int(scenario.clock.time())


@pytest.mark.parametrize("name", ["tanaka", "sato"])
def test_an_old_form_is_renewed_while_the_password_is_reset(name: str) -> None:
    """The old password gets neither a session nor a challenge bound to the stamp of the new one."""
    scenario = SlowScenario()
    scenario.people.change(scenario.people.find(name).user_id, password_hash=f"old:{RIGHT}", stamp="")  # type: ignore[union-attr]  # there is one
    session = scenario.browser()
    scenario.slow.while_hashing = lambda: reset(scenario, name)
    step = scenario.sign_in.password(name, RIGHT, client=HERE, session=session)
    assert (step.state, step.challenge) == ("refused", None)
    assert session.user_id is None


@pytest.mark.parametrize("name", ["tanaka", "sato"])
def test_a_form_that_is_renewed_and_then_reset(name: str) -> None:
    scenario = SlowScenario()
    scenario.people.change(scenario.people.find(name).user_id, password_hash=f"old:{RIGHT}", stamp="")  # type: ignore[union-attr]  # there is one
    store = scenario.people.set_password
    calls: list[str] = []

    def set_password(user_id: str, stored: str, /, *, expected: str | None) -> bool:
        calls.append(stored)
        done = store(user_id, stored, expected=expected)
        if len(calls) == 1:
            reset(scenario, name)
        return done

    scenario.people.set_password = set_password  # type: ignore[method-assign]  # the test's own object
    assert scenario.sign_in.password(name, RIGHT, client=HERE, session=scenario.browser()).state == "refused"


@pytest.mark.parametrize(("name", "state"), [("tanaka", "challenged"), ("sato", "done")])
def test_a_double_click_while_the_form_is_renewed(name: str, state: str) -> None:
    """Two sign-ins renew one old form: the second finds another form of the same password, and goes on."""
    scenario = SlowScenario()
    scenario.people.change(scenario.people.find(name).user_id, password_hash=f"old:{RIGHT}", stamp="")  # type: ignore[union-attr]  # there is one
    first: list[str] = []
    scenario.slow.while_hashing = lambda: first.append(
        scenario.sign_in.password(name, RIGHT, client=HERE, session=scenario.browser()).state
    )
    session = scenario.browser()
    step = scenario.sign_in.password(name, RIGHT, client=HERE, session=session)
    assert (first, step.state) == ([state], state)
    if step.challenge is not None:
        step = scenario.sign_in.second_factor(step.challenge, scenario.code(), client=HERE, session=session)
    assert step


def test_a_renewal_whose_answer_was_lost() -> None:
    scenario = SlowScenario()
    scenario.people.change("2", password_hash=f"old:{RIGHT}", stamp="")
    store = scenario.people.set_password

    def set_password(user_id: str, stored: str, /, *, expected: str | None) -> bool:
        store(user_id, stored, expected=expected)
        raise TimeoutError

    scenario.people.set_password = set_password  # type: ignore[method-assign]  # the test's own object
    assert scenario.sign_in.password("sato", RIGHT, client=HERE, session=scenario.browser())


def test_an_account_that_never_stands_still_is_refused() -> None:
    scenario = SlowScenario()

    def again() -> None:
        scenario.people.change("2", password_hash=f"{len(scenario.slow.checked)}:{RIGHT}", stamp="")
        scenario.slow.meanwhile = again

    scenario.slow.meanwhile = again
    session = scenario.browser()
    assert scenario.sign_in.password("sato", RIGHT, client=HERE, session=session).state == "refused"
    assert session.user_id is None


def test_the_accounts_are_away_when_they_are_read_again() -> None:
    scenario = SlowScenario()
    session = scenario.browser()

    def away() -> None:
        scenario.people.fault = BackendUnavailableError("accounts", "timeout")

    scenario.slow.meanwhile = away
    with pytest.raises(BackendUnavailableError):
        scenario.sign_in.password("sato", RIGHT, client=HERE, session=session)
    assert session.user_id is None


def test_a_password_confirmed_while_another_tab_changes_it() -> None:
    scenario = SlowScenario()
    session = scenario.signed_in("sato")
    first = dict(session.data)
    scenario.clock.advance(30)
    scenario.slow.meanwhile = lambda: scenario.people.change("2", password_hash="h:another", stamp="")
    assert scenario.sign_in.confirm_password(session, RIGHT, client=HERE).state == "expired"
    assert session.data == first


def test_a_session_that_is_ended_while_it_changes_the_password() -> None:
    """The owner ends a thief's session: the change that the thief has under way must not go on."""
    scenario = SlowScenario()
    session = scenario.signed_in("sato")
    scenario.slow.while_hashing = lambda: scenario.end_user("2")
    before = scenario.people.by_id["2"]
    assert (
        scenario.changes.change_password(session, RIGHT, "朝の体操を忘れない", client=HERE).state == "expired"
    )
    assert scenario.people.by_id["2"] == before


def test_an_account_that_is_disabled_while_its_password_is_reset() -> None:
    scenario = SlowScenario()
    scenario.changes.request_reset("sato", client=HERE)
    token = scenario.notices[-1].token
    assert token is not None
    scenario.slow.while_hashing = lambda: disable(scenario)
    assert scenario.changes.reset_password(token, "朝の体操を忘れない", client=HERE).state == "expired"
    assert scenario.people.by_id["2"].password_hash == f"h:{RIGHT}"


@pytest.mark.parametrize("answer", ["no", 1, None])
def test_a_check_must_answer_true_or_false(answer: object) -> None:
    class Wrong(Passwords):
        def verify(self, password: str, stored: str | None, /) -> bool:
            return answer  # type: ignore[return-value]  # the mistake

    scenario = Scenario(passwords=Wrong())
    session = scenario.browser()
    with pytest.raises(ConfigurationError, match=r"passwords\.verify\(\) must be True or False"):
        scenario.sign_in.password("sato", "guess", client=HERE, session=session)
    assert session.user_id is None


def test_a_session_that_cannot_be_ended_is_not_given_out() -> None:
    """The store goes away between the beginning of a session and its end: its id must not reach the client."""

    class Store(MemorySessionStore):
        def end(self, key: str, /, *, reason: str) -> bool:
            raise BackendUnavailableError("sessions", "timeout")

        async def aend(self, key: str, /, *, reason: str) -> bool:
            raise BackendUnavailableError("sessions", "timeout")

    scenario = SlowScenario()
    sign_in = SignIn(scenario.people, **scenario.parts)
    scenario.slow.meanwhile = lambda: disable(scenario)

    def view(environ: Any, start_response: Any) -> Any:
        try:
            sign_in.password("sato", RIGHT, client=HERE, session=environ["mks_hardening.session"])
        except BackendUnavailableError:
            start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"away"]

    answer = call_wsgi(
        SessionTimeoutMiddleware(view, store=Store(), clock=scenario.clock), "/", scheme="https"
    )
    assert (answer.status, answer.body) == (200, b"away")
    assert answer.header("Set-Cookie") is None
