"""Tokens of forms and sessions of the session wrapper, together."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.testing import WSGIResponse, call_wsgi
from mks_hardening.wsgi import CSRFMiddleware, MemorySessionStore, SessionTimeoutMiddleware


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    session = environ["mks_hardening.session"]
    path = environ["PATH_INFO"]
    if path == "/sign-in":
        session.start("taro")
    elif path == "/step-up":
        session.rotate()
    elif path == "/sign-out":
        session.end()
    token = str(environ["mks_hardening.csrf_token"]) if environ["REQUEST_METHOD"] == "GET" else ""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [token.encode()]


class Browser:
    """Keeps cookies, and sends none of the fields that modern browsers send."""

    def __init__(self, store: MemorySessionStore) -> None:
        self.app = SessionTimeoutMiddleware(
            CSRFMiddleware(application, allowed_origins=["https://www.example.com"]), store=store
        )
        self.cookies: dict[str, str] = {"other": "1"}

    def ask(self, path: str, *, method: str = "GET", token: str | None = None) -> WSGIResponse:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if token is not None:
            headers["X-CSRF-Token"] = token
        answer = call_wsgi(self.app, path, method=method, headers=headers, scheme="https")
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                pair, *_ = value.split(";")
                self.cookies[pair.partition("=")[0]] = pair.partition("=")[2]
        return answer

    def token(self) -> str:
        return self.ask("/").body.decode()


@pytest.fixture
def store() -> MemorySessionStore:
    return MemorySessionStore()


def test_from_the_first_form_to_sign_out(store: MemorySessionStore) -> None:
    browser = Browser(store)
    assert browser.ask("/sign-in", method="POST").status == 403
    anonymous = browser.token()
    assert browser.ask("/sign-in", method="POST", token=anonymous).status == 200
    assert browser.ask("/write", method="POST", token=anonymous).status == 403
    signed_in = browser.token()
    assert browser.ask("/write", method="POST", token=signed_in).status == 200
    assert browser.ask("/step-up", method="POST", token=signed_in).status == 200
    assert browser.ask("/write", method="POST", token=signed_in).status == 403
    assert browser.ask("/sign-out", method="POST", token=browser.token()).status == 200
    assert browser.ask("/write", method="POST", token=signed_in).status == 403


def test_the_token_of_another_session_is_refused(store: MemorySessionStore) -> None:
    mine, other = Browser(store), Browser(store)
    for browser in (mine, other):
        browser.ask("/sign-in", method="POST", token=browser.token())
    assert mine.ask("/write", method="POST", token=other.token()).status == 403
    assert mine.ask("/write", method="POST", token=mine.token()).status == 200
