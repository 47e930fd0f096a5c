"""A sign-in under way while the account changes: what was verified must still hold when the session begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import SignIn
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware
from sign_in_house import ELSEWHERE, HERE, RIGHT, House, KeyHouse, Passwords, audited

Act = Callable[[House], object]


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


class SlowHouse(House):
    def __init__(self, **options: Any) -> None:
        self.slow = SlowPasswords()
        super().__init__(**{"passwords": self.slow, **options})


def reset(house: House, name: str = "sato") -> None:
    house.changes.request_reset(name, client=ELSEWHERE)
    token = house.notices[-1].token
    assert token is not None
    assert house.changes.reset_password(token, "朝の体操を忘れない", client=ELSEWHERE)


def change(house: House, name: str = "sato") -> None:
    session = house.signed_in(name, ELSEWHERE)
    assert house.changes.change_password(session, RIGHT, "朝の体操を忘れない", client=ELSEWHERE)


def disable(house: House, user_id: str = "2") -> None:
    house.people.change(user_id, disabled=True)
    house.end_user(user_id)


def remove(house: House) -> None:
    del house.people.by_id["2"]


def enrol(house: House) -> None:
    secret = house.factors.begin_enrolment("2", account_name="sato").secret
    house.secret = secret
    house.factors.confirm_enrolment("2", house.code())
    house.end_user("2")


def admin_reset(house: House) -> None:
    house.sign_in.admin_reset("1", actor="ito", reason="lost")


@pytest.mark.parametrize("on_a_loop", [False, True])
@pytest.mark.parametrize("act", [reset, change, disable, remove])
def test_while_the_password_is_checked(act: Act, on_a_loop: bool) -> None:
    house = SlowHouse()
    session = house.browser()
    house.slow.meanwhile = lambda: act(house)
    with audited() as seen:
        if on_a_loop:
            step = asyncio.run(house.sign_in.apassword("sato", RIGHT, client=HERE, session=session))
        else:
            step = house.sign_in.password("sato", RIGHT, client=HERE, session=session)
    assert (step.state, step.user_id) == ("refused", None)
    assert session.user_id is None
    assert [event.reason for event in seen if event.client == HERE.address] == ["changed"]


def test_a_factor_that_is_turned_on_meanwhile() -> None:
    """A password alone was enough when it was asked, and is not any more."""
    house = House()
    session = house.browser()
    status = house.factors.status

    def slowly(user_id: str) -> Any:
        found = status(user_id)
        house.factors.status = status  # type: ignore[method-assign]  # the test's own object
        enrol(house)
        return found

    house.factors.status = slowly  # type: ignore[method-assign, assignment]  # the test's own object
    assert house.sign_in.password("sato", RIGHT, client=HERE, session=session).state == "refused"
    assert session.user_id is None
    assert house.sign_in.password("sato", RIGHT, client=HERE, session=session).state == "challenged"


@pytest.mark.parametrize("act", [reset, disable])
def test_without_a_session_too(act: Act) -> None:
    house = SlowHouse()
    house.slow.meanwhile = lambda: act(house)
    assert house.sign_in.password("sato", RIGHT, client=HERE).state == "refused"


@pytest.mark.parametrize(
    "act",
    [
        lambda house: reset(house, "tanaka"),
        lambda house: disable(house, "1"),
        admin_reset,
    ],
    ids=["reset", "disable", "admin_reset"],
)
def test_while_the_second_factor_is_checked(act: Act) -> None:
    house = House()
    session = house.browser()
    challenge = house.challenge(session=session)
    verify = house.factors.verify

    def slowly(*args: Any, **options: Any) -> Any:
        result = verify(*args, **options)
        assert result
        act(house)
        return result

    house.factors.verify = slowly  # type: ignore[method-assign]  # the test's own object
    step = house.sign_in.second_factor(challenge, house.code(), client=HERE, session=session)
    assert step.state == "expired"
    assert session.user_id is None


def test_a_passkey_that_is_taken_off_meanwhile() -> None:
    house = KeyHouse()
    session = house.browser()
    outcome = house.alone()
    get = house.people.get
    looks: list[str] = []

    def slowly(user_id: str, /) -> Any:
        looks.append(user_id)
        if len(looks) == 1:
            house.sign_in.admin_reset("2", actor="ito", reason="lost")
        return get(user_id)

    house.people.get = slowly  # type: ignore[method-assign]  # the test's own object
    assert house.sign_in.passwordless_sign_in(outcome, client=HERE, session=session).state == "refused"
    assert session.user_id is None


@pytest.mark.parametrize("name", ["tanaka", "sato"])
def test_an_old_form_is_renewed_while_the_password_is_reset(name: str) -> None:
    """The old password gets neither a session nor a challenge bound to the stamp of the new one."""
    house = SlowHouse()
    house.people.change(house.people.find(name).user_id, password_hash=f"old:{RIGHT}", stamp="")  # type: ignore[union-attr]  # there is one
    session = house.browser()
    house.slow.while_hashing = lambda: reset(house, name)
    step = house.sign_in.password(name, RIGHT, client=HERE, session=session)
    assert (step.state, step.challenge) == ("refused", None)
    assert session.user_id is None


@pytest.mark.parametrize("name", ["tanaka", "sato"])
def test_a_form_that_is_renewed_and_then_reset(name: str) -> None:
    house = SlowHouse()
    house.people.change(house.people.find(name).user_id, password_hash=f"old:{RIGHT}", stamp="")  # type: ignore[union-attr]  # there is one
    store = house.people.set_password
    calls: list[str] = []

    def set_password(user_id: str, stored: str, /, *, expected: str | None) -> bool:
        calls.append(stored)
        done = store(user_id, stored, expected=expected)
        if len(calls) == 1:
            reset(house, name)
        return done

    house.people.set_password = set_password  # type: ignore[method-assign]  # the test's own object
    assert house.sign_in.password(name, RIGHT, client=HERE, session=house.browser()).state == "refused"


@pytest.mark.parametrize(("name", "state"), [("tanaka", "challenged"), ("sato", "done")])
def test_a_double_click_while_the_form_is_renewed(name: str, state: str) -> None:
    """Two sign-ins renew one old form: the second finds another form of the same password, and goes on."""
    house = SlowHouse()
    house.people.change(house.people.find(name).user_id, password_hash=f"old:{RIGHT}", stamp="")  # type: ignore[union-attr]  # there is one
    first: list[str] = []
    house.slow.while_hashing = lambda: first.append(
        house.sign_in.password(name, RIGHT, client=HERE, session=house.browser()).state
    )
    session = house.browser()
    step = house.sign_in.password(name, RIGHT, client=HERE, session=session)
    assert (first, step.state) == ([state], state)
    if step.challenge is not None:
        step = house.sign_in.second_factor(step.challenge, house.code(), client=HERE, session=session)
    assert step


def test_a_renewal_whose_answer_was_lost() -> None:
    house = SlowHouse()
    house.people.change("2", password_hash=f"old:{RIGHT}", stamp="")
    store = house.people.set_password

    def set_password(user_id: str, stored: str, /, *, expected: str | None) -> bool:
        store(user_id, stored, expected=expected)
        raise TimeoutError

    house.people.set_password = set_password  # type: ignore[method-assign]  # the test's own object
    assert house.sign_in.password("sato", RIGHT, client=HERE, session=house.browser())


def test_an_account_that_never_stands_still_is_refused() -> None:
    house = SlowHouse()

    def again() -> None:
        house.people.change("2", password_hash=f"{len(house.slow.checked)}:{RIGHT}", stamp="")
        house.slow.meanwhile = again

    house.slow.meanwhile = again
    session = house.browser()
    assert house.sign_in.password("sato", RIGHT, client=HERE, session=session).state == "refused"
    assert session.user_id is None


def test_the_accounts_are_away_when_they_are_read_again() -> None:
    house = SlowHouse()
    session = house.browser()

    def away() -> None:
        house.people.fault = BackendUnavailableError("accounts", "timeout")

    house.slow.meanwhile = away
    with pytest.raises(BackendUnavailableError):
        house.sign_in.password("sato", RIGHT, client=HERE, session=session)
    assert session.user_id is None


def test_a_password_confirmed_while_another_tab_changes_it() -> None:
    house = SlowHouse()
    session = house.signed_in("sato")
    first = dict(session.data)
    house.clock.advance(30)
    house.slow.meanwhile = lambda: house.people.change("2", password_hash="h:another", stamp="")
    assert house.sign_in.confirm_password(session, RIGHT, client=HERE).state == "expired"
    assert session.data == first


def test_a_session_that_is_ended_while_it_changes_the_password() -> None:
    """The owner ends a thief's session: the change that the thief has under way must not go on."""
    house = SlowHouse()
    session = house.signed_in("sato")
    house.slow.while_hashing = lambda: house.end_user("2")
    before = house.people.by_id["2"]
    assert house.changes.change_password(session, RIGHT, "朝の体操を忘れない", client=HERE).state == "expired"
    assert house.people.by_id["2"] == before


def test_an_account_that_is_disabled_while_its_password_is_reset() -> None:
    house = SlowHouse()
    house.changes.request_reset("sato", client=HERE)
    token = house.notices[-1].token
    assert token is not None
    house.slow.while_hashing = lambda: disable(house)
    assert house.changes.reset_password(token, "朝の体操を忘れない", client=HERE).state == "expired"
    assert house.people.by_id["2"].password_hash == f"h:{RIGHT}"


@pytest.mark.parametrize("answer", ["no", 1, None])
def test_a_check_must_answer_true_or_false(answer: object) -> None:
    class Wrong(Passwords):
        def verify(self, password: str, stored: str | None, /) -> bool:
            return answer  # type: ignore[return-value]  # the mistake

    house = House(passwords=Wrong())
    session = house.browser()
    with pytest.raises(ConfigurationError, match=r"passwords\.verify\(\) must be True or False"):
        house.sign_in.password("sato", "guess", client=HERE, session=session)
    assert session.user_id is None


def test_a_session_that_cannot_be_ended_is_not_given_out() -> None:
    """The store goes away between the beginning of a session and its end: its id must not reach the client."""

    class Store(MemorySessionStore):
        def end(self, key: str, /, *, reason: str) -> bool:
            raise BackendUnavailableError("sessions", "timeout")

        async def aend(self, key: str, /, *, reason: str) -> bool:
            raise BackendUnavailableError("sessions", "timeout")

    house = SlowHouse()
    sign_in = SignIn(house.people, **house.parts)
    house.slow.meanwhile = lambda: disable(house)

    def view(environ: Any, start_response: Any) -> Any:
        try:
            sign_in.password("sato", RIGHT, client=HERE, session=environ["mks_hardening.session"])
        except BackendUnavailableError:
            start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"away"]

    answer = call_wsgi(SessionTimeoutMiddleware(view, store=Store(), clock=house.clock), "/", scheme="https")
    assert (answer.status, answer.body) == (200, b"away")
    assert answer.header("Set-Cookie") is None
