"""What a request is told whose session is over or cannot be judged, word for word, and what the record gets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mks_hardening._edge.session import refusal_texts as _refusals
from mks_hardening._edge.session.cookie_header import find_cookie
from mks_hardening._edge.session.ended_sessions import ENDS
from mks_hardening._edge.session.session_ids import key_of
from mks_hardening._edge.session.session_lookup import SessionLookup
from mks_hardening._edge.session.session_rules import SessionLimits
from mks_hardening._edge.session.sign_in_page import return_path
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import SessionRecord
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import MemorySessionStore, Refusal, SessionCookie, SessionTimeoutMiddleware
from wsgi_session_corpus import SwitchedStore

WSGI_ONLY: set[str] = set()
IN_THREAD = True  # its applications call the plain methods of their session

PROBLEM = ("Content-Type", "application/problem+json")
KEPT_OUT = ("Cache-Control", "no-store")


def nothing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("app", "app"),
        ("store", object()),
        ("cookie", "cookie"),
        ("on_expired", "call me"),
        ("clear_site_data", ["everything"]),
        ("on_refusal", "call me"),
        ("passive_paths", "/x"),
    ],
)
def test_a_part_of_a_wrong_kind_is_refused_by_its_name(parameter: str, value: Any) -> None:
    given = {"app": nothing, "store": MemorySessionStore(), parameter: value}
    with pytest.raises(ConfigurationError) as refused:
        SessionTimeoutMiddleware(given.pop("app"), **given)
    assert refused.value.parameter == parameter


def answer_to(middleware: SessionTimeoutMiddleware, **environ: Any) -> tuple[str, list[Any], bytes, Any]:
    asked: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "HTTP_COOKIE": f"__Host-mks-session={'x' * 43}",
        **environ,
    }
    heads: list[Any] = []
    body = b"".join(middleware(asked, lambda *head: heads.append(head)))  # type: ignore[arg-type]
    return heads[0][0], heads[0][1], body, asked.get("mks_hardening.refusal")


def test_an_unknown_session() -> None:
    middleware = SessionTimeoutMiddleware(nothing, store=MemorySessionStore(), clock=FrozenClock())
    status, headers, body, refusal = answer_to(middleware)
    problem = json.loads(body)
    assert (status, problem["status"], problem["title"], problem["reason"]) == (
        "401 Unauthorized", 401, "Unauthorized", "revoked",
    )  # fmt: skip
    assert problem["type"] == "about:blank"
    challenge = ("WWW-Authenticate", 'Session realm="application"')
    cleared = SessionCookie().clearing()
    length = ("Content-Length", str(len(body)))
    assert headers == [PROBLEM, length, KEPT_OUT, challenge, ("X-Session-Timeout-Reason", "revoked"), cleared]
    assert refusal == Refusal(
        wrapper="session",
        rule="revoked",
        status=401,
        detail=problem["detail"],
        seen="unknown id",
        headers=(challenge, ("X-Session-Timeout-Reason", "revoked"), cleared),
        setting="MKS_PUBLIC_PATHS",
    )


def test_a_page_is_sent_to_sign_in() -> None:
    middleware = SessionTimeoutMiddleware(
        nothing, store=MemorySessionStore(), clock=FrozenClock(), sign_in_url="/in?next={next}"
    )
    status, headers, body, refusal = answer_to(middleware, HTTP_ACCEPT="text/html", PATH_INFO="/a")
    assert (status, body) == ("303 See Other", b"Please sign in again.\n")
    assert headers[:3] == [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "22"), KEPT_OUT]
    assert headers[3] == ("Location", "/in?next=%2Fa")
    assert (refusal.status, refusal.rule) == (303, "revoked")


def test_a_store_that_is_away() -> None:
    store: Any = SwitchedStore(MemorySessionStore())
    store.away = True
    middleware = SessionTimeoutMiddleware(nothing, store=store, clock=FrozenClock())
    status, headers, body, refusal = answer_to(middleware)
    problem = json.loads(body)
    assert (status, problem["status"], problem["title"], problem["type"]) == (
        "503 Service Unavailable", 503, "Service Unavailable", "about:blank",
    )  # fmt: skip
    again = headers[3]
    assert headers == [PROBLEM, ("Content-Length", str(len(body))), KEPT_OUT, again]
    assert again[0] == "Retry-After"
    assert int(again[1]) >= 1
    assert refusal == Refusal(
        wrapper="session",
        rule="store",
        status=503,
        detail=problem["detail"],
        seen=str(BackendUnavailableError("store", "refused", operation="load", sent=False)),
        headers=(again,),
    )


def test_what_is_known_of_a_session_that_is_over() -> None:
    record = SessionRecord("k", "u", 100.0, 110.0, 200.0)
    assert _refusals.seen_of(None, 130.0) == "unknown id"
    assert _refusals.seen_of(record, 130.0) == "begun 30 s ago, last seen 20 s ago"
    ended = record._replace(ended="revoked")
    assert _refusals.seen_of(ended, 130.0) == "begun 30 s ago, last seen 20 s ago, revoked before"


def test_other_cookies_are_taken_back_as_ours_is() -> None:
    name, value = SessionCookie().clearing_of("old")
    assert (name, value.partition(";")[0]) == ("Set-Cookie", "old=")
    assert "Max-Age=0" in value


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("n=a; n=", "a"),
        ("n=; n=a", "a"),
        ("n=a; n=a", "a"),
        ("n=; n=", None),
        ('x=n=b; n="a" ;n= a', "a"),
    ],
)
def test_a_name_that_comes_twice_is_no_harm_where_it_says_one_thing(header: str, found: str | None) -> None:
    assert find_cookie(header, "n=") == found


def test_a_way_back_has_a_bound() -> None:
    assert return_path("GET", "/" + "a" * 1023, "") == "%2F" + "a" * 1023
    assert return_path("GET", "/" + "a" * 1024, "") == "%2F"
    assert return_path("GET", "/a", "b" * 1021) == "%2Fa%3F" + "b" * 1021


def test_an_end_that_is_known_here_outlives_an_outage_on_an_event_loop_too() -> None:
    store: Any = SwitchedStore(MemorySessionStore())
    clock = FrozenClock()
    keeper = SessionLookup(
        store,
        limits=SessionLimits(100, 1000),
        write_interval=1,
        outage_grace=60,
        max_sessions=None,
        on_expired=None,
        clock=clock,
    )

    async def story() -> None:
        session_id = "x" * 43
        now = clock.time()
        record = SessionRecord(key_of(session_id), "u", now, now, now + 100)
        store.store.create(record, now=now)
        assert (await keeper.afind(session_id, active=True))[1] == ""
        store.away = True
        assert (await keeper.afind(session_id, active=True))[1] == ""
        ENDS.record_session(record.key)
        with pytest.raises(BackendUnavailableError):
            await keeper.afind(session_id, active=True)

    asyncio.run(story())
