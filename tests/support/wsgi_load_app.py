"""Deadlines and slots of WSGI applications for real servers, and cookies of the sessions of Flask and Django."""

from __future__ import annotations

import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

from django_project import configure
from mks_hardening.compose import harden_wsgi
from mks_hardening.security import ConcurrencyLimiter
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import (
    ConcurrencyMiddleware,
    ConcurrencyRule,
    RequestTimeoutMiddleware,
    request_deadline,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEADLINE = 0.2
TEXT = [("Content-Type", "text/plain")]
limiter = ConcurrencyLimiter({"streams": 1})
rules = [ConcurrencyRule("streams", path="/stream")]


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Pages that are late before or after their first byte, and a stream that ends only if its client leaves."""
    path = environ["PATH_INFO"]
    deadline = request_deadline(environ)

    def late() -> bytes:
        assert deadline is not None
        time.sleep(2 * DEADLINE)
        return f"{deadline.timeout()}".encode()

    def parts() -> Iterator[bytes]:
        if path == "/late-after":
            yield b"first part\n"
        if path == "/stream":
            for _ in range(600):
                yield b"x" * 1000
                time.sleep(0.05)
        yield late()

    if path == "/fine":
        start_response("200 OK", [*TEXT, ("Content-Length", "4")])
        return [b"fine"]
    start_response("200 OK", [*TEXT, ("X-Of-The-Application", "1")])
    if path == "/late-view":
        late()
    return parts()


def flask_pages() -> Any:
    """Pages that sign in and out with the session of Flask."""
    from flask import Flask, session

    app = Flask("cookies")
    app.secret_key = "a secret of the tests"

    @app.get("/in")
    def sign_in() -> str:
        session["user"] = "taro"
        return "in"

    @app.get("/who")
    def who() -> str:
        return str(session.get("user", "nobody"))

    @app.get("/out")
    def out() -> str:
        session.clear()
        return "out"

    return app.wsgi_app


def django_pages() -> Any:
    """Pages that sign in and out with the session of Django, and its token for forms."""
    configure()
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.middleware.csrf import get_token
    from django.test.utils import override_settings
    from django.urls import path

    def sign_in(request: Any) -> HttpResponse:
        request.session["user"] = "taro"
        return HttpResponse("in")

    def sign_out(request: Any) -> HttpResponse:
        request.session.flush()
        return HttpResponse("out")

    urls = ModuleType("urls")
    urls.urlpatterns = [  # type: ignore[attr-defined]  # what Django looks for
        path("in", sign_in),
        path("who", lambda request: HttpResponse(request.session.get("user", "nobody"))),
        path("out", sign_out),
        path("token", lambda request: HttpResponse(get_token(request))),
        path("form", lambda _request: HttpResponse("accepted")),
    ]
    override_settings(
        ALLOWED_HOSTS=["www.example.com"],
        ROOT_URLCONF=urls,
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",  # sends the length
            "django.middleware.csrf.CsrfViewMiddleware",
        ],
    ).enable()
    return WSGIHandler()


def hardened(app: Any) -> Any:
    """The whole stack, behind a proxy on this machine."""
    settings = HardeningSettings.from_env(
        environ={
            "MKS_ALLOWED_HOSTS": "www.example.com",
            "MKS_TRUSTED_PROXIES": "127.0.0.1",
            "MKS_COOKIE_POLICY": "enforce",
            "MKS_REQUEST_TIMEOUT": f"{DEADLINE * 1000:.0f}ms",
        }
    )
    return harden_wsgi(app, settings, concurrency_limiter=limiter, concurrency_rules=rules)


pages = {
    "/flask": hardened(flask_pages()),
    "/django": hardened(django_pages()),
    "/whole": hardened(application),
}
alone = RequestTimeoutMiddleware(
    ConcurrencyMiddleware(application, limiter=limiter, rules=rules), seconds=DEADLINE
)


def mounted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Choose the application by the first part of the path."""
    _, first, rest = environ["PATH_INFO"].split("/", 2)
    environ["PATH_INFO"] = f"/{rest}"
    result: Iterable[bytes] = pages.get(f"/{first}", alone)(environ, start_response)
    return result
