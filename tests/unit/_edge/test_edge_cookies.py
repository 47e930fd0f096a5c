"""Attributes that a policy adds to cookies, through both shells."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening import asgi, wsgi
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_asgi, call_wsgi
from mks_hardening.wsgi import CookiePolicy, MemorySessionStore, SessionCookie

DEAD = "Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0"

TEXT = ("Content-Type", "text/plain")
ADDED = [
    ("a=1", "a=1; Secure; HttpOnly; SameSite=Lax"),
    ("a=1; Path=/", "a=1; Path=/; Secure; HttpOnly; SameSite=Lax"),
    ("a=1;", "a=1; Secure; HttpOnly; SameSite=Lax"),
    ("a=1; secure; HTTPONLY", "a=1; secure; HTTPONLY; SameSite=Lax"),
    ("a=1; Secure; HttpOnly; samesite=strict", "a=1; Secure; HttpOnly; samesite=strict"),
    ("a=1; SameSite=None", "a=1; SameSite=None; Secure; HttpOnly"),
    ("a=1; SameSite=maybe", "a=1; SameSite=maybe; Secure; HttpOnly; SameSite=Lax"),
    ("a=1; SameSite", "a=1; SameSite; Secure; HttpOnly; SameSite=Lax"),
    (
        "a=1; Secure; HttpOnly; SameSite=None; Partitioned",
        "a=1; Secure; HttpOnly; SameSite=None; Partitioned",
    ),
    (
        "a=1; Domain=example.com; Max-Age=60",
        "a=1; Domain=example.com; Max-Age=60; Secure; HttpOnly; SameSite=Lax",
    ),
    ("a==1=; Path=/x", "a==1=; Path=/x; Secure; HttpOnly; SameSite=Lax"),
    ('a="x; y"', 'a="x; y"; Secure; HttpOnly; SameSite=Lax'),  # browsers cut at the semicolon too
    # Scripts of frameworks read these.
    ("csrftoken=1", "csrftoken=1; Secure; SameSite=Lax"),
    ("XSRF-TOKEN=1", "XSRF-TOKEN=1; Secure; SameSite=Lax"),
    # Prefixes, in any case.
    ("__Host-a=1; Path=/", "__Host-a=1; Path=/; Secure; HttpOnly; SameSite=Lax"),
    ("__secure-a=1", "__secure-a=1; Secure; HttpOnly; SameSite=Lax"),
    # Deletions.
    (f"a=; {DEAD}; Path=/", f"a=; {DEAD}; Path=/"),
    ("a=; Max-Age=0", "a=; Max-Age=0"),
    ("a=; Max-Age=-1", "a=; Max-Age=-1"),
    ("a=; expires=Thu, 01-Jan-1970 00:00:01 GMT", "a=; expires=Thu, 01-Jan-1970 00:00:01 GMT"),
    (f"__Host-a=; {DEAD}; Path=/", f"__Host-a=; {DEAD}; Path=/; Secure"),
    (f"__Http-a=; {DEAD}", f"__Http-a=; {DEAD}; Secure; HttpOnly"),
    # Max-Age takes precedence over Expires.
    (
        "a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure; HttpOnly; SameSite=Lax",
    ),
    (
        "a=1; Expires=Fri, 01 Jan 2199 00:00:00 GMT",
        "a=1; Expires=Fri, 01 Jan 2199 00:00:00 GMT; Secure; HttpOnly; SameSite=Lax",
    ),
    ("a=1; Expires=soon", "a=1; Expires=soon; Secure; HttpOnly; SameSite=Lax"),
    # Browsers store cookies without a name, and names that are no tokens (RFC 6265bis, 5.6).
    ("no cookie", "no cookie; Secure; HttpOnly; SameSite=Lax"),
    ("=nameless", "=nameless; Secure; HttpOnly; SameSite=Lax"),
    ("näme=1", "näme=1; Secure; HttpOnly; SameSite=Lax"),
    # The names of this package belong to whoever sets them.
    ("mks-session=1", "mks-session=1; Secure; HttpOnly; SameSite=Lax"),
    ("__Host-csrf=1; Path=/", "__Host-csrf=1; Path=/; Secure; HttpOnly; SameSite=Lax"),
    # What browsers ignore.
    ("", ""),
    ("=; Path=/", "=; Path=/"),
]


def through_wsgi(policy: CookiePolicy, *values: str) -> list[str]:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [TEXT, *(("Set-Cookie", value) for value in values)])
        return [b""]

    answer = call_wsgi(wsgi.CookiePolicyMiddleware(app, policy=policy))
    return [value for name, value in answer.headers if name == "Set-Cookie"]


def through_asgi(policy: CookiePolicy, *values: str, kind: str = "http.response.start") -> list[str]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        fields = ((b"Set-Cookie", value.encode("latin-1")) for value in values)
        await send({"type": kind, "status": 200, "headers": fields})

    scope = {"type": kind.partition(".")[0], "path": "/"}
    asyncio.run(asgi.CookiePolicyMiddleware(app, policy=policy)(scope, send, send))  # type: ignore[arg-type]
    return [value.decode("latin-1") for _, value in sent[0]["headers"]]


SHELLS = [through_wsgi, through_asgi]


@pytest.fixture(params=SHELLS, ids=["wsgi", "asgi"])
def harden(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(("given", "expected"), ADDED)
def test_missing_attributes_are_added(harden: Any, given: str, expected: str) -> None:
    assert harden(CookiePolicy(), given) == [expected]
    assert harden(CookiePolicy(), expected) == [expected]


def test_each_field_stays_a_field_of_its_own(harden: Any) -> None:
    secure = "; Secure; HttpOnly; SameSite=Lax"
    assert harden(CookiePolicy(), "a=1", "b=2", f"a=; {DEAD}") == [
        f"a=1{secure}",
        f"b=2{secure}",
        f"a=; {DEAD}",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"secure": False}, "a=1; HttpOnly; SameSite=Lax"),
        ({"http_only": False}, "a=1; Secure; SameSite=Lax"),
        ({"same_site": None}, "a=1; Secure; HttpOnly"),
        ({"same_site": "Strict"}, "a=1; Secure; HttpOnly; SameSite=Strict"),
        ({"readable": ["a"]}, "a=1; Secure; SameSite=Lax"),
        ({"exempt": ["a"]}, "a=1"),
    ],
)
def test_the_policy_decides(harden: Any, options: dict[str, Any], expected: str) -> None:
    assert harden(CookiePolicy(**options), "a=1") == [expected]


def test_websockets_are_covered_too() -> None:
    for kind in ("websocket.accept", "websocket.http.response.start"):
        assert through_asgi(CookiePolicy(), "a=1", kind=kind) == ["a=1; Secure; HttpOnly; SameSite=Lax"]


def test_report_only_logs_once_for_each_name(harden: Any, caplog: pytest.LogCaptureFixture) -> None:
    policy = CookiePolicy(report_only=True)
    for value in ("a=secret", "a=other", "b=1; Secure", f"a=; {DEAD}"):
        assert harden(policy, value) == [value]
    assert [record.getMessage() for record in caplog.records] == [
        "cookie a: the policy would add Secure, HttpOnly, SameSite=Lax",
        "cookie b: the policy would add HttpOnly, SameSite=Lax",
    ]


def test_reports_are_bounded(harden: Any, caplog: pytest.LogCaptureFixture) -> None:
    policy = CookiePolicy(report_only=True)
    for number in range(300):
        policy.apply([("Set-Cookie", f"a{number}=1")])
    assert len(caplog.records) == 200
    assert harden(policy, "more=1") == ["more=1"]


def test_cookies_that_browsers_reject_are_named(harden: Any, caplog: pytest.LogCaptureFixture) -> None:
    value = "__Host-a=1; Domain=example.com; Path=/x"
    assert harden(CookiePolicy(), value) == [f"{value}; Secure; HttpOnly; SameSite=Lax"]
    assert [record.getMessage() for record in caplog.records] == [
        "cookie __Host-a: browsers reject it: its prefix __Host- forbids Domain; omit it, or rename the cookie",
        "cookie __Host-a: browsers reject it: its prefix __Host- requires Path=/; set it, or rename the cookie",
    ]
    assert all(record.levelno == logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("area", [wsgi, asgi])
def test_the_cookies_of_this_package_are_not_touched(area: Any) -> None:
    """Also around the session, and with the name of the user's choice."""
    call = call_wsgi if area is wsgi else call_asgi

    def sign_in(environ: Any, start_response: Any) -> list[bytes]:
        environ["mks_hardening.session"].start("u")
        start_response("200 OK", [TEXT, ("Set-Cookie", "own=1")])
        return [b""]

    async def asign_in(scope: Any, _receive: Any, send: Any) -> None:
        await scope["mks_hardening.session"].astart("u")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", b"own=1")]})
        await send({"type": "http.response.body"})

    app = sign_in if area is wsgi else asign_in
    for cookie in (SessionCookie(), SessionCookie("mine")):
        session = area.SessionTimeoutMiddleware(app, store=MemorySessionStore(), cookie=cookie)
        plain = call(session)
        wrapped = call(area.CookiePolicyMiddleware(session, policy=CookiePolicy()))

        def attributes(answer: Any) -> list[str]:
            return [
                value.partition("; ")[2]
                for name, value in answer.headers
                if name.lower() == "set-cookie" and not value.startswith("own=")
            ]

        assert attributes(plain) == attributes(wrapped)
        assert attributes(plain)


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"secure": 1}, "secure"),
        ({"http_only": "yes"}, "http_only"),
        ({"same_site": "None"}, "same_site"),
        ({"same_site": "lax"}, "same_site"),
        ({"readable": "csrftoken"}, "readable"),
        ({"readable": ["a b"]}, "readable"),
        ({"readable": ["a*"]}, "readable"),
        ({"exempt": ["*"]}, "exempt"),
        ({"exempt": [""]}, "exempt"),
        ({"report_only": None}, "report_only"),
    ],
)
def test_wrong_options_are_refused_by_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        CookiePolicy(**options)
    assert refused.value.parameter == parameter


FIELD = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


@given(st.one_of(FIELD, st.builds("{}={}; {}".format, st.sampled_from(["a", "__Host-x"]), FIELD, FIELD)))
def test_a_field_only_grows_and_once(field: str) -> None:
    policy = CookiePolicy()
    once = [("Set-Cookie", field)]
    policy.apply(once)
    twice = list(once)
    policy.apply(twice)
    assert once == twice
    assert once[0][1].startswith(field.rstrip("; \t"))


def test_what_browsers_ignore_is_not_changed() -> None:
    assert through_asgi(CookiePolicy(), "a=\x011", "\x7f=1") == ["a=\x011", "\x7f=1"]
