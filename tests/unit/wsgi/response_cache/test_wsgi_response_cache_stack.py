"""The response cache among the other wrappers: what is made for one visitor never reaches another."""

from __future__ import annotations

import gzip
import itertools
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, request, session

from contrib_django_site import project
from contrib_flask_site import settings_of
from mks_hardening.cache import MemoryCache
from mks_hardening.compose import harden_wsgi
from mks_hardening.contrib.django_app import hardened
from mks_hardening.contrib.flask_app import Hardening, current_csrf_token, current_session
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.testing import WSGIResponse, call_wsgi
from mks_hardening.wsgi import (
    CacheRule,
    CSRFMiddleware,
    HeaderPolicy,
    HealthMiddleware,
    HTTPSRedirectMiddleware,
    MemorySessionStore,
    ProxyTrust,
    RateLimitMiddleware,
    RateLimitRule,
    RequestLoggingMiddleware,
    ResponseCacheMiddleware,
    SecurityHeadersMiddleware,
    SessionTimeoutMiddleware,
    TrustedProxyMiddleware,
)
from tables import faulty_rows

from django.core.handlers.wsgi import WSGIHandler  # isort: skip

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

HANDLE, TOKEN, NONCE = "mks_hardening.session", "mks_hardening.csrf_token", "mks_hardening.csp_nonce"
WSGI_ONLY = {
    "test_flask",
    "test_django",
    "test_the_same_around_a_flask_application_that_is_hardened",
    # Of the check at construction, which the bridge hides.
    "test_a_page_with_a_nonce_is_never_kept_compressed_or_not",
    "test_the_cache_refuses_to_stand_around_what_decides_for_one_request",
    # Their applications look into the environ of outer middleware.
    "test_a_nonce_of_headers_that_nobody_could_see_is_not_kept",
    "test_the_route_is_in_the_record_of_a_miss_and_of_a_hit",
    "test_with_an_identity_a_page_that_read_the_session_is_for_the_same_cookies",
}
View = Callable[[dict[str, Any]], str]
Wrap = Callable[["WSGIApplication"], Any]


def cached(app: Any, cache: Any = None, **rule: Any) -> ResponseCacheMiddleware:
    kept = MemoryCache() if cache is None else cache
    return ResponseCacheMiddleware(app, cache=kept, rules=[CacheRule("/*", ttl=60, **rule)])


def cookies(request: Any) -> str | None:
    """The cookies of an environ or a scope."""
    fields = {name.lower(): value for name, value in request.get("headers", ())}
    return request.get("HTTP_COOKIE") or fields.get(b"cookie", b"").decode() or None


def in_session(app: Any) -> Any:
    return SessionTimeoutMiddleware(app, store=MemorySessionStore())


class Plain:
    """An application whose one view counts its calls."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.calls = 0
        self.headers: list[tuple[str, str]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.calls += 1
        body = self.view(environ)
        start_response("200 OK", [("Content-Type", "text/html"), *self.headers])
        return [f"{body} {self.calls}".encode()]


def ask(app: Any, path: str = "/", **options: Any) -> WSGIResponse:
    headers = {"Host": "localhost", **options.pop("headers", {})}
    return call_wsgi(app, path, headers=headers, **options)


def start(environ: dict[str, Any]) -> str:
    environ[HANDLE].start("alice")
    return "Welcome alice"


def begin_cart(environ: dict[str, Any]) -> str:
    environ[HANDLE].start_anonymous(data={"cart": [1]})
    return "cart of one"


TOUCHING: dict[str, View] = {
    "signs in": start,
    "begins a cart": begin_cart,
    "reads the user": lambda environ: str(environ[HANDLE].user_id),
    "reads data": lambda environ: str(environ[HANDLE].data),
    "reads the time left": lambda environ: str(environ[HANDLE].expires_in),
    "changes data": lambda environ: str(environ[HANDLE].update_data(x=1)),
    "rotates": lambda environ: str(environ[HANDLE].rotate()),
    "refreshes": lambda environ: str(environ[HANDLE].refresh()),
    "ends": lambda environ: str(environ[HANDLE].end()),
    "ends others": lambda environ: str(environ[HANDLE].end_others()),
    "asks for a token": lambda environ: str(environ[TOKEN]),
    "asks for a token in a template": lambda environ: environ[TOKEN].__html__(),
    "asks for a token of the session": lambda environ: str(environ[HANDLE].csrf_token),
}
ORDERS: dict[str, Wrap] = {
    "inside harden_wsgi": lambda app: harden_wsgi(cached(app), settings_of()),
    "session, csrf, cache": lambda app: in_session(CSRFMiddleware(cached(app))),
    "session, cache, csrf": lambda app: in_session(cached(CSRFMiddleware(app))),
    "cache, session, csrf": lambda app: cached(in_session(CSRFMiddleware(app))),
    "csrf, cache, session": lambda app: CSRFMiddleware(cached(in_session(app))),
    "cache, csrf, session": lambda app: cached(CSRFMiddleware(in_session(app))),
}


@pytest.mark.parametrize("order", ORDERS)
def test_what_touched_session_or_token_is_never_kept(order: str) -> None:
    def check(view: str) -> None:
        app = Plain(TOUCHING[view])
        stack = ORDERS[order](app)
        first, second = ask(stack), ask(stack)
        assert (first.status, second.status, app.calls) == (200, 200, 2)

    assert faulty_rows(TOUCHING, check) == {}


@pytest.mark.parametrize("order", ORDERS)
def test_what_touched_neither_is_kept(order: str) -> None:
    app = Plain(lambda environ: str(environ.get(HANDLE) is None or environ[HANDLE].exists))
    stack = ORDERS[order](app)
    assert ask(stack).body == ask(stack).body
    assert app.calls == 1


def test_a_session_that_is_touched_in_the_middle_of_the_body_is_noticed() -> None:
    calls: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        calls.append("called")
        yield b"hello "
        yield str(environ[HANDLE].user_id).encode()

    stack = in_session(cached(app))
    ask(stack)
    ask(stack)
    assert len(calls) == 2


def of_this_visitor(environ: dict[str, Any]) -> object:
    return environ[HANDLE].user_id


@pytest.mark.parametrize("identity", [lambda _: "everybody", of_this_visitor], ids=["shared", "by user"])
def test_with_an_identity_a_page_that_read_the_session_is_for_the_same_cookies(identity: Any) -> None:
    app = Plain(lambda environ: f"for {environ[HANDLE].user_id}")
    stack = in_session(
        lambda environ, start: (login if environ["PATH_INFO"] == "/login" else kept)(environ, start)
    )
    kept = cached(app, identity=identity)

    def login(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[HANDLE].start(environ["QUERY_STRING"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    cookies = {
        user: str(ask(stack, "/login", query=user).header("Set-Cookie")).partition(";")[0]
        for user in ("alice", "bob")
    }
    pages = [ask(stack, headers={"Cookie": cookies[user]}) for user in ("alice", "bob", "alice", "bob")]
    assert [page.body for page in pages] == [b"for alice 1", b"for bob 2", b"for alice 1", b"for bob 2"]
    assert all("Cookie" in str(page.headers) for page in pages)


def test_outside_of_the_session_nothing_that_read_it_outlives_it() -> None:
    app = Plain(lambda environ: f"for {environ[HANDLE].user_id}")
    stack = cached(in_session(app), identity=cookies)
    for _ in range(2):
        ask(stack, headers={"Cookie": "other=1"})
    assert app.calls == 2


def test_with_an_identity_a_token_is_never_shared() -> None:
    app = Plain(lambda environ: str(environ[TOKEN]))
    stack = in_session(CSRFMiddleware(cached(app, identity=lambda _: "everybody")))
    assert ask(stack).body != ask(stack).body


# --- frameworks


@pytest.mark.parametrize("touches", [True, False])
def test_flask(touches: bool) -> None:
    app = Flask(__name__)
    calls = itertools.count(1)
    views: dict[str, Callable[[], object]] = {
        "/cart": lambda: session.setdefault("cart", [1]),
        "/sees": lambda: session.get("cart"),
        "/welcome": lambda: current_session().start("alice"),
        "/form": current_csrf_token,
    }

    @app.get("/<path:_name>")
    def view(_name: str) -> str:
        said = views[request.path]() if touches else ""
        return f"{said} {next(calls)}"

    setattr(app, "wsgi_app", cached(app.wsgi_app))  # noqa: B010 - a method, for type checkers
    Hardening(app, settings_of())
    for path in views:
        first, second = (app.test_client().get(path, buffered=True) for _ in range(2))
        assert (first.status_code, second.status_code) == (200, 200)
        assert (first.data != second.data) is touches, path


@pytest.mark.parametrize("touches", [True, False])
def test_django(touches: bool) -> None:
    views: dict[str, Callable[[Any], object]] = {
        "cart": lambda asked: asked.session.setdefault("cart", [1]),
        "sees": lambda asked: asked.session.get("cart"),
        "welcome": lambda asked: asked.environ[HANDLE].start("alice"),
        "form": lambda asked: str(asked.environ[TOKEN]),
    }
    with project() as site:
        for view in views.values():
            site.app = hardened(cached(WSGIHandler()))
            calls = itertools.count(1)
            pages = [
                site.visit(
                    lambda asked, view=view, calls=calls: f"{view(asked) if touches else ''} {next(calls)}",
                    cookies={},
                )
                for _ in range(2)
            ]
            assert [page.status for page in pages] == [200, 200]
            assert (pages[0].body != pages[1].body) is touches


# --- the nonce


@pytest.mark.parametrize("order", ["inside harden_wsgi", "inside the headers alone"])
@pytest.mark.parametrize("encoding", ["", "gzip", "br"])
def test_a_page_with_a_nonce_is_never_kept_compressed_or_not(order: str, encoding: str) -> None:
    policy = HeaderPolicy.strict()
    pages = itertools.count(1)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = f"<script nonce={environ[NONCE]}></script> {next(pages)}".encode()
        encoded = [("Content-Encoding", encoding)] if encoding else []
        start_response("200 OK", [("Content-Type", "text/html"), *encoded])
        return [gzip.compress(body) if encoding else body]

    inner = cached(app)
    stack: Any = SecurityHeadersMiddleware(inner, policy=policy)
    if order == "inside harden_wsgi":
        stack = harden_wsgi(inner, settings_of(), headers=policy)
    assert ask(stack).body != ask(stack).body


def test_a_nonce_of_headers_that_nobody_could_see_is_not_kept() -> None:
    """Hidden from the check at construction, the cache still sees the field with the nonce."""
    app = Plain(lambda _: "page")
    inner = SecurityHeadersMiddleware(app, policy=HeaderPolicy.strict(cache_control=None))
    stack = cached(partial(lambda hidden, *request: hidden(*request), inner))
    policies = {ask(stack).header("Content-Security-Policy") for _ in range(3)}
    assert len(policies) == 3


# --- what the application leaves for those outside


def test_the_route_is_in_the_record_of_a_miss_and_of_a_hit(caplog: pytest.LogCaptureFixture) -> None:
    def view(environ: dict[str, Any]) -> str:
        environ["mks_hardening.route"] = "/article/<id>"
        return "page"

    stack = RequestLoggingMiddleware(cached(Plain(view)))
    with caplog.at_level(logging.INFO, logger="mks_hardening.request"):
        bodies = {ask(stack, "/article/7").body for _ in range(2)}
    assert len(bodies) == 1
    assert [vars(record).get("route") for record in caplog.records] == ["/article/<id>"] * 2


def test_a_refusal_further_in_is_in_the_record(caplog: pytest.LogCaptureFixture) -> None:
    def view(_environ: dict[str, Any]) -> str:
        raise BackendUnavailableError("sessions", "refused", operation="start")

    stack = RequestLoggingMiddleware(cached(in_session(Plain(view))))
    with caplog.at_level(logging.INFO, logger="mks_hardening.request"):
        assert ask(stack).status == 503
    (record,) = [vars(record) for record in caplog.records if record.name == "mks_hardening.request"]
    assert (record["refused_by"], record["refused_rule"]) == ("session", "store")


def test_a_cookie_that_a_wrapper_further_in_hides_still_tells_variants_apart() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        said = environ["HTTP_COOKIE"]
        environ["HTTP_COOKIE"] = ""
        start_response("200 OK", [("Content-Type", "text/plain"), ("Vary", "Cookie")])
        return [said.encode()]

    stack = cached(app, identity=lambda _: "everybody")
    for cookie in ("a=1", "b=2", "a=1"):
        assert ask(stack, headers={"Cookie": cookie}).body == cookie.encode()


# --- where it belongs


def limited(app: Any) -> Any:
    from mks_hardening.security import RateLimiter

    limiter = RateLimiter({"all": "5 per minute"}, storage="memory://")
    return RateLimitMiddleware(app, limiter=limiter, rules=[RateLimitRule("all")])


OUTSIDE: dict[str, Wrap] = {
    "TrustedProxyMiddleware": lambda app: TrustedProxyMiddleware(app, trust=ProxyTrust()),
    "SecurityHeadersMiddleware": lambda app: SecurityHeadersMiddleware(app, policy=HeaderPolicy.web()),
    "RequestLoggingMiddleware": RequestLoggingMiddleware,
    "HTTPSRedirectMiddleware": lambda app: HTTPSRedirectMiddleware(app, allowed_hosts=["localhost"]),
    "HealthMiddleware": lambda app: HealthMiddleware(app, required=()),
    "RateLimitMiddleware": limited,
    "harden_wsgi": lambda app: harden_wsgi(app, settings_of()),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_cache_refuses_to_stand_around_what_decides_for_one_request(name: str) -> None:
    with pytest.raises(ConfigurationError, match="must be inside") as caught:
        cached(OUTSIDE[name](Plain(lambda _: "")))
    assert caught.value.parameter == "app"


def test_the_same_around_a_flask_application_that_is_hardened() -> None:
    app = Flask(__name__)
    Hardening(app, settings_of())
    for around in (app, app.wsgi_app):
        with pytest.raises(ConfigurationError, match="must be inside"):
            cached(around)
