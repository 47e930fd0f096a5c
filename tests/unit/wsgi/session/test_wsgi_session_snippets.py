from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from django_project import configure
from mks_hardening.testing import FrozenClock, call_wsgi
from wsgi_session_apps import Browser

SNIPPETS = Path(__file__).parents[4] / "docs" / "snippets" / "sessions"
pytestmark = pytest.mark.skipif(not SNIPPETS.exists(), reason="the documentation is not part of the wheel")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FrozenClock:
    clock = FrozenClock()
    monkeypatch.setattr("mks_hardening._core.clock.SYSTEM_CLOCK", clock)
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

    configure()
    for module in load("with_django"):
        with override_settings(ROOT_URLCONF="with_django", ALLOWED_HOSTS=["*"], MIDDLEWARE=[]):
            yield module


def test_bare(bare: Any, clock: FrozenClock) -> None:
    browser = Browser(bare.app)
    assert browser.get("/").body == b"None {} None\n"
    assert browser.get("/sign-in").body == b"alice {'second_factor': False} 1800.0\n"
    before = dict(browser.cookies)
    assert browser.get("/second-factor").body == b"alice {'second_factor': True} 1800.0\n"
    clock.advance(10)  # seconds for which requests under way may read
    assert browser.get("/", cookies=before).status == 401
    browser = Browser(bare.app)
    browser.get("/sign-in")
    clock.advance(1800)
    assert browser.get("/", html=True).header("Location") == "/sign-in"


def test_flask(flask: Any, clock: FrozenClock) -> None:
    browser = Browser(flask.app)
    signed_in = call_wsgi(flask.app, "/sign-in", method="POST")
    browser.cookies["__Host-mks-session"] = (
        str(signed_in.header("Set-Cookie")).partition("=")[2].partition(";")[0]
    )
    assert browser.get("/basket/helmet").body == b"alice: helmet"
    assert browser.get("/basket/gloves").body == b"alice: helmet, gloves"
    stolen = {"session": browser.cookies["session"]}
    assert Browser(flask.app).get("/basket/boots", cookies=stolen).body == b"None: boots"
    clock.advance(1000)
    assert browser.get("/session").body == b'{"expires_in":800.0}\n'
    clock.advance(800)
    assert browser.get("/basket/boots").status == 401
    assert browser.cookies == {}
    assert browser.get("/basket/boots").body == b"None: boots"


def test_django(django: Any, clock: FrozenClock) -> None:
    from django.contrib.auth.signals import user_logged_in, user_logged_out
    from django.http import HttpRequest, HttpResponse

    def log_in(request: HttpRequest) -> HttpResponse:
        user_logged_in.send(sender=None, request=request, user=SimpleNamespace(pk=7, save=lambda **_: None))
        return HttpResponse("welcome")

    def log_out(request: HttpRequest) -> HttpResponse:
        user_logged_out.send(sender=None, request=request, user=None)
        return HttpResponse("bye")

    from django.urls import path

    django.urlpatterns += [path("sign-in", log_in), path("sign-out", log_out)]
    browser = Browser(django.application)
    assert browser.get("/page").body == b"hello None"
    assert browser.get("/sign-in").body == b"welcome"
    assert browser.get("/page").body == b"hello 7"
    clock.advance(1800)
    assert browser.get("/page").status == 401
    assert browser.get("/sign-in").status == 200
    signed_in = dict(browser.cookies)
    assert browser.get("/sign-out").body == b"bye"
    assert browser.get("/page", cookies=signed_in).status == 401
