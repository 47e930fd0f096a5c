"""What clients get: the way back after signing in, caches kept out, sign-out, parts of pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import wsgi_session_apps as apps
from mks_hardening._edge.session.request_kind import is_part_of_a_page
from mks_hardening._edge.session.sign_in_page import SignInPage, return_path
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock, WSGIResponse, call_wsgi
from mks_hardening.wsgi import CSRFMiddleware, MemorySessionStore, SessionTimeoutMiddleware

WSGI_ONLY: set[str] = set()
IN_THREAD = True  # its applications call the plain methods of their session

OURS = "__Host-mks-session"
DEAD = f"{OURS}={'A' * 43}"


def site(**options: Any) -> SessionTimeoutMiddleware:
    return SessionTimeoutMiddleware(apps.bare([]), store=MemorySessionStore(), **options)


def page(app: Any, path: str, **request: Any) -> WSGIResponse:
    return call_wsgi(app, path, headers={"Cookie": DEAD, "Accept": "text/html"}, **request)


# --- the way back


@pytest.mark.parametrize(
    ("path", "query", "there"),
    [
        ("/a", "", "/a"),
        ("/a/b", "x=1&y=%E6%97%A5", "/a/b?x=1&y=%E6%97%A5"),
        ("/a b&c", "", "/a%20b%26c"),
        ("/\xe6\x97\xa5", "", "/%E6%97%A5"),
        ("/{reason}", "", "/%7Breason%7D"),
        ("//evil.test/", "", "/"),
        ("/\\evil.test", "", "/"),
        ("/a/..//evil.test", "", "/"),
        ("/a\r\nX: y", "", "/"),
        ("/" + "a" * 2000, "", "/"),
        ("", "", "/"),
    ],
)
def test_the_page_that_was_asked_for_is_named(path: str, query: str, there: str) -> None:
    place = SignInPage("/in?next={next}&why={reason}").location("idle", return_path("GET", path, query))
    assert parse_qs(urlsplit(place).query)["next"] == [there]
    assert parse_qs(urlsplit(place).query)["why"] == ["idle"]


def test_a_request_that_no_link_repeats_comes_back_to_the_first_page() -> None:
    answer = page(site(sign_in_url="/in?next={next}"), "/pay", method="POST")
    assert (answer.status, answer.header("Location")) == (303, "/in?next=%2F")


def test_the_way_back_has_the_mount_point() -> None:
    app = site(sign_in_url="https://sso.example.com/in?next={next}")
    environ = {"SCRIPT_NAME": "/shop"}
    answer = page(app, "/a", query="b=1", environ=environ)
    assert answer.header("Location") == "https://sso.example.com/in?next=%2Fshop%2Fa%3Fb%3D1"


@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)))
@example("/\t/evil.test", "")
@example("/%5cevil.test", "")
def test_the_way_back_is_a_path_of_this_origin_in_every_reading(path: str, query: str) -> None:
    location = SignInPage("/in?next={next}").location("idle", return_path("GET", path, query))
    assert location.isascii()
    assert not set(location) & set(" \r\n\\\t")
    (there,) = parse_qs(urlsplit(location).query, keep_blank_values=True)["next"]
    assert there.startswith("/")
    assert not there.startswith(("//", "/\\", "/\t"))
    assert urlsplit(there).netloc == ""


@pytest.mark.parametrize("url", ["{next}", "/{next}", "https://{next}/", "//{next}", "/in\\{next}"])
def test_the_way_back_cannot_become_the_address(url: str) -> None:
    with pytest.raises(ConfigurationError):
        SignInPage(url)


# --- parts of pages


@pytest.mark.parametrize(
    ("method", "path", "destination", "part"),
    [
        ("GET", "/app.css", "", True),
        ("HEAD", "/a/logo.svg", "", True),
        ("GET", "/avatar", "image", True),
        ("GET", "/search.js", "worker", True),
        ("GET", "/font.woff", "", True),
        ("GET", "/photo.JPEG", "", True),
        ("GET", "/site.webmanifest", "", True),
        ("GET", "/app.css", "document", False),
        ("GET", "/api/orders", "empty", False),
        ("GET", "/app.css", "empty", False),
        ("GET", "/orders", "", False),
        ("POST", "/app.css", "style", False),
        ("GET", "/app.css/", "", False),
    ],
)
def test_what_a_page_loads_to_be_looked_at(method: str, path: str, destination: str, part: bool) -> None:
    assert is_part_of_a_page(method, path, destination) is part


@pytest.mark.parametrize("outage", [True, False])
def test_a_stale_cookie_on_a_style_sheet_is_ignored(outage: bool) -> None:
    store: Any = MemorySessionStore()
    if outage:
        from wsgi_session_corpus import SwitchedStore

        store = SwitchedStore(store)
        store.away = True
    app = SessionTimeoutMiddleware(apps.bare([]), store=store, strip_cookies=["session"])
    answer = call_wsgi(app, "/app.css", headers={"Cookie": f"{DEAD}; session=stolen"})
    assert (answer.status, answer.body, answer.header("Set-Cookie")) == (200, b"None None None", None)
    assert "HTTP_COOKIE" not in answer.environ
    assert call_wsgi(app, "/app", headers={"Cookie": DEAD}).status == (503 if outage else 401)


# --- caches


def answer_with(fields: list[tuple[str, str]], do: Callable[[Any], object], **request: Any) -> WSGIResponse:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        do(environ["mks_hardening.session"])
        start_response("200 OK", [("Content-Type", "text/plain"), *fields])
        return [b""]

    return call_wsgi(SessionTimeoutMiddleware(app, store=MemorySessionStore()), **request)


def values(answer: WSGIResponse, name: str) -> list[str]:
    return [value for field, value in answer.headers if field.lower() == name]


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        (None, "no-store"),
        ("public, max-age=60", "no-store"),
        ("max-age=60", "no-store"),
        ("s-maxage=60, private", "no-store"),
        ("private, max-age=60", "private, max-age=60"),
        ("no-store", "no-store"),
    ],
)
def test_no_shared_cache_keeps_an_answer_that_signs_in(said: str | None, sent: str) -> None:
    fields = [] if said is None else [("cache-control", said), ("CDN-Cache-Control", "max-age=60")]
    answer = answer_with(fields, lambda session: session.start("alice"))
    assert values(answer, "cache-control") == [sent]
    assert values(answer, "cdn-cache-control") == []


def test_no_shared_cache_keeps_an_answer_that_takes_the_cookie_back() -> None:
    app = site(public_paths=["/about"])
    assert values(page(app, "/about"), "cache-control") == ["no-store"]


READS: dict[str, Callable[[Any], object]] = {
    "alive": lambda session: session.alive,
    "user_id": lambda session: session.user_id,
    "data": lambda session: session.data,
    "expires_in": lambda session: session.expires_in,
    "reference": lambda session: session.reference,
    "csrf_token": lambda session: session.csrf_token,
}


@pytest.mark.parametrize("read", READS)
def test_an_answer_that_depends_on_the_session_says_so(read: str) -> None:
    assert values(answer_with([], READS[read]), "vary") == ["Cookie"]
    fields = [("Vary", "Accept, COOKIE"), ("Cache-Control", "public")]
    answer = answer_with(fields, READS[read])
    assert values(answer, "vary") == ["Accept, COOKIE"]
    assert values(answer, "cache-control") == ["public"]  # for all who are not signed in


def test_an_answer_that_does_not_depend_on_it_says_nothing() -> None:
    answer = answer_with([], repr)
    assert sorted(name for name, _ in answer.headers) == ["Content-Type"]


# --- signing in and out


@pytest.mark.parametrize(
    ("kinds", "sent"), [((), []), (["cache", "storage"], ['"cache", "storage"']), (["*"], ['"*"'])]
)
def test_a_browser_is_told_to_drop_what_it_stored(kinds: Any, sent: list[str]) -> None:
    app = site(clear_site_data=kinds, public_paths=["/about"])
    browser = apps.Browser(app)
    assert values(browser.get("/sign-in"), "clear-site-data") == []
    assert values(browser.get("/sign-out"), "clear-site-data") == sent
    assert values(page(app, "/about"), "clear-site-data") == []


def test_an_application_that_says_so_itself_is_left_alone() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["mks_hardening.session"].start("alice")
        environ["mks_hardening.session"].end()
        start_response("200 OK", [("Content-Type", "text/plain"), ("clear-site-data", '"cache"')])
        return [b""]

    middleware = SessionTimeoutMiddleware(app, store=MemorySessionStore(), clear_site_data=["*"])
    assert values(call_wsgi(middleware), "clear-site-data") == ['"cache"']


@pytest.mark.parametrize("wrong", ["cache", ["cash"], [5]])
def test_kinds_of_site_data_are_checked(wrong: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        site(clear_site_data=wrong)
    assert caught.value.parameter == "clear_site_data"


@pytest.mark.parametrize("ended", ["idle", "unknown"])
def test_a_sign_in_by_json_over_a_dead_cookie_works_at_once(ended: str) -> None:
    clock = FrozenClock()
    app = SessionTimeoutMiddleware(
        CSRFMiddleware(apps.bare([]), allowed_origins=["https://www.example.com"]),
        store=MemorySessionStore(clock=clock),
        public_paths=["/sign-in"],
    )
    browser = apps.Browser(app)
    browser.get("/sign-in")
    cookie = DEAD if ended == "unknown" else f"{OURS}={browser.cookies[OURS]}"
    clock.advance(1800)
    fields = {"Cookie": cookie, "Content-Type": "application/json", "Origin": "https://www.example.com"}
    answer = call_wsgi(app, "/sign-in", method="POST", headers=fields, body=b"{}")
    assert (answer.status, answer.body) == (200, b"alice alice boss")
    (set_cookie,) = (value for value in values(answer, "set-cookie") if value.startswith(OURS))
    assert "Max-Age=0" not in set_cookie
