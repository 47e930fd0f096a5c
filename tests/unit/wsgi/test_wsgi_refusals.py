"""Refusals of every wrapper: in the application's own words, and in the request record."""

from __future__ import annotations

import ast
import inspect
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mks_hardening import wsgi
from mks_hardening._core import function_errors
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._edge.https import https_rules as _https_rules
from mks_hardening._edge.session import refusal_texts as _refusals
from mks_hardening.contrib import _limited_views
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import ConcurrencyLimiter, RateLimiter, Slot
from mks_hardening.testing import FrozenClock, WSGIResponse, call_wsgi
from mks_hardening.wsgi import (
    ClientRules,
    ClientRulesMiddleware,
    ConcurrencyMiddleware,
    ConcurrencyRule,
    CORSMiddleware,
    CORSPolicy,
    CSRFMiddleware,
    CustomResponse,
    HealthMiddleware,
    HTTPSRedirectMiddleware,
    MaintenanceMiddleware,
    MaintenanceSwitch,
    MemorySessionStore,
    RateLimitMiddleware,
    RateLimitRule,
    Refusal,
    RequestLimits,
    RequestLimitsMiddleware,
    RequestLoggingMiddleware,
    RequestTimeoutMiddleware,
    SessionTimeoutMiddleware,
    request_deadline,
)
from testbed import package_map

WSGI_ONLY = {
    "test_a_view_that_counts_by_itself_says_the_same",  # of an adapter for WSGI
    "test_every_refusal_that_the_code_can_make_is_walked",
    "test_steps_run_from_the_inside_out_in_one_call_on_one_copy",
    "test_a_wrapper_between_may_call_the_application_twice",
}

Build = Callable[..., Any]
HELD: list[Slot] = []
COOKIE: list[str] = []
"""The cookie of the session that ``_ended`` has made, for the next request."""


def application(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"page"]


def _https(**options: Any) -> Any:
    return HTTPSRedirectMiddleware(
        application, allowed_hosts=["localhost"], api_paths=["/api/"], force_https=True, **options
    )


def _csrf(**options: Any) -> Any:
    return CSRFMiddleware(application, **options)


class _RaisingLimiter:
    def hit(self, group: str, key: str, *, cost: int = 1) -> Any:
        raise LookupError


def _uncounted(**options: Any) -> Any:
    return RateLimitMiddleware(
        application, limiter=_RaisingLimiter(), rules=[RateLimitRule("sign-in")], **options
    )


def _limit(**options: Any) -> Any:
    limiter = RateLimiter({"sign-in": "1 per minute"})
    limiter.hit("sign-in", "127.0.0.1")
    return RateLimitMiddleware(application, limiter=limiter, rules=[RateLimitRule("sign-in")], **options)


def _health(**options: Any) -> Any:
    return HealthMiddleware(application, required={}, **options)


def _session(**options: Any) -> Any:
    return SessionTimeoutMiddleware(application, store=MemorySessionStore(), **options)


def _ended(after: float, **options: Any) -> Any:
    """A session that has been left alone for some seconds, asked for once more."""
    clock = FrozenClock()
    app = SessionTimeoutMiddleware(application, store=MemorySessionStore(), clock=clock, **options)
    session = app.open(None)
    session.start("u")
    COOKIE.append(f"__Host-mks-session={session.session_id}")
    clock.advance(after)
    return app


def _idle(**options: Any) -> Any:
    return _ended(1900, **options)


def _absolute(**options: Any) -> Any:
    return _ended(30_000, idle_timeout=30_000, absolute_timeout=30_000, **options)


def _without_store(**options: Any) -> Any:
    class Away(MemorySessionStore):
        def load(self, key: str, /) -> Any:
            raise BackendUnavailableError("sessions", "refused", operation="load", sent=False)

    return SessionTimeoutMiddleware(application, store=Away(), **options)


def _cors(**options: Any) -> Any:
    return CORSMiddleware(application, policy=CORSPolicy("https://app.test"), **options)


def _sizes(**options: Any) -> Any:
    limits = RequestLimits(
        body=5,
        header_count=6,
        header_bytes=400,
        field_bytes=200,
        target_bytes=20,
        content_types=["text/plain"],
    )
    return RequestLimitsMiddleware(application, limits=limits, **options)


def _strict(**options: Any) -> Any:
    limits = RequestLimits(methods=["GET", "POST"], plain_paths=True)
    return RequestLimitsMiddleware(application, limits=limits, **options)


def _maintenance(**options: Any) -> Any:
    switch = MaintenanceSwitch(__file__)  # a file that exists
    return MaintenanceMiddleware(application, switch=switch, **options)


def _denied(**options: Any) -> Any:
    return ClientRulesMiddleware(application, rules=ClientRules(deny=["127.0.0.0/8"]), **options)


def _late(**options: Any) -> Any:
    clock = FrozenClock()

    def application(environ: Any, _start_response: Any) -> list[bytes]:
        deadline = request_deadline(environ)
        assert deadline is not None
        clock.advance(31)
        deadline.timeout()
        raise AssertionError("the deadline has passed")

    return RequestTimeoutMiddleware(application, clock=clock, **options)


def _crowded(**options: Any) -> Any:
    limiter = ConcurrencyLimiter({"all": 1})
    at_once = {} if ConcurrencyMiddleware is wsgi.ConcurrencyMiddleware else {"wait": 0}
    # The key of a limit without one.
    HELD[:] = [limiter.acquire("all", "all")]
    rules = [ConcurrencyRule("all")]
    return ConcurrencyMiddleware(application, limiter=limiter, rules=rules, **at_once, **options)


PREFLIGHT = {"Origin": "https://evil.test", "Access-Control-Request-Method": "PUT"}
DEAD = {"headers": {"Cookie": "__Host-mks-session=" + "A" * 43}}
POST = {"method": "POST"}
CASES: list[tuple[Build, dict[str, Any], tuple[str, str, int, str]]] = [
    (_https, {"headers": {"Host": "evil.test"}}, ("https", "host", 400, "evil.test")),
    (_https, {"environ": {"HTTP_HOST": ""}}, ("https", "host", 400, "no host")),
    (_https, {"path": "/api/x"}, ("https", "plain", 403, "http to /api/x")),
    (
        _csrf,
        {"method": "POST", "headers": {"Origin": "http://evil.test"}},
        ("csrf", "origin", 403, "http://evil.test"),
    ),
    (
        _csrf,
        {"method": "POST", "headers": {"Origin": "https://taro:hunter2@evil.test"}},
        ("csrf", "origin", 403, "https://[REDACTED]@evil.test"),
    ),
    (
        _csrf,
        {"method": "POST", "headers": {"Origin": "https://hunter2@x@evil.test"}},
        ("csrf", "origin", 403, "https://[REDACTED]@evil.test"),
    ),
    (
        _cors,
        {"method": "OPTIONS", "headers": {**PREFLIGHT, "Origin": "https://taro:hunter2@evil.test"}},
        ("cors", "origin", 403, "https://[REDACTED]@evil.test"),
    ),
    (
        _https,
        {"headers": {"Host": "taro:hunter2@evil.test"}},
        ("https", "host", 400, "[REDACTED]@evil.test"),
    ),
    (_https, {"path": "/api/a:b/@me"}, ("https", "plain", 403, "http to /api/a:b/@me")),
    (_csrf, {**POST, "headers": {"Origin": ""}}, ("csrf", "origin", 403, "an empty field")),
    (
        _csrf,
        {**POST, "headers": {"Sec-Fetch-Site": "cross-site"}},
        ("csrf", "fetch_site", 403, "cross-site"),
    ),
    (
        _csrf,
        {"method": "POST", "headers": {"Referer": "http://evil.test/?token=hunter2"}},
        ("csrf", "referer", 403, "http://evil.test"),
    ),
    (_csrf, {"method": "POST", "headers": {"Cookie": "a=b"}}, ("csrf", "token", 403, "no valid token")),
    (_limit, {}, ("rate_limit", "sign-in", 429, "1 in 60 s")),
    (_uncounted, {}, ("rate_limit", "limiter", 503, "limiter is unavailable (error)")),
    (_health, {"path": "/livez", "method": "POST"}, ("health", "method", 405, "POST")),
    (_session, DEAD, ("session", "revoked", 401, "unknown id")),
    (_idle, {}, ("session", "idle", 401, "begun 1900 s ago, last seen 1900 s ago")),
    (_absolute, {}, ("session", "absolute", 401, "begun 30000 s ago")),
    (_cors, {"method": "OPTIONS", "headers": PREFLIGHT}, ("cors", "origin", 403, "https://evil.test")),
    (_sizes, {**POST, "body": b"123456"}, ("request_limits", "body", 413, "6 bytes declared")),
    (_sizes, {"path": "/" + "x" * 20}, ("request_limits", "target_bytes", 414, "21 bytes")),
    (
        _sizes,
        {"headers": {f"X-{number}": "" for number in range(7)}},
        ("request_limits", "header_count", 431, "fields"),
    ),
    (_sizes, {"headers": {"X-Long": "x" * 200}}, ("request_limits", "field_bytes", 431, "206 bytes")),
    (
        _sizes,
        {"headers": {f"X-{number}": "x" * 150 for number in range(3)}},
        ("request_limits", "header_bytes", 431, "bytes"),
    ),
    (
        _sizes,
        {**POST, "body": b"123", "headers": {"Transfer-Encoding": "chunked"}},
        ("request_limits", "content_length", 400, "both"),
    ),
    (
        _sizes,
        {**POST, "body": b"{}", "headers": {"Content-Type": "application/json"}},
        ("request_limits", "content_types", 415, "application/json"),
    ),
    (_strict, {"method": "DELETE"}, ("request_limits", "methods", 405, "DELETE")),
    (_strict, {"path": "/x//y"}, ("request_limits", "path", 400, "/x//y")),
    (_late, {}, ("request_timeout", "deadline", 504, "30 s")),
    (_crowded, {}, ("concurrency", "all", 503, "no slot of all")),
    (_denied, {}, ("client_rules", "denied", 403, "127.0.0.")),
    (_maintenance, {}, ("maintenance", "maintenance", 503, "test_wsgi_refusals.py")),
    (_without_store, DEAD, ("session", "store", 503, "sessions is unavailable (refused) during load")),
]
IDS = ["-".join(case[2][:2]) for case in CASES]


def ask(app: Any, path: str = "/", **how: Any) -> WSGIResponse:
    if COOKIE:
        how["headers"] = {"Cookie": COOKIE.pop()}
    return call_wsgi(app, path, **how)


@pytest.mark.parametrize(("build", "how", "expected"), CASES, ids=IDS)
def test_the_hook_hears_what_was_refused_and_words_the_answer(
    build: Build, how: dict[str, Any], expected: tuple[str, str, int, str]
) -> None:
    heard: list[tuple[Any, Refusal]] = []

    def words(environ: dict[str, Any], refusal: Refusal) -> CustomResponse:
        heard.append((environ.get("PATH_INFO") or environ["path"], refusal))
        return CustomResponse(body="お断りします", headers=[("Content-Language", "ja")])

    plain, answer = ask(build(), **how), ask(build(on_refusal=words), **how)
    [(path, refusal)] = heard
    assert (refusal.wrapper, refusal.rule, refusal.status) == expected[:3]
    assert expected[3] in refusal.seen
    assert path == how.get("path", "/")
    assert answer.status == plain.status == expected[2]
    assert answer.body.decode() == "お断りします"
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
    assert answer.header("Content-Length") == str(len(answer.body))
    assert answer.header("Content-Language") == "ja"
    assert answer.header("Cache-Control") == "no-store"
    kept = {
        "Retry-After",
        "Allow",
        "Set-Cookie",
        "WWW-Authenticate",
        "X-Session-Timeout-Reason",
        "X-RateLimit-Limit",
        "RateLimit",
    }
    assert [field for field in plain.headers if field[0] in kept] == [
        field for field in answer.headers if field[0] in kept
    ]


@pytest.mark.parametrize(("build", "how", "expected"), CASES, ids=IDS)
def test_the_record_names_rule_and_value(
    build: Build, how: dict[str, Any], expected: tuple[str, str, int, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        ask(RequestLoggingMiddleware(build()), **how)
    [record] = [one for one in caplog.records if one.name == "mks_hardening.request"]
    said = vars(record)
    assert (said["refused_by"], said["refused_rule"], said["status"]) == expected[:3]
    assert expected[3] in said["refused_value"]
    assert "hunter2" not in str(said)
    assert f"refused by the {expected[0]} rule {expected[1]}" in record.getMessage()


def test_an_ended_session_says_how_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = MemorySessionStore(), FrozenClock()
    app = SessionTimeoutMiddleware(application, store=store, clock=clock)
    session = app.open(None)
    session.start("u")
    cookie = f"__Host-mks-session={session.session_id}"
    clock.advance(60)
    app.open(cookie).end()
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        ask(RequestLoggingMiddleware(app), headers={"Cookie": cookie})
    assert vars(caplog.records[0])["refused_value"] == "begun 60 s ago, last seen 60 s ago, revoked before"


def test_a_view_that_counts_by_itself_says_the_same(caplog: pytest.LogCaptureFixture) -> None:
    limiter = RateLimiter({"view": "1 per minute"})

    def view(environ: Any, start_response: Any) -> Any:
        assert not _limited_views.count(limiter, environ, "view", "k", cost=2).allowed
        return application(environ, start_response)

    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        ask(RequestLoggingMiddleware(view))
    said = vars(caplog.records[0])
    assert (said["refused_by"], said["refused_rule"], said["refused_value"]) == (
        "rate_limit",
        "view",
        "1 of 1 left in 60 s",
    )


def _named_in_code() -> tuple[set[str], set[str]]:
    """The wrappers and rules that the code names where it makes a refusal."""
    wrappers, rules = set[str](), set[str]()
    files = [
        file for file in package_map.source_files() if {"_edge", "wsgi", "_limited_views.py"} & {*file.parts}
    ]
    for file in files:
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            match call:
                case ast.Call(func=ast.Name("Refuser"), args=[ast.Constant(str(name)), *_]):
                    wrappers.add(name)
                case ast.Call(
                    func=ast.Name("RefusalResponse" | "OriginError"), args=[ast.Constant(str(name)), *_]
                ):
                    rules.add(name)
                case ast.Call(func=ast.Name("RefusalResponse"), args=[ast.Name("rule"), *_]):
                    rules |= {"body", "target_bytes", "header_count", "field_bytes", "header_bytes"}
                case ast.Call(func=ast.Name("RefusalResponse"), args=[ast.Name(name), *_]):
                    rules.add(getattr(_https_rules, name))
                case ast.Call(func=ast.Name("Refusal"), keywords=options):
                    named = {each.arg: each.value for each in options}
                    wrappers |= {each.value for each in (named["wrapper"],) if isinstance(each, ast.Constant)}
                    rules |= {each.value for each in (named["rule"],) if isinstance(each, ast.Constant)}
                case ast.Call(func=ast.Name(("Refuser" | "RefusalResponse" | "OriginError") as made)):
                    raise AssertionError(f"{file.name}:{call.lineno}: {made} without a name that can be read")
    return wrappers, rules


def test_every_refusal_that_the_code_can_make_is_walked() -> None:
    wrappers, rules = _named_in_code()
    walked = {(wrapper, rule) for *_, (wrapper, rule, _, _) in CASES}
    # The record words an error of the application, which it reports as such; a limit is named by its group; what an
    # adapter answers for a view that met an outage is walked in the adapter's tests.
    assert wrappers - {wrapper for wrapper, _ in walked} == {"record", "application"}
    # A ban: tests/unit/_edge/test_edge_client_rules.py. A slot is named by its limit.
    assert rules - {rule for _, rule in walked} == {"error", "limit", "backend", "banned", "slots"}
    assert {rule for wrapper, rule in walked if wrapper == "session"} == {*_refusals.REASONS}
    assert all(seen for *_, (_, _, _, seen) in CASES)


def test_a_request_that_passes_is_recorded_without(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        ask(RequestLoggingMiddleware(_csrf()))
    assert not [name for name in vars(caplog.records[0]) if name.startswith("refused")]


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (CustomResponse(body=b"raw", content_type="text/x", status=404), 404, b"raw"),
        (CustomResponse(body="x", status=303, headers=[("Location", "/sign-in")]), 303, b"x"),
        (CustomResponse(body="x", headers=[("cache-control", "private")]), 403, b"x"),
        (None, 403, None),
    ],
)
def test_own_answers_may_differ(answer: CustomResponse | None, status: int, body: bytes | None) -> None:
    got = ask(_csrf(on_refusal=lambda _e, _r: answer), method="POST", headers={"Origin": "http://evil.test"})
    assert got.status == status
    assert got.body == body or body is None
    control = got.header("Cache-Control")
    assert control == ("private" if answer and dict(answer.headers).get("cache-control") else "no-store")


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"headers": [("X-A", "1\r\nSet-Cookie: a=b")]}, "headers"),
        ({"headers": [("X-A\r\n", "1")]}, "headers"),
        ({"headers": [("X A", "1")]}, "headers"),
        ({"headers": [("X-A", "\x00")]}, "headers"),
        ({"headers": [("X-A", " 1")]}, "headers"),
        ({"headers": [("X-A", "お")]}, "headers"),
        ({"headers": [("X-A", 1)]}, "headers"),
        ({"headers": [("X-A",)]}, "headers"),
        ({"headers": [("X-A", "1", "2")]}, "headers"),
        ({"headers": [("content-length", "3")]}, "headers"),
        ({"headers": [("Content-Type", "text/plain")]}, "headers"),
        ({"headers": [("Transfer-Encoding", "chunked")]}, "headers"),
        ({"headers": [("Connection", "close")]}, "headers"),
        ({"content_type": "text/html\n"}, "content_type"),
        ({"content_type": "お"}, "content_type"),
        ({"status": 204}, "body"),
        ({"body": "\ud800"}, "body"),
        ({"status": 304}, "body"),
        ({"status": 205}, "body"),
    ],
)
def test_own_answers_are_responses(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        CustomResponse(**{"body": "x", **options})
    assert refused.value.parameter == parameter


def test_a_field_of_an_own_answer_replaces_that_of_the_refusal() -> None:
    given = [("retry-after", "99"), ("Set-Cookie", "a=b"), ("Vary", "Accept-Language")]
    limiter = RateLimiter({"all": "1 per hour"})
    app = RateLimitMiddleware(
        application,
        limiter=limiter,
        rules=[RateLimitRule("all")],
        on_refusal=lambda _e, _r: CustomResponse(body="x", headers=given),
    )
    ask(app)
    got = ask(app)
    assert got.status == 429
    assert [value for name, value in got.headers if name.lower() == "retry-after"] == ["99"]


def test_own_answers_without_a_body_have_no_length() -> None:
    answer = CustomResponse(body="", status=204, headers=[("X-Name", "caf\xe9 au lait")])
    got = ask(_csrf(on_refusal=lambda _e, _r: answer), method="POST", headers={"Origin": "http://evil.test"})
    assert (got.status, got.body, got.header("Content-Length"), got.header("Content-Type")) == (
        204,
        b"",
        None,
        None,
    )
    assert got.header("X-Name") == "caf\xe9 au lait"


@pytest.mark.parametrize("broken", [ZeroDivisionError, "no answer"])
def test_a_hook_that_fails_lets_nothing_pass(broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    function_errors._silent_until.clear()

    def words(_environ: Any, _refusal: Refusal) -> Any:
        if isinstance(broken, str):
            return broken
        raise broken

    got = ask(_csrf(on_refusal=words), method="POST", headers={"Origin": "http://evil.test"})
    assert (got.status, got.header("Content-Type")) == (403, "application/problem+json")
    assert "csrf origin is refused with the default response" in caplog.text
    assert len(caplog.records) == 1
    ask(_csrf(on_refusal=words), method="POST", headers={"Origin": "http://evil.test"})
    assert len(caplog.records) == 1, "once a minute"


def test_head_gets_no_body() -> None:
    app = _https(on_refusal=lambda _e, _r: CustomResponse(body="x"))
    assert ask(app, method="HEAD", headers={"Host": "evil.test"}).body == b""


@pytest.mark.parametrize(
    "build", [_https, _csrf, _limit, _health, _session], ids=lambda build: build.__name__
)
def test_the_hook_must_be_callable(build: Build) -> None:
    with pytest.raises(ConfigurationError, match="on_refusal must be callable"):
        build(on_refusal="page.html")


@pytest.mark.parametrize("seen", ["x" * 5000, "a\r\nb\x1b[31m", "\udcff", "例え"])
def test_what_is_shown_is_short_and_printable(seen: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        app = RequestLoggingMiddleware(_csrf())
        call_wsgi(app, method="POST", environ={"HTTP_ORIGIN": seen})
    value = vars(caplog.records[0])["refused_value"]
    assert len(value) <= 2500
    assert value.isascii()
    assert value.isprintable()


def test_an_error_that_leaves_the_application_is_worded_too() -> None:
    def broken(_environ: Any, _start_response: Any) -> list[bytes]:
        raise ZeroDivisionError

    heard: list[Refusal] = []

    def words(_environ: dict[str, Any], refusal: Refusal) -> CustomResponse:
        heard.append(refusal)
        return CustomResponse(body="だめでした")

    answer = ask(RequestLoggingMiddleware(broken, on_refusal=words))
    assert (answer.status, answer.body.decode()) == (500, "だめでした")
    assert answer.header("X-Request-ID")
    assert [(refusal.wrapper, refusal.rule, refusal.status) for refusal in heard] == [
        ("record", "error", 500)
    ]


# --- heads of answers ---------------------------------------------------------------------------------------


def test_steps_run_from_the_inside_out_in_one_call_on_one_copy() -> None:
    frames: list[int] = []

    def server(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        frames.append(len(inspect.stack()))
        assert exc_info is None
        headers.append(("Server", status))
        return bytes.__len__

    def step(name: str) -> Any:
        def add(status: str, headers: list[tuple[str, str]]) -> str:
            headers.append((name, status))
            return status + name

        return add

    given = [("Content-Type", "text/plain")]
    start: Any = server
    for name in "abcde":
        start = with_step(start, step(name))
    start("2", given)
    with_step(server, step("a"))("2", given)
    assert given == [("Content-Type", "text/plain")]
    assert frames[0] == frames[1]


def test_a_wrapper_between_may_call_the_application_twice() -> None:
    sent: list[list[tuple[str, str]]] = []

    def server(_status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
        sent.append(headers)
        return bytes.__len__

    def mark(status: str, headers: list[tuple[str, str]]) -> str:
        headers.append(("Mark", status))
        return status

    outer = with_step(server, mark)
    for _ in range(2):
        with_step(outer, mark)("200 OK", [])
    assert sent == [[("Mark", "200 OK")] * 2] * 2


def test_errors_reach_the_server_with_what_is_being_handled() -> None:
    seen: list[Any] = []

    def server(_status: str, _headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        seen.append(exc_info)
        raise exc_info[1]

    start = with_step(with_step(server, lambda status, _: status), lambda status, _: status)
    try:
        _ = {}["late"]
    except KeyError:
        with pytest.raises(KeyError, match="late"):
            start("500 Internal Server Error", [], sys.exc_info())  # type: ignore[call-arg]
    assert seen[0][0] is KeyError
