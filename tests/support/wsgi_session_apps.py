"""The same small application in plain WSGI, Flask and Django, with and without the framework's own session."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from django_project import configure

Log = list[str]
KEY = "mks_hardening.session"


def bare(log: Log) -> Callable[..., Any]:
    """Plain WSGI."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = act(environ, environ["PATH_INFO"], log, {}).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return app


def flask(log: Log, *, own_session: bool = False) -> Callable[..., Any]:
    """A Flask application; with ``own_session`` it also keeps the name in Flask's signed cookie."""
    from flask import Flask, request, session

    app = Flask(__name__)
    app.secret_key = "a secret of the test"

    @app.route("/<path:path>")
    def page(path: str) -> str:
        return act(request.environ, "/" + path, log, session if own_session else {})

    return app


@contextlib.contextmanager
def django(log: Log, *, own_session: bool = False) -> Iterator[Callable[..., Any]]:
    """A Django application; with ``own_session`` it also keeps the name in Django's signed cookie."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.test.utils import override_settings
    from django.urls import re_path

    configure()

    def page(request: HttpRequest) -> HttpResponse:
        own: Any = request.session if own_session else {}
        return HttpResponse(act(request.environ, request.path, log, own), content_type="text/plain")

    class Urls:
        urlpatterns = (re_path(".*", page),)

    with override_settings(
        ROOT_URLCONF=Urls,
        ALLOWED_HOSTS=["*"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        SESSION_COOKIE_NAME="session",
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"] if own_session else [],
        LOGGING_CONFIG=None,
    ):
        yield WSGIHandler()


def act(environ: dict[str, Any], path: str, log: Log, own: Any) -> str:
    """Do what the view does."""
    log.append(path)
    handle = environ[KEY]
    if path == "/sign-in":
        handle.start("alice", data={"role": "boss"})
        own["name"] = "alice"
    elif path == "/sign-out":
        handle.end()
    elif path == "/rotate":
        handle.rotate()
    elif path == "/end-others":
        handle.end_others()
    return f"{handle.user_id} {own.get('name')} {handle.data.get('role')}"


class Browser:
    """Keeps cookies between requests."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}

    def get(self, path: str, *, html: bool = False, cookies: dict[str, str] | None = None) -> Any:
        from mks_hardening.testing import call_wsgi

        sent = self.cookies if cookies is None else cookies
        headers = {"Accept": "text/html"} if html else {}
        if sent:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in sent.items())
        answer = call_wsgi(self.app, path, headers=headers)
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                key, _, rest = value.strip().partition("=")
                if "Max-Age=0" in value:
                    self.cookies.pop(key, None)
                else:
                    self.cookies[key] = rest.partition(";")[0]
        return answer


def ask(app: Callable[..., Any], path: str, cookie: str) -> Any:
    """Send one request with a raw Cookie header, in Latin-1."""
    from wsgi_scripted import environ_of, serve

    environ = environ_of({"path": path})
    environ["HTTP_COOKIE"] = cookie
    return serve(app, environ)
