"""Sign-in and the library's own sessions, which know each other by a protocol alone, on both kinds of stack."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

from mks_hardening.security import SignIn, SignInStep
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import MemorySessionStore, SessionManager, SessionTimeoutMiddleware
from sign_in_scenario import HERE, RIGHT, Scenario

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class Site:
    """An application behind ``SessionTimeoutMiddleware`` that signs people in, in one thread or on a loop."""

    def __init__(self, *, on_a_loop: bool) -> None:
        self.scenario = Scenario()
        store = MemorySessionStore()
        self.manager = SessionManager(store, clock=self.scenario.clock)
        self.sign_in = SignIn(
            self.scenario.people, **{**self.scenario.parts, "end_sessions": self.manager.end_user}
        )
        self.on_a_loop = on_a_loop
        self.app = SessionTimeoutMiddleware(self.view, store=store, clock=self.scenario.clock)
        self.cookie = ""

    def view(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session: Any = environ["mks_hardening.session"]
        step = getattr(self, environ["PATH_INFO"].strip("/"))(session)
        start_response("200 OK", [("Content-Type", "application/json")])
        state = step.state if isinstance(step, SignInStep) else step
        return [json.dumps({"state": state, "user": session.user_id, "data": dict(session.data)}).encode()]

    def get(self, path: str) -> dict[str, Any]:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        answer = call_wsgi(self.app, path, headers=headers, scheme="https")
        if value := answer.header("Set-Cookie"):
            self.cookie = value.partition(";")[0]
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def password(self, session: Any) -> SignInStep:
        step = self.do("password", "tanaka", RIGHT, client=HERE, session=session, data={"theme": "dark"})
        self.challenge = step.challenge
        return step

    def code(self, session: Any) -> SignInStep:
        return self.do("second_factor", self.challenge, self.scenario.code(), client=HERE, session=session)

    def again(self, session: Any) -> SignInStep:
        return self.do("confirm_factor", session, self.scenario.code(), client=HERE)

    def fresh(self, session: Any) -> bool:
        return self.do("confirmed_within", session, 300)  # type: ignore[return-value]

    def look(self, session: Any) -> None:
        del session

    def do(self, method: str, *args: Any, **options: Any) -> SignInStep:
        step: SignInStep
        if self.on_a_loop:
            step = asyncio.run(getattr(self.sign_in, f"a{method}")(*args, **options))
        else:
            step = getattr(self.sign_in, method)(*args, **options)
        return step


@pytest.mark.parametrize("on_a_loop", [False, True])
def test_from_the_password_to_step_up(on_a_loop: bool) -> None:
    site = Site(on_a_loop=on_a_loop)
    assert site.get("/password") == {"state": "challenged", "user": None, "data": {}}
    assert list(site.manager.sessions("1")) == []  # a half sign-in is listed nowhere
    assert site.cookie == ""
    done = site.get("/code")
    assert (done["state"], done["user"], done["data"]["sign_in"]["amr"]) == (
        "done",
        "1",
        ["pwd", "otp", "mfa"],
    )
    first, cookie = site.manager.sessions("1")[0].key, site.cookie
    assert site.get("/fresh")["state"] is True
    site.scenario.clock.advance(301)
    assert site.get("/fresh")["state"] is False
    assert site.get("/again")["state"] == "done"
    assert site.get("/fresh")["state"] is True
    assert site.manager.sessions("1")[0].key != first  # ASVS 5.0, 7.2.4
    assert site.cookie != cookie
    site.sign_in.admin_reset("1", actor="ito", reason="lost")
    assert list(site.manager.sessions("1")) == []
    assert "user" not in site.get("/look")  # the edge refuses the dead cookie
