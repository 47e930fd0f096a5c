from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from mks_hardening import events
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._edge.session import session_lookup as _session_lookup
from mks_hardening._edge.session.cookie_header import CookieFilter, find_cookie, sets_cookie
from mks_hardening._edge.session.request_kind import wants_page
from mks_hardening._edge.session.session_rules import SessionLimits, check_session, encode_data
from mks_hardening._edge.session.steady_clock import SteadyClock, clock_of
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import SessionRecord, SessionStore
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import MemorySessionStore, SessionCookie, SessionManager, SessionTimeoutMiddleware
from wsgi_scripted import environ_of, serve
from wsgi_session_corpus import SwitchedStore

WSGI_ONLY = {"test_a_second_head_replaces_the_first"}
IN_THREAD = True  # its applications call the plain methods of their session

COOKIE = "__Host-mks-session"


def nothing(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]


class Site:
    """An application whose view is given with each request."""

    def __init__(self, **options: Any) -> None:
        self.clock = FrozenClock()
        self.store: Any = SwitchedStore(MemorySessionStore())
        self.middleware = SessionTimeoutMiddleware(self.app, store=self.store, clock=self.clock, **options)
        self.cookie: str | None = None
        self.view: Callable[[Any], Any] = lambda handle: None
        self.seen: Any = None

    def app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.seen = self.view(environ["mks_hardening.session"])
        return nothing(environ, start_response)

    def ask(self, view: Callable[[Any], Any] = lambda handle: None, **request: Any) -> Any:
        self.view = view
        headers = {"Cookie": self.cookie} if self.cookie else {}
        answer = call_wsgi(self.app, wrap=lambda _: self.middleware, headers=headers, **request)
        if set_cookie := answer.header("Set-Cookie"):
            self.cookie = None if "Max-Age=0" in set_cookie else set_cookie.partition(";")[0]
        return answer


# --- construction ---


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("idle_timeout", 0),
        ("idle_timeout", -1),
        ("idle_timeout", "30m"),
        ("idle_timeout", float("nan")),
        ("absolute_timeout", 0),
        ("absolute_timeout", float("inf")),
        ("warn_before", -1),
        ("write_interval", 901),
        ("write_interval", -1),
        ("outage_grace", -1),
        ("max_sessions", 0),
        ("max_sessions", True),
        ("max_sessions", "3"),
        ("strip_cookies", "session"),
        ("strip_cookies", ["a b"]),
        ("strip_cookies", [""]),
        ("public_paths", "/x"),
        ("passive_paths", ["x"]),
        ("sign_in_url", "login"),
        ("sign_in_url", "//evil.test/"),
        ("sign_in_url", "/\\evil.test"),
        ("sign_in_url", "http://sso.example.com/"),
        ("sign_in_url", "https://user@evil.test/"),
        ("sign_in_url", "/a\r\nSet-Cookie: x"),
        ("sign_in_url", "/ログイン"),
        ("sign_in_url", ""),
        ("sign_in_url", 5),
    ],
)
def test_parameters_are_checked(parameter: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SessionTimeoutMiddleware(nothing, store=MemorySessionStore(), **{parameter: value})
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    "options",
    [
        {"idle_timeout": timedelta(minutes=30), "absolute_timeout": timedelta(hours=8)},
        {"sign_in_url": "https://sso.example.com/in?next=1"},
        {"sign_in_url": "/in?a=b#c"},
        {"write_interval": 900},
        {"idle_timeout": 100000, "absolute_timeout": 10},
    ],
)
def test_what_is_allowed(options: dict[str, Any]) -> None:
    SessionTimeoutMiddleware(nothing, store=MemorySessionStore(), **options)


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("name", {"name": "a b"}),
        ("name", {"name": ""}),
        ("name", {"name": "a;b"}),
        ("name", {"name": "名"}),
        ("name", {"name": 5}),
        ("secure", {"name": "__Host-x", "secure": False}),
        ("secure", {"name": "__secure-x", "secure": False}),
        ("same_site", {"same_site": "lax"}),
        ("same_site", {"same_site": "None", "secure": False}),
    ],
)
def test_cookies_are_checked(parameter: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SessionCookie(**options)
    assert caught.value.parameter == parameter


def test_names_of_cookies() -> None:
    assert SessionCookie().name == COOKIE
    assert SessionCookie(secure=False).name == "mks-session"
    assert SessionCookie("sid").setting("v")[1] == "sid=v; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert repr(SessionCookie("sid")) == "SessionCookie('sid')"


# --- cookies ---


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("sid=abc", "abc"),
        ("a=1; sid=abc; b=2", "abc"),
        ("a=1;sid=abc;b=2", "abc"),
        ('sid="abc"', "abc"),
        ("sid= abc ", "abc"),
        ("sid=abc=", "abc="),
        ("sid=", None),
        ("sid", None),
        ("", None),
        ("xsid=abc", None),
        ("x.sid=abc", None),
        ("a=sid=abc", None),
        ("a= sid=abc", None),
        ("a=1 sid=abc", None),
        ("a=1;\t sid=abc", "abc"),
        (" sid=abc", "abc"),
        ("xsid=no; sid=abc", "abc"),
        ("a=sid=no; sid=abc", "abc"),
        ("sid=abc; sid=abc", "abc"),
        ("sid=; sid=abc", "abc"),
        ("SID=abc", None),
    ],
)
def test_finding_a_cookie(header: str, value: str | None) -> None:
    assert find_cookie(header, "sid=") == value


def test_a_name_that_comes_too_often_is_no_id() -> None:
    assert find_cookie("sid=abc; " * 15, "sid=") == "abc"
    assert "," in str(find_cookie("sid=abc; " * 17, "sid="))


def test_two_values_are_no_id() -> None:
    found = find_cookie("sid=abc; sid=abd", "sid=")
    assert found is not None
    assert "," in found


@pytest.mark.parametrize(
    ("header", "left"),
    [
        ("a=1; sid=2; b=3", "a=1; b=3"),
        ("a=1;sid=2", "a=1"),
        ("sid=2", ""),
        ("sid = 2; a", "a"),
        ("sid=1; sid=2; a=sid=3", "a=sid=3"),
        ("xsid=2;;", "xsid=2"),
        ("s.d=1; sid", "sid"),
        ("a=1; sxd=2; b", "a=1; sxd=2; b"),
    ],
)
def test_hiding_cookies(header: str, left: str) -> None:
    assert CookieFilter(["sid", "s.d"]).without(header) == left


def test_what_an_answer_sets() -> None:
    headers = [("set-cookie", " sid=1"), ("Set-Cookie", "xsession=2"), ("X", "session=3")]
    assert sets_cookie(headers, "sid")
    assert not sets_cookie(headers, "session")


# --- who wants a page ---


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html", True),
        ("TEXT/HTML", True),
        ("application/xhtml+xml", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", True),
        ("text/html;q=0.5, application/json;q=0.4", True),
        ("text/html;q=0.4, application/json;q=0.5", False),
        ("application/json, text/html", True),
        ("text/html;q=0", False),
        ("text/html;q=0.000", False),
        ("text/html;q=nonsense", False),
        ("text/html;q=1.5", True),
        ("text/html, application/json;q=1.5", True),
        ("text/html;q=0.05, application/json;q=0.04", True),
        ("text/html;q=0.1234", False),
        ("text/html;q=２", False),
        ("text/html;level=1;q=0.7", True),
        ("*/*", False),
        ("application/problem+json, text/html;q=0.9", False),
        ("", False),
        (",;,;q", False),
    ],
)
def test_who_wants_a_page(accept: str, html: bool) -> None:
    assert wants_page(accept, "") is html
    assert not wants_page(accept, "XMLHttpRequest")


# --- data ---


@pytest.mark.parametrize("wrong", [[1], "x", {1: 2}, {"a": object()}, {"a": b"x"}, {"a": {1, 2}}])
def test_data_must_be_json(wrong: Any) -> None:
    with pytest.raises(TypeError):
        encode_data(wrong)


@pytest.mark.parametrize(
    "wrong", [{"a": "x" * 4100}, {"a": "日" * 1400}, {"a": float("nan")}, {"a": float("inf")}]
)
def test_data_must_be_small_and_finite(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"4096|JSON"):
        encode_data(wrong)


def test_data_of_exactly_the_limit() -> None:
    assert len(encode_data({"a": "x" * (4096 - 8)})) == 4096
    with pytest.raises(ValueError, match="4096"):
        encode_data({"a": "x" * (4096 - 7)})


@pytest.mark.parametrize("stored", ["", "[]", "{", "null", "5"])
def test_damaged_data_is_empty(stored: str) -> None:
    site = Site()
    site.ask(lambda handle: handle.start("alice"))
    key = next(iter(site.store.store._records))
    site.store.update(key, version=0, data=stored)
    site.ask(lambda handle: dict(handle.data))
    assert site.seen == {}


def test_data_is_counted_in_bytes_of_utf8() -> None:
    assert encode_data({"a": "日" * 1300}) == '{"a":"' + "日" * 1300 + '"}'


# --- the handle ---


@pytest.mark.parametrize("user", ["", 5, None, b"alice"])
def test_user_ids_are_text(user: Any) -> None:
    site = Site()
    with pytest.raises(TypeError):
        site.ask(lambda handle: handle.start(user))


def test_data_cannot_be_changed_by_the_back_door() -> None:
    site = Site()

    def view(handle: Any) -> None:
        handle.start("alice", data={"a": 1})
        with pytest.raises(TypeError):
            handle.data["a"] = 2
        with pytest.raises(AttributeError):
            handle.data = {}

    site.ask(view)


def test_ids_and_csrf_tokens_change_with_rotation_only() -> None:
    site = Site()
    cookies, tokens, references = [], [], []
    site.ask(lambda handle: handle.start("alice"))
    for view in (lambda handle: None, lambda handle: handle.rotate(), lambda handle: None):
        site.ask(lambda handle, view=view: (view(handle), handle.csrf_token, handle.reference))
        tokens.append(site.seen[1])
        references.append(site.seen[2])
        cookies.append(site.cookie)
    assert tokens[0] != tokens[1] == tokens[2]
    assert references[0] != references[1] == references[2]
    assert cookies[0] != cookies[1] == cookies[2]
    assert all(len(token) == 43 for token in tokens)
    assert site.cookie is not None
    assert not {site.cookie.partition("=")[2]} & {*tokens, *references}


def test_without_a_session_there_is_no_secret() -> None:
    site = Site()
    site.ask(
        lambda handle: (handle.csrf_token, handle.reference, handle.user_id, dict(handle.data), repr(handle))
    )
    assert site.seen == (None, None, None, {}, "SessionHandle(alive=False)")
    site.ask(lambda handle: (handle.end_others(), handle.update_data(a=1), handle.end(), handle.rotate()))
    assert site.seen == (0, False, False, False)


def test_the_reference_is_the_key_of_the_manager() -> None:
    site = Site()
    site.ask(lambda handle: (handle.start("alice"), handle.reference))
    manager = SessionManager(site.store, clock=site.clock)
    (record,) = manager.sessions("alice")
    assert record.key == site.seen[1]
    assert manager.end(record.key)
    assert not manager.end(record)
    assert site.ask().status == 401


def test_the_id_cannot_change_after_the_head() -> None:
    handles: list[Any] = []

    def late(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        handles.append(environ["mks_hardening.session"])
        yield b""

    serve(SessionTimeoutMiddleware(late, store=MemorySessionStore()), environ_of({}))
    for change in (lambda: handles[0].start("alice"), handles[0].rotate):
        with pytest.raises(RuntimeError, match="start_response"):
            change()


def test_a_late_application_sets_its_cookie_too() -> None:
    def late(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        environ["mks_hardening.session"].start("alice")
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"hello"

    answer = call_wsgi(late, wrap=lambda app: SessionTimeoutMiddleware(app, store=MemorySessionStore()))
    assert str(answer.header("Set-Cookie")).startswith(COOKIE)
    assert answer.body == b"hello"


def test_a_late_body_need_not_have_a_close() -> None:
    class Plain:
        def __init__(self, start_response: Callable[..., Any]) -> None:
            self.chunks = [b"hello"]
            self.start_response = start_response

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> bytes:
            if not self.chunks:
                raise StopIteration
            self.start_response("200 OK", [("Content-Type", "text/plain")])
            return self.chunks.pop()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Plain:
        return Plain(start_response)

    assert (
        call_wsgi(app, wrap=lambda app: SessionTimeoutMiddleware(app, store=MemorySessionStore())).body
        == b"hello"
    )
    assert serve(SessionTimeoutMiddleware(app, store=MemorySessionStore()), environ_of({})).body == b"hello"


class Late:
    """A body that asks its session for something before it starts, and counts how often it is closed."""

    def __init__(self, environ: dict[str, Any], start_response: Callable[..., Any], *, at_iter: bool) -> None:
        self.handle = environ["mks_hardening.session"]
        self.start_response = start_response
        self.at_iter = at_iter
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        if self.at_iter:
            self.handle.start("alice")
        return self

    def __next__(self) -> bytes:
        self.handle.start("alice")
        raise StopIteration

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("at_iter", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_late_application_that_cannot_sign_in_is_503(at_iter: bool, method: str) -> None:
    bodies: list[Late] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Late:
        bodies.append(Late(environ, start_response, at_iter=at_iter))
        return bodies[-1]

    store: Any = SwitchedStore(MemorySessionStore())
    store.away = True
    served = serve(SessionTimeoutMiddleware(app, store=store), environ_of({"method": method}))
    assert (served.status, dict(served.headers)["Retry-After"]) == ("503 Service Unavailable", "2")
    assert bool(served.body) == (method == "GET")
    assert bodies[0].closed == 1


def test_an_error_after_the_head_goes_on_to_the_server() -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"abc"
        raise BackendUnavailableError("store", "refused")

    served = serve(SessionTimeoutMiddleware(app, store=MemorySessionStore()), environ_of({}))
    assert (served.raised, served.body) == ("BackendUnavailableError", b"abc")


def test_an_error_after_the_head_but_before_a_byte_is_503() -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        raise BackendUnavailableError("store", "refused", retry_after=7.2)

    answer = call_wsgi(app, wrap=lambda app: SessionTimeoutMiddleware(app, store=MemorySessionStore()))
    assert (answer.status, answer.header("Retry-After")) == (503, "8")
    assert json.loads(answer.body)["status"] == 503


@pytest.mark.parametrize(("status", "sent"), [("500 Oops", 503), ("502 Bad Gateway", 502), ("200 OK", 200)])
def test_a_500_that_a_framework_made_of_an_outage_is_503(status: str, sent: int) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        with pytest.raises(BackendUnavailableError):
            environ["mks_hardening.session"].start("alice")
        start_response(status, [("Content-Type", "text/plain")])
        return [b"handled"]

    store: Any = SwitchedStore(MemorySessionStore())
    store.away = True
    answer = call_wsgi(app, wrap=lambda app: SessionTimeoutMiddleware(app, store=store))
    assert answer.status == sent
    assert answer.header("Retry-After") == ("2" if sent == 503 else None)
    assert answer.header("Set-Cookie") is None


def test_data_that_everybody_changes_gives_up_in_the_end() -> None:
    site = Site()
    site.ask(lambda handle: handle.start("alice"))
    store = site.store.store
    update = store.update

    class Busy:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def update(self, key: str, /, *, version: int, data: str) -> bool:
            update(key, version=version, data=json.dumps({"turn": version}))
            return bool(update(key, version=version, data=data))

    site.store.store = Busy()
    answer = site.ask(lambda handle: handle.update_data(mine=1))
    assert answer.status == 503
    site.ask(lambda handle: dict(handle.data))
    assert site.seen == {"turn": 4}


def test_changes_in_one_request_know_of_each_other() -> None:
    site = Site()
    site.ask(lambda handle: handle.start("alice"))
    site.ask(lambda handle: [handle.update_data(a=1), handle.update_data(b=2), dict(handle.data)])
    assert site.seen == [True, True, {"a": 1, "b": 2}]
    assert site.store.calls.count("update") == 2


@pytest.mark.parametrize(
    ("passed", "reason", "detail"),
    [
        (1800, "idle", "The session expired after a period of inactivity."),
        (28800, "absolute", "The session reached its maximum duration."),
    ],
)
def test_a_refusal_is_a_problem_document(passed: float, reason: str, detail: str) -> None:
    site = Site(idle_timeout=1800 if reason == "idle" else 90_000)
    site.ask(lambda handle: handle.start("alice"))
    site.clock.advance(passed)
    problem = json.loads(site.ask().body)
    assert problem.pop("detail") == detail
    assert problem.pop("setting") == f"MKS_SESSION_{reason.upper()}_TIMEOUT, MKS_PUBLIC_PATHS"
    assert problem == {"type": "about:blank", "title": "Unauthorized", "status": 401, "reason": reason}


def test_a_refresh_confirms_a_session_for_an_outage() -> None:
    site = Site(outage_grace=60)
    site.ask(lambda handle: handle.start("alice"))
    handles: list[Any] = []
    site.ask(handles.append)
    site.clock.advance(50)
    handles[0].refresh()
    site.store.away = True
    site.clock.advance(50)
    assert site.ask().status == 200
    site.clock.advance(10)
    assert site.ask().status == 503


def test_a_session_that_runs_out_during_its_request_has_no_seconds_left() -> None:
    site = Site()
    site.ask(lambda handle: handle.start("alice"))
    answer = site.ask(lambda handle: (site.clock.advance(1801), handle.expires_in)[1])
    assert site.seen == 0.0
    assert answer.header("X-Session-Expires-In") == "0"


# --- the keeper ---


def test_a_session_that_ends_between_look_up_and_record_is_dead() -> None:
    site = Site()
    site.ask(lambda handle: handle.start("alice"))
    site.clock.advance(60)
    store = site.store.store

    class Ending:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def load(self, key: str, /) -> SessionRecord | None:
            record = store.load(key)
            store.end(key, reason="revoked")
            return record  # type: ignore[no-any-return]

    site.store.store = Ending()
    answer = site.ask()
    assert (answer.status, answer.header("X-Session-Timeout-Reason")) == (401, "revoked")


def test_a_record_that_fails_is_made_up_for() -> None:
    site = Site(idle_timeout=1000, write_interval=10)
    site.ask(lambda handle: handle.start("alice"))
    store, touch = site.store.store, site.store.store.touch
    away = [True]

    class NoWrites:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def touch(self, key: str, /, **times: float) -> bool:
            if away[0]:
                raise BackendUnavailableError("store", "readonly")
            return bool(touch(key, **times))

    site.store.store = NoWrites()
    for _ in range(4):
        site.clock.advance(900)
        assert site.ask().status == 200
    away[0] = False
    site.clock.advance(900)
    assert site.ask().status == 200
    (record,) = store.sessions("alice", now=site.clock.time())
    assert record.seen_at == site.clock.time()


def test_an_end_that_cannot_be_recorded_is_an_end() -> None:
    site = Site()
    site.ask(lambda handle: handle.start("alice"))
    site.clock.advance(1801)
    store = site.store.store

    class NoEnds:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def end(self, key: str, /, *, reason: str) -> bool:
            raise BackendUnavailableError("store", "readonly")

    site.store.store = NoEnds()
    assert site.ask().header("X-Session-Timeout-Reason") == "idle"


def test_the_memory_of_sessions_seen_lately_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_session_lookup, "_MOST_RECENT", 3)
    site = Site()
    cookies = []
    for number in range(5):
        site.cookie = None
        site.ask(lambda handle, number=number: handle.start(f"user{number}"))
        cookies.append(site.cookie)
    assert len(site.middleware._gate.lookup._recent) == 3
    site.cookie = cookies[0]
    assert site.ask().status == 200
    assert len(site.middleware._gate.lookup._recent) == 3
    site.store.away = True
    assert site.ask().status == 200
    site.cookie = cookies[1]
    assert site.ask().status == 503


def test_observers_hear_of_everything() -> None:
    heard: list[Any] = []
    events.add_observer(heard.append)
    try:
        site = Site(max_sessions=1)
        site.ask(lambda handle: handle.start("alice"))
        first = site.cookie
        site.cookie = None
        site.ask(lambda handle: handle.start("alice"))
        site.ask(lambda handle: handle.rotate())
        site.ask(lambda handle: handle.end())
        site.cookie = first
        site.ask()
        manager = SessionManager(site.store, clock=site.clock)
        site.ask(lambda handle: handle.start("bob"))
        manager.end_user("bob")
        manager.end_user("bob")
        site.cookie = None
        site.ask(lambda handle: handle.start("dan"))
        (record,) = manager.sessions("dan")
        manager.end(record)
        manager.end(record)
        site.cookie = None
        site.ask(lambda handle: (handle.start("carol"), handle.end_others()))
    finally:
        events.remove_observer(heard.append)
    assert [(e.change, e.reason, e.user_id) for e in heard] == [
        ("started", "", "alice"),
        ("ended", "revoked", "alice"),
        ("started", "", "alice"),
        ("rotated", "", "alice"),
        ("ended", "revoked", "alice"),
        ("refused", "revoked", "alice"),
        ("started", "", "bob"),
        ("ended", "revoked", "bob"),
        ("started", "", "dan"),
        ("ended", "revoked", "dan"),
        ("started", "", "carol"),
    ]


def test_observers_hear_of_others_that_end() -> None:
    site = Site()
    site.ask(lambda handle: handle.start("carol"))
    site.cookie = None
    site.clock.advance(1)
    site.ask(lambda handle: handle.start("carol"))
    heard: list[Any] = []
    events.add_observer(heard.append)
    try:
        site.ask(lambda handle: (handle.end_others(), handle.end_others()))
    finally:
        events.remove_observer(heard.append)
    assert [(e.change, e.reason, e.user_id) for e in heard] == [("ended", "revoked", "carol")]


def test_records_and_stores_satisfy_the_protocol() -> None:
    store: SessionStore = MemorySessionStore()
    assert store.ping()
    record = SessionRecord("k" * 64, "alice", 0.0, 0.0, 1.0, '{"secret":"hunter2"}')
    assert "hunter2" not in repr(record)
    assert "alice" not in repr(record)


# --- the clock ---


def test_the_clock_goes_on_when_the_wall_clock_is_set_back() -> None:
    clock = FrozenClock(1000.0)
    steady = SteadyClock(clock)
    clock.advance(10)
    assert steady.time() == 1010.0
    clock.step_wall(-500)
    assert steady.time() == pytest.approx(1010.0)
    clock.advance(5)
    assert steady.time() == pytest.approx(1015.0)
    clock.step_wall(2000)
    assert steady.time() == clock.time() == 2515.0
    clock.step_wall(-1)
    assert steady.time() == pytest.approx(2515.0)


def test_rounding_is_no_step() -> None:
    clock = FrozenClock(1000.0)
    steady = SteadyClock(clock)
    clock.step_wall(-0.0005)
    assert steady.time() == clock.time()


def test_a_manager_reads_the_time_of_the_store_as_the_middleware_does() -> None:
    clock = FrozenClock(1000.0)
    store = MemorySessionStore(clock=clock)
    middleware = SessionTimeoutMiddleware(
        lambda environ, start: (environ["mks_hardening.session"].start("alice"), nothing(environ, start))[1],
        store=store,
    )
    manager = SessionManager(store)
    call_wsgi(nothing, wrap=lambda _: middleware)
    assert len(manager.sessions("alice")) == 1
    clock.advance(1800)
    assert list(manager.sessions("alice")) == []


def test_whose_clock_counts() -> None:
    ours, stores = FrozenClock(1.0), FrozenClock(3.0)
    store = MemorySessionStore(clock=stores)
    assert clock_of(store, None) is stores
    assert clock_of(store, ours) is ours
    assert store.clock is stores  # a clock that is given to one user of a store is not lent to the others
    assert clock_of(MemorySessionStore(), None) is SYSTEM_CLOCK
    assert clock_of(object(), None) is SYSTEM_CLOCK  # type: ignore[arg-type] # a store of somebody else


@pytest.mark.parametrize("signs_in", [True, False])
def test_a_second_head_replaces_the_first(signs_in: bool) -> None:
    heads: list[Any] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if signs_in:
            environ["mks_hardening.session"].start("alice")
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ZeroDivisionError  # noqa: TRY301 - exc_info is wanted
        except ZeroDivisionError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return [b""]

    def start_response(*arguments: Any) -> Callable[[bytes], None]:
        heads.append(arguments)
        return lambda data: None

    SessionTimeoutMiddleware(app, store=MemorySessionStore())(environ_of({}), start_response)
    (head,) = heads  # the server hears of one: gunicorn would append the second to the first
    assert (head[0], head[2][0]) == ("500 Oops", ZeroDivisionError)
    assert [name for name, _ in head[1]].count("Set-Cookie") == int(signs_in)


def test_of_two_limits_reached_at_once_the_absolute_one_is_told() -> None:
    record = SessionRecord("key", "u", 0.0, 0.0, 10.0, "")
    assert check_session(record, 0.0, 10.0, SessionLimits(10.0, 10.0)) == ("absolute", 10.0)
    assert check_session(record, 0.0, 10.0, SessionLimits(10.0, 10.1)) == ("idle", 10.0)
