"""Sessions that are nobody's: kept before sign-in, replaced by it, and ended without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mks_hardening.events import SessionChanged, add_observer, remove_observer
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import MemorySessionStore, SessionHandle, SessionManager, SessionTimeoutMiddleware
from wsgi_session_apps import Browser

WSGI_ONLY: set[str] = set()
IN_THREAD = True  # its applications call the plain methods of their session

COOKIE = "__Host-mks-session"
View = Callable[[SessionHandle], object]


class Site:
    """One application that does in a request what the test says, and tells who was there."""

    def __init__(self, **options: Any) -> None:
        self.clock = FrozenClock()
        self.store = MemorySessionStore(clock=self.clock)
        self.do: View = lambda handle: None
        self.wrapper = SessionTimeoutMiddleware(
            self._app, store=self.store, idle_timeout=1800, absolute_timeout=7200, **options
        )
        self.browser = Browser(self.wrapper)

    def visit(self, do: View = lambda handle: None, **how: Any) -> Any:
        self.do = do
        return self.browser.get("/page", **how)

    def _app(self, environ: Any, start_response: Any) -> list[bytes]:
        handle = environ["mks_hardening.session"]
        self.do(handle)
        seen = (handle.user_id, handle.alive, handle.anonymous, dict(handle.data), environ.get("HTTP_COOKIE"))
        self.seen = seen
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]


def basket(handle: SessionHandle) -> None:
    handle.start_anonymous(data={"basket": ["helmet"]})


def test_what_is_kept_before_sign_in_makes_nobody_signed_in() -> None:
    site = Site()
    site.visit(basket)
    site.visit(lambda handle: handle.update_data(seen=True))
    assert site.seen[:4] == (None, False, True, {"basket": ["helmet"], "seen": True})


def test_signing_in_replaces_it_by_another_id() -> None:
    site = Site()
    site.visit(basket)
    planted = dict(site.browser.cookies)
    site.visit(lambda handle: handle.start("alice", data=handle.data))
    assert site.seen[:4] == ("alice", True, False, {"basket": ["helmet"]})
    assert site.browser.cookies != planted
    site.visit(cookies=planted)
    assert site.seen[:4] == (None, False, False, {})


@pytest.mark.parametrize("end", ["idle", "absolute", "forgotten", "revoked", "forged"])
def test_its_end_is_told_to_nobody(end: str) -> None:
    site, ended = Site(on_expired=lambda record, reason: pytest.fail("told")), []
    add_observer(ended.append)
    try:
        site.visit(basket)
        handle = site.wrapper.open(f"{COOKIE}={site.browser.cookies[COOKIE]}")
        if end == "idle":
            site.clock.advance(1800)
        elif end == "absolute":
            for _ in range(8):
                site.clock.advance(1000)
                site.visit()
            site.visit(basket)
            site.clock.advance(7200)
        elif end == "forgotten":
            site.store = site.wrapper._gate.lookup.store = MemorySessionStore(clock=site.clock)
            site.clock.advance(1)
        elif end == "revoked":
            assert SessionManager(site.store).end(str(handle.reference))
        else:
            site.browser.cookies[COOKIE] = "~" + "A" * 43
        answer = site.visit(html=True)
    finally:
        remove_observer(ended.append)
    assert (answer.status, answer.header("X-Session-Timeout-Reason")) == (200, None)
    assert site.seen == (None, False, False, {}, None)
    assert site.browser.cookies == {}
    assert all(event.user_id is None for event in ended if isinstance(event, SessionChanged))


def test_it_says_nothing_of_its_end_and_warns_nobody() -> None:
    site = Site()
    site.visit(basket)
    site.clock.advance(1790)
    answer = site.visit(lambda handle: None)
    assert answer.header("X-Session-Expires-In") is None


def test_the_cookie_of_a_framework_is_not_seen_beside_it() -> None:
    site = Site(strip_cookies=["session"])
    site.visit(basket)
    site.visit(cookies={**site.browser.cookies, "session": "stolen"})
    assert site.seen[4] is None


def test_it_has_no_secret_for_forms() -> None:
    site, calls = Site(), list[str | None]()
    site.visit(basket)
    site.visit(lambda handle: calls.append(handle.csrf_token))
    site.visit(lambda handle: handle.start("alice"))
    site.visit(lambda handle: calls.append(handle.csrf_token))
    assert calls[0] is None
    assert calls[1]


def test_a_rotated_one_stays_nobodys() -> None:
    site = Site()
    site.visit(basket)
    site.visit(lambda handle: handle.rotate())
    site.clock.advance(1800)
    assert site.visit().status == 200


def test_no_user_can_have_a_name_like_it() -> None:
    site = Site()
    with pytest.raises(ValueError, match="must not begin with a control character"):
        site.visit(lambda handle: handle.start("\x1fnobody"))


def test_an_outage_keeps_its_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(outage_grace=0)
    site.visit(basket)

    def away(*_: object, **__: object) -> None:
        raise BackendUnavailableError("sessions", "refused", operation="load")

    monkeypatch.setattr(MemorySessionStore, "load", away)
    answer = site.visit()
    assert (answer.status, answer.header("Set-Cookie")) == (503, None)


# --- data


def test_names_of_any_kind_and_none_can_be_kept() -> None:
    site = Site()
    site.visit(lambda handle: handle.start("alice", data={"a": 1, "b": 2}))
    site.visit(lambda handle: handle.merge_data({"self": None, "x y": [1]}, removed=["a"]))
    assert site.seen[3] == {"b": 2, "self": None, "x y": [1]}
    site.visit(lambda handle: handle.update_data(b=None))
    assert site.seen[3] == {"self": None, "x y": [1]}


# --- the cookie


@pytest.mark.parametrize(("age", "result"), [(None, None), (60.0, 60), (1e9, 7200)])
def test_a_cookie_may_outlive_the_browser_but_not_the_session(age: float | None, result: int | None) -> None:
    site = Site()

    def sign_in(handle: SessionHandle) -> None:
        handle.cookie_age = age
        handle.start("alice")

    cookie = str(site.visit(sign_in).header("Set-Cookie"))
    assert (f"Max-Age={result};" in cookie) is (result is not None)
    assert "HttpOnly" in cookie
    assert "Secure" in cookie


def test_the_cookie_can_be_handed_out_again() -> None:
    site = Site()
    site.visit(lambda handle: handle.start("alice"))
    site.clock.advance(200)

    def keep(handle: SessionHandle) -> None:
        handle.cookie_age = 10_000.0
        handle.resend_cookie()

    answer = site.visit(keep)
    assert f"{COOKIE}={site.browser.cookies[COOKIE]}; Path=/; Max-Age=7000;" in str(
        answer.header("Set-Cookie")
    )


# --- outside a request


def test_a_cookie_header_can_be_judged_outside_a_request() -> None:
    site = Site()
    site.visit(lambda handle: handle.start("alice"))
    cookies = f"a=b; {COOKIE}={site.browser.cookies[COOKIE]}"
    site.clock.advance(1700)
    assert site.wrapper.open(cookies).user_id == "alice"
    site.clock.advance(100)  # looking was no activity
    assert site.wrapper.open(cookies).user_id is None
    assert site.wrapper.open(None).session_id is None
    site.visit(cookies={})
    handle = site.wrapper.open("")
    handle.start("bob")
    headers: list[tuple[str, str]] = []
    assert handle.step("200 OK", headers) == "200 OK"
    assert call_wsgi(site.wrapper, headers={"Cookie": headers[0][1].partition(";")[0]}).status == 200
    assert site.seen[0] == "bob"
