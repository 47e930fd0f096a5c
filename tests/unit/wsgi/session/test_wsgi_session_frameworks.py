from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wsgi_session_apps as apps
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import MemorySessionStore, RequestLoggingMiddleware, SessionTimeoutMiddleware
from wsgi_session_corpus import SwitchedStore

FRAMEWORKS: dict[str, Callable[[apps.Log], Any]] = {
    "bare": lambda log: contextlib.nullcontext(apps.bare(log)),
    "flask": lambda log: contextlib.nullcontext(apps.flask(log)),
    "flask with its session": lambda log: contextlib.nullcontext(apps.flask(log, own_session=True)),
    "django": apps.django,
    "django with its session": lambda log: apps.django(log, own_session=True),
}


class World:
    def __init__(self, app: Any, log: apps.Log) -> None:
        self.log = log
        self.clock = FrozenClock()
        self.store: Any = SwitchedStore(MemorySessionStore())
        middleware = SessionTimeoutMiddleware(
            app,
            store=self.store,
            clock=self.clock,
            sign_in_url="/sign-in",
            strip_cookies=["session"],
            outage_grace=60,
        )
        logger = logging.Logger("frameworks")  # noqa: LOG001 - of its own
        self.browser = apps.Browser(RequestLoggingMiddleware(middleware, logger=logger, clock=self.clock))


@pytest.fixture(params=FRAMEWORKS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    log: apps.Log = []
    with FRAMEWORKS[request.param](log) as app:
        world = World(app, log)
        world.own = "alice" if "session" in request.param else "None"  # type: ignore[attr-defined]
        yield world


def test_a_session_from_sign_in_to_its_end(world: Any) -> None:
    assert world.browser.get("/page").body == b"None None None"
    assert world.browser.get("/sign-in").body.startswith(b"alice")
    assert world.browser.get("/page").body.decode() == f"alice {world.own} boss"
    world.clock.advance(1799)
    assert world.browser.get("/page").status == 200
    world.log.clear()
    world.clock.advance(1801)
    answer = world.browser.get("/page")
    assert (answer.status, answer.header("X-Session-Timeout-Reason")) == (401, "idle")
    assert world.log == []
    assert world.browser.cookies == {}
    assert world.browser.get("/page").body == b"None None None"


def test_a_page_is_sent_to_the_sign_in_page_which_works(world: Any) -> None:
    world.browser.get("/sign-in")
    world.clock.advance(1801)
    dead = dict(world.browser.cookies)
    answer = world.browser.get("/page", html=True)
    assert (answer.status, answer.header("Location")) == (303, "/sign-in")
    assert world.browser.get("/sign-in", html=True, cookies=dead).status == 200
    assert world.browser.get("/page").body.decode() == f"alice {world.own} boss"


def test_what_was_signed_out_or_rotated_stays_dead(world: Any) -> None:
    world.browser.get("/sign-in")
    first = dict(world.browser.cookies)
    assert world.browser.get("/rotate").status == 200
    second = dict(world.browser.cookies)
    assert world.browser.get("/page", cookies=first).body.startswith(b"alice")  # it may have been under way
    assert world.browser.cookies == second
    world.clock.advance(10)
    assert world.browser.get("/page", cookies=first).status == 401
    assert world.browser.cookies == second
    world.browser.cookies = dict(second)
    assert world.browser.get("/sign-out").status == 200
    assert world.browser.cookies == {}
    answer = world.browser.get("/page", cookies=second)
    assert (answer.status, answer.header("X-Session-Timeout-Reason")) == (401, "revoked")


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/rotate"])
def test_what_cannot_be_recorded_becomes_503(world: Any, path: str) -> None:
    logging.disable(logging.CRITICAL)  # the frameworks log the traceback of the view
    try:
        world.browser.get("/sign-in")
        before = dict(world.browser.cookies)
        world.store.away = True
        answer = world.browser.get(path)
    finally:
        logging.disable(logging.NOTSET)
    assert (answer.status, answer.header("Retry-After")) == (503, "2")
    assert answer.header("X-Request-ID")
    assert world.browser.cookies == before
    world.store.away = False
    assert world.browser.get("/page").status == 200
