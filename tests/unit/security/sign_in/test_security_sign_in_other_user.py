"""What one user proved is never believed of the next user of the browser, with each framework's own session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from flask import session as flask_session
from flask_login import (  # type: ignore[import-untyped] # it ships no types
    LoginManager,
    UserMixin,
    current_user,
    login_fresh,
    login_user,
)

from contrib_django_site import Site as DjangoSite
from contrib_django_site import project
from contrib_flask_site import Site as FlaskSite
from mks_hardening.contrib.flask_app import current_session
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware
from sign_in_scenario import HERE, RIGHT, Scenario

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

View = Callable[[Any], object]


class Browser(Protocol):
    """One browser at one application."""

    @property
    def values(self) -> Any:
        """The framework's session, inside a view."""
        ...

    def visit(self, view: View) -> None:
        """One request; the view gets the handle of its session."""
        ...

    def become(self, user_id: str, **values: Any) -> None:
        """What an SSO callback or impersonation does, in the way of the framework."""
        ...

    def leave(self) -> None:
        """Take out who is signed in, and nothing else."""
        ...


class Flask:
    def __init__(self) -> None:
        self.site = FlaskSite()

    def visit(self, view: View) -> None:
        def do() -> None:
            view(current_session())

        assert self.site.visit(do).status_code == 200

    @property
    def values(self) -> Any:
        return flask_session

    def become(self, user_id: str, **values: Any) -> None:
        self.visit(lambda _: flask_session.update(user_id=user_id, **values))

    def leave(self) -> None:
        self.visit(lambda _: flask_session.pop("user_id", None))


class Django:
    def __init__(self, site: DjangoSite) -> None:
        self.site = site
        self.values: Any = None

    def visit(self, view: View) -> None:
        def do(request: Any) -> None:
            self.values = request.session
            view(request.environ["mks_hardening.session"])

        assert self.site.visit(do).status == 200

    def become(self, user_id: str, **values: Any) -> None:
        self.visit(lambda _: self.values.update({"_auth_user_id": user_id, **values}))

    def leave(self) -> None:
        self.visit(lambda _: self.values.pop("_auth_user_id", None))


class Wsgi:
    """An application that copies what it finds, without a framework."""

    def __init__(self) -> None:
        self.app = SessionTimeoutMiddleware(self.answer, store=MemorySessionStore())
        self.cookie = ""
        self.view: View = lambda _: None
        self.values: Any = {}

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        handle: Any = environ["mks_hardening.session"]
        self.values = handle.data
        self.view(handle)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    def visit(self, view: View) -> None:
        self.view = view
        headers = {"Cookie": self.cookie} if self.cookie else {}
        answer = call_wsgi(self.app, headers=headers, scheme="https")
        assert answer.status == 200
        if value := answer.header("Set-Cookie"):
            self.cookie = value.partition(";")[0]

    def become(self, user_id: str, **values: Any) -> None:
        self.visit(lambda handle: handle.start(user_id, data={**handle.data, **values}))

    def leave(self) -> None:
        self.visit(lambda handle: handle.start_anonymous(data=dict(handle.data)))


@contextmanager
def browser_of(framework: str) -> Iterator[Browser]:
    if framework == "django":
        with project() as site:
            yield Django(site)
    else:
        yield Flask() if framework == "flask" else Wsgi()


FRAMEWORKS = pytest.mark.parametrize("framework", ["flask", "django", "wsgi"])


def signed_in(scenario: Scenario, browser: Browser) -> None:
    """``tanaka`` signs in with both factors; the framework's session names the user in the same request."""

    def sign_in(handle: Any) -> None:
        step = scenario.sign_in.password("tanaka", RIGHT, client=HERE, session=handle)
        assert scenario.sign_in.second_factor(step.challenge, scenario.code(), client=HERE, session=handle)

    browser.visit(sign_in)
    browser.become("1")
    assert believed(scenario, browser) == ("1", True, True)


def believed(scenario: Scenario, browser: Browser) -> tuple[str | None, bool, bool]:
    found: list[tuple[str | None, bool, bool]] = []

    def look(handle: Any) -> None:
        fresh = scenario.sign_in.confirmed_within(handle, 300), scenario.sign_in.factor_within(handle, 300)
        found.append((handle.user_id, *fresh))

    browser.visit(look)
    return found[0]


@FRAMEWORKS
def test_step_up_is_not_believed_for_the_next_user(framework: str) -> None:
    scenario = Scenario()
    with browser_of(framework) as browser:
        signed_in(scenario, browser)
        browser.become("2")
        assert believed(scenario, browser) == ("2", False, False)
        browser.become("1")  # and does not come back with its owner
        if framework != "wsgi":  # there the application itself has carried them about
            assert believed(scenario, browser) == ("1", False, False)


@FRAMEWORKS
def test_whom_an_administrator_impersonates_cannot_be_confirmed(framework: str) -> None:
    scenario = Scenario()
    with browser_of(framework) as browser:
        signed_in(scenario, browser)
        browser.become("2")
        states: list[str] = []
        browser.visit(
            lambda handle: states.append(scenario.sign_in.confirm_password(handle, RIGHT, client=HERE).state)
        )
        assert states == ["expired"]
        assert believed(scenario, browser) == ("2", False, False)


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_a_start_for_another_user_carries_nothing(framework: str) -> None:
    scenario = Scenario()
    with browser_of(framework) as browser:
        browser.visit(lambda _: browser.values.update({"basket": ["helmet"]}))
        signed_in(scenario, browser)
        browser.visit(lambda _: browser.values.update({"salary": 1, "role": "boss", "seen": [1]}))
        browser.visit(lambda _: browser.values["seen"].append(2))
        browser.become("2", role="boss", impersonator="1")  # one of them with the value that it had
        found: dict[str, Any] = {}
        browser.visit(lambda _: found.update(browser.values))
        assert {"basket", "salary", "sign_in"}.isdisjoint(found)
        assert "seen" not in found
        assert (found["role"], found["impersonator"]) == ("boss", "1")


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_step_up_ends_with_its_session_and_not_with_its_user(framework: str) -> None:
    scenario = Scenario()
    with browser_of(framework) as browser:
        signed_in(scenario, browser)
        browser.leave()
        browser.become("1")
        assert believed(scenario, browser) == ("1", False, False)


def test_facts_without_a_user_are_not_believed() -> None:
    scenario = Scenario()
    session = scenario.signed_in()
    assert scenario.sign_in.confirmed_within(session, 300)
    kept = dict(session.data["sign_in"])
    for user in ({}, {"user_id": None}, {"user_id": "2"}, {"user_id": ["1"]}):
        session.data = {"sign_in": {**kept, "user_id": "", **user} if user else {"amr": kept["amr"], **kept}}
        if not user:
            del session.data["sign_in"]["user_id"]
        assert not scenario.sign_in.confirmed_within(session, 300)
        assert not scenario.sign_in.factor_within(session, 300)


def test_django_may_keep_its_session_twice_in_one_request() -> None:
    scenario = Scenario()
    with project() as site:
        browser = Django(site)
        signed_in(scenario, browser)
        browser.visit(lambda _: browser.values.update({"salary": 1}))

        def impersonate(_: Any) -> None:
            browser.values["_auth_user_id"] = "2"
            browser.values.save()
            assert "salary" not in browser.values
            browser.values["note"] = "kept"

        browser.visit(impersonate)
        found: dict[str, Any] = {}
        browser.visit(lambda _: found.update(browser.values))
        assert found == {"_auth_user_id": "2", "note": "kept"}
        assert believed(scenario, browser) == ("2", False, False)


def test_flask_login_signs_in_somebody_else_under_its_strongest_protection() -> None:
    scenario, site = Scenario(), FlaskSite()
    manager = LoginManager(site.app)
    manager.session_protection = "strong"
    manager.user_loader(_person)
    browser = Flask()
    browser.site = site
    browser.visit(lambda _: login_user(_person("1")))
    browser.visit(lambda _: flask_session.update(salary=1))
    browser.visit(lambda _: login_user(_person("2")))
    seen: list[Any] = []
    browser.visit(lambda handle: seen.append((handle.user_id, current_user.get_id(), login_fresh())))
    assert seen == [("2", "2", True)]
    browser.visit(lambda _: seen.append("salary" in flask_session))
    assert seen[1] is False
    assert believed(scenario, browser) == ("2", False, False)


def _person(user_id: str) -> UserMixin:
    made = UserMixin()
    made.id = user_id
    return made
