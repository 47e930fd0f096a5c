"""A framework's own session cookie is worth nothing without a living session of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from http.cookies import CookieError, SimpleCookie
from typing import Any

import pytest
from django.http.cookie import parse_cookie as django_cookies
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.http import parse_cookie as werkzeug_cookies

import wsgi_session_apps as apps
from mks_hardening._edge.session.cookie_header import CookieFilter
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import MemorySessionStore, SessionManager, SessionTimeoutMiddleware

OURS = "__Host-mks-session"
FRAMEWORKS: dict[str, Callable[[apps.Log], Any]] = {
    "flask": lambda log: contextlib.nullcontext(apps.flask(log, own_session=True)),
    "django": lambda log: apps.django(log, own_session=True),
}


class World:
    def __init__(self, app: Any) -> None:
        self.clock = FrozenClock()
        self.store = MemorySessionStore(clock=self.clock)
        self.manager = SessionManager(self.store)
        middleware = SessionTimeoutMiddleware(
            app, store=self.store, idle_timeout=1800, absolute_timeout=7200, strip_cookies=["session"]
        )
        self.browser = apps.Browser(middleware)


@pytest.fixture(params=FRAMEWORKS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with FRAMEWORKS[request.param]([]) as app:
        yield World(app)


def stay_until_absolute(world: World) -> None:
    for _ in range(8):
        world.clock.advance(1000)
        world.browser.get("/page")


ENDS: dict[str, Callable[[World], object]] = {
    "sign-out": lambda world: world.browser.get("/sign-out"),
    "idle": lambda world: world.clock.advance(1800),
    "absolute": stay_until_absolute,
    "revocation": lambda world: world.manager.end_user("alice"),
    "none, but ours left away": lambda world: None,
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "spelling", ["session={}", " session ={}", "\x1csession={}", "\xe3\x80\x80session={}"]
)
def test_a_stolen_framework_cookie_opens_nothing(world: World, end: str, spelling: str) -> None:
    world.browser.get("/sign-in")
    assert world.browser.get("/page").body == b"alice alice boss"
    stolen = world.browser.cookies["session"]
    ENDS[end](world)
    answer = apps.ask(world.browser.app, "/page", spelling.format(stolen))
    assert (answer.status, answer.body) == ("200 OK", b"None None None")


def test_other_cookies_stay(world: World) -> None:
    world.browser.get("/sign-in")
    cookies = {"theme": "dark", "session": world.browser.cookies["session"], "lang": "ja"}
    seen: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ["HTTP_COOKIE"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    middleware = SessionTimeoutMiddleware(app, store=world.store, strip_cookies=["session"])
    apps.Browser(middleware).get("/page", cookies=cookies)
    apps.Browser(middleware).get("/page", cookies={**cookies, OURS: world.browser.cookies[OURS]})
    assert seen[0] == "theme=dark; lang=ja"
    assert "session=ey" in seen[1] or "session=" in seen[1].replace(OURS, "")


# --- however a header is spelt


def simple_cookies(header: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def read_quietly(read: Callable[[str], Any], header: str) -> Any:
    try:
        return read(header)
    except UnicodeDecodeError:  # werkzeug, of bytes that are no UTF-8
        return {}


READERS: dict[str, Callable[[str], Any]] = {
    "werkzeug": lambda header: werkzeug_cookies({"HTTP_COOKIE": header}),
    "django": django_cookies,
    "http.cookies": simple_cookies,
}
PIECES = st.sampled_from(
    [
        "session",
        "=",
        ";",
        " ",
        ",",
        '"',
        "x",
        "\t",
        "\x0b",
        "\x1c",
        "\x85",
        "\xa0",
        "\xe3\x80\x80",
        "a=1",
        "sessions",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
@example("a=1 session=x")
@example('a="1; session=x"')
@example("session=x;session=y; a=session=z")
def test_no_reader_finds_a_hidden_cookie(header: str) -> None:
    left = CookieFilter(["session"]).without(header)
    for name, read in READERS.items():
        assert not read_quietly(read, left).get("session"), name


@given(
    st.dictionaries(
        st.sampled_from(["a", "xsession", "session2", "b.c"]), st.sampled_from(["", "1", "session=2"])
    )
)
def test_well_formed_cookies_of_others_stay(cookies: dict[str, str]) -> None:
    header = "; ".join(f"{name}={value}" for name, value in cookies.items())
    assert django_cookies(CookieFilter(["session"]).without(header)) == django_cookies(header)
