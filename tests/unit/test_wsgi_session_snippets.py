from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mks_hardening.testing import FrozenClock, call_wsgi
from wsgi_session_apps import Browser

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets" / "sessions"
pytestmark = pytest.mark.skipif(not SNIPPETS.exists(), reason="the documentation is not part of the wheel")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FrozenClock:
    clock = FrozenClock()
    monkeypatch.setattr("mks_hardening.wsgi._steady_clock.SYSTEM_CLOCK", clock)
    return clock


def load(name: str) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(name, SNIPPETS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture
def bare(clock: FrozenClock) -> Iterator[Any]:
    yield from load("bare")


@pytest.fixture
def flask(clock: FrozenClock) -> Iterator[Any]:
    yield from load("with_flask")


@pytest.fixture
def django(clock: FrozenClock) -> Iterator[Any]:
    from django.test.utils import override_settings

    for module in load("with_django"):
        with override_settings(ROOT_URLCONF="with_django", ALLOWED_HOSTS=["*"], MIDDLEWARE=[]):
            yield module


def test_bare(bare: Any, clock: FrozenClock) -> None:
    browser = Browser(bare.app)
    assert browser.get("/").body == b"None {} None\n"
    assert browser.get("/sign-in").body == b"alice {'second_factor': False} 1800.0\n"
    before = dict(browser.cookies)
    assert browser.get("/second-factor").body == b"alice {'second_factor': True} 1800.0\n"
    assert browser.get("/", cookies=before).status == 401
    browser = Browser(bare.app)
    browser.get("/sign-in")
    clock.advance(1800)
    assert browser.get("/", html=True).header("Location") == "/sign-in"


def test_flask(flask: Any, clock: FrozenClock) -> None:
    browser = Browser(flask.app)
    assert browser.get("/basket/helmet").body == b"None: helmet"
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    signed_in = call_wsgi(flask.app, "/sign-in", method="POST", headers={"Cookie": cookies})
    browser.cookies["__Host-mks-session"] = (
        str(signed_in.header("Set-Cookie")).partition("=")[2].partition(";")[0]
    )
    assert browser.get("/basket/gloves").body == b"alice: helmet, gloves"
    clock.advance(1000)
    assert browser.get("/session").body == b'{"expires_in":800.0}\n'
    clock.advance(800)
    assert browser.get("/basket/boots").status == 401
    assert browser.cookies == {}
    assert browser.get("/basket/boots").body == b"None: boots"


def test_django(django: Any, clock: FrozenClock) -> None:
    browser = Browser(django.application)
    assert browser.get("/page").body == b"hello None"
    assert browser.get("/sign-in").body == b"welcome"
    assert browser.get("/page").body == b"hello alice"
    clock.advance(1800)
    assert browser.get("/page").status == 401
    assert browser.get("/sign-in").status == 200
