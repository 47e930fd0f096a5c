"""The JSON endpoints: what they take, what they refuse, and that refusals change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.security import totp_code
from mks_hardening.testing import FrozenClock

ARTICLE = {
    "title": "盛土の締固め管理",
    "category": "土工",
    "summary": "締固め度の測り方",
    "body": "## 管理基準\n\n- 締固め度 **90%** 以上",
    "tags": ["盛土", "締固め"],
    "status": "draft",
}


def article(**changed: Any) -> dict[str, Any]:
    return {**ARTICLE, **changed}


ENDPOINTS = [
    ("POST", "/api/auth/login", {"username": "tanaka", "password": DEMO_PASSWORD}),
    ("POST", "/api/auth/logout", {}),
    ("POST", "/api/auth/session/refresh", {}),
    ("POST", "/api/auth/2fa/setup", {}),
    ("POST", "/api/auth/2fa/enable", {"code": "000000"}),
    ("POST", "/api/auth/2fa/disable", {"code": "000000"}),
    (
        "POST",
        "/api/auth/register",
        {"username": "okada", "display_name": "岡田", "role": "viewer", "password": "tall-crane-4417"},
    ),
    ("POST", "/api/knowledge", ARTICLE),
    ("PUT", "/api/knowledge/1", {**ARTICLE, "revision": 1}),
    ("POST", "/api/knowledge/1/comments", {"body": "確認しました"}),
]

BROKEN = [
    (b"{", 400),
    (b"[]", 400),
    (b"null", 400),
    (b'"x"', 400),
    (b"\xff\xfe", 400),
    (b'{"title": "\xff"}', 400),
    (b'{"title": NaN}', 400),
    (b'{"body": Infinity}', 400),
    (b'{"code": "1", "code": "2"}', 400),
    (b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", 400),
    (b"[" * 100_000, 400),
    (b'{"x":' * 40_000, 400),
    (b'{"__class__": "x", "is_admin": true}', 422),
    (b"{}" + b" " * 1_100_000, 413),
]


@pytest.mark.parametrize(("method", "path", "_good"), ENDPOINTS)
def test_broken_bodies(
    visit: Callable[..., Any], clock: FrozenClock, method: str, path: str, _good: object
) -> None:
    person = visit("ito")
    for body, status in BROKEN:
        clock.advance(13)  # the limits of writing are not what is tested here
        answer = person.api(method, path, body)
        assert answer.status_code == status, body[:40]
        assert_problem(answer)
        assert person.api("GET", "/api/knowledge/1").json["revision"] == 1
        assert person.api("GET", "/api/auth/me").status_code == 200


@pytest.mark.parametrize(("method", "path", "good"), ENDPOINTS)
def test_other_media_types_are_refused(visit: Callable[..., Any], method: str, path: str, good: Any) -> None:
    person = visit("ito")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
        answer = person.send(
            method,
            path,
            data=json.dumps(good or {"x": 1}),
            headers={"Content-Type": kind, "Accept": "application/json"},
        )
        assert answer.status_code == 415
        assert_problem(answer)


@pytest.mark.parametrize(("method", "path", "good"), [row for row in ENDPOINTS if row[2]])
def test_every_field_is_needed_typed_and_known(
    visit: Callable[..., Any], clock: FrozenClock, method: str, path: str, good: dict[str, Any]
) -> None:
    person = visit("ito")
    for name in good:
        for wrong in (None, True, 1.5, {}, [{}], "\x00", "x" * 60_000):
            if wrong is True and name == "revision":
                continue
            clock.advance(13)  # the limits of writing are not what is tested here
            answer = person.api(method, path, {**good, name: wrong})
            assert answer.status_code == 422, (name, wrong)
            assert name in [error["field"] for error in answer.json["errors"]]
    assert person.api(method, path, {**good, "extra": 1}).status_code == 422
    missing = person.api(method, path, {"extra": 1})
    assert {error["code"] for error in missing.json["errors"]} >= {"missing", "unknown"}
    assert person.api("GET", "/api/knowledge/1").json["revision"] == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/auth/me"),
        ("GET", "/api/auth/session"),
        ("GET", "/api/knowledge"),
        ("GET", "/api/knowledge/1"),
        *[
            (method, path)
            for method, path, _ in ENDPOINTS
            if path not in {"/api/auth/login", "/api/auth/logout"}
        ],
    ],
)
def test_nothing_without_signing_in(browser: Any, method: str, path: str) -> None:
    good = next((body for m, p, body in ENDPOINTS if (m, p) == (method, path)), None)
    answer = browser.api(method, path, good)
    assert answer.status_code == 401
    assert_problem(answer)


@pytest.mark.parametrize(
    ("name", "allowed"), [("kobayashi", False), ("tanaka", True), ("sato", True), ("ito", True)]
)
def test_who_creates(visit: Callable[..., Any], name: str, *, allowed: bool) -> None:
    assert visit(name).api("POST", "/api/knowledge", ARTICLE).status_code == (201 if allowed else 403)


def test_create_read_save_list(visit: Callable[..., Any], make_app: Callable[..., Any]) -> None:
    person = visit("sato", at=make_app(four_eyes=False))
    made = person.api("POST", "/api/knowledge", article(status="published"))
    assert made.status_code == 201
    path = made.headers["Location"]
    assert made.json["tags"] == ["盛土", "締固め"]
    saved = person.api(
        "PUT", path, article(title="改めた題名", tags=["締固め", "試験"], status="published", revision=1)
    )
    assert (saved.status_code, saved.json["revision"], saved.json["tags"]) == (200, 2, ["締固め", "試験"])
    assert [entry["revision"] for entry in saved.json["history"]] == [2, 1]
    late = person.api("PUT", path, article(revision=1))
    assert (late.status_code, late.json["current_revision"]) == (409, 2)
    listed = person.api("GET", "/api/knowledge?tag=試験")
    assert [item["title"] for item in listed.json["items"]] == ["改めた題名"]
    assert listed.headers["Cache-Control"] == "private, no-cache"
    found = person.api("GET", "/api/knowledge?q=改め")
    assert found.json["items"][0]["title"] == "改めた題名"


def test_a_version_is_approved_by_somebody_else(visit: Callable[..., Any]) -> None:
    writer, reviewer = visit("tanaka"), visit("sato")
    path = writer.api("POST", "/api/knowledge", article(status="review")).headers["Location"]
    approval = {"step": "approve", "revision": 1}
    assert writer.api("POST", f"{path}/steps", approval).status_code == 403
    done = reviewer.api("POST", f"{path}/steps", approval)
    assert (done.status_code, done.json["status"]) == (200, "published")
    coming = writer.api("PUT", path, article(title="次の題名", revision=1)).json
    assert (coming["title"], coming["status"]) == (ARTICLE["title"], "published")
    assert coming["next"] == {"revision": 2, "since": 2, "status": "draft"}
    assert visit("kobayashi").api("GET", path).json["next"] is None
    assert reviewer.api("POST", f"{path}/steps", approval).status_code == 409


def test_a_writer_cannot_publish_nor_touch_what_others_wrote(visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    assert writer.api("POST", "/api/knowledge", article(status="published")).status_code == 422
    made = writer.api("POST", "/api/knowledge", ARTICLE).headers["Location"]
    other = visit("suzuki")
    assert other.api("PUT", made, article(revision=1)).status_code == 404
    theirs = next(
        item["id"]
        for item in other.api("GET", "/api/knowledge").json["items"]
        if item["author_username"] not in {"tanaka", "suzuki"}
    )
    assert other.api("PUT", f"/api/knowledge/{theirs}", article(revision=1)).status_code == 403


@pytest.mark.parametrize(
    "query", ["status=deleted", "page=1", "after=%FF", "after=x", "category=x", "q=a&q=b", "tag=" + "x" * 41]
)
def test_odd_queries(visit: Callable[..., Any], query: str) -> None:
    answer = visit("tanaka").api("GET", f"/api/knowledge?{query}")
    assert answer.status_code in {400, 422}
    assert_problem(answer)


@pytest.mark.parametrize("number", ["0", "99999", "2147483648", "9" * 40, "x", "1/../2", "%2e%2e%2f1"])
def test_unknown_ids(visit: Callable[..., Any], number: str) -> None:
    person = visit("sato")
    for method, path in (
        ("GET", f"/api/knowledge/{number}"),
        ("PUT", f"/api/knowledge/{number}"),
        ("POST", f"/api/knowledge/{number}/comments"),
    ):
        body = {"body": "x"} if method == "POST" else article(revision=1) if method == "PUT" else None
        answer = person.api(method, path, body)
        assert answer.status_code == 404
        assert_problem(answer)


def test_methods(visit: Callable[..., Any]) -> None:
    for method, path in (
        ("DELETE", "/api/knowledge"),
        ("GET", "/api/auth/login"),
        ("PATCH", "/api/knowledge"),
    ):
        answer = visit("ito").api(method, path)
        assert answer.status_code == 405
        assert answer.headers["Allow"]
        assert_problem(answer)


def test_second_factor(visit: Callable[..., Any], browser: Any, clock: FrozenClock) -> None:
    person = visit("tanaka")
    assert person.api("POST", "/api/auth/2fa/disable", {"code": "000000"}).status_code == 409
    assert person.api("POST", "/api/auth/2fa/enable", {"code": "000000"}).status_code == 409
    setup = person.api("POST", "/api/auth/2fa/setup").json
    assert setup["provisioning_uri"].startswith("otpauth://totp/")
    assert setup["qr_code"].startswith("data:image/png;base64,")
    assert person.api("GET", "/api/auth/me").json["second_factor"] is False
    assert person.api("POST", "/api/auth/2fa/enable", {"code": "000000"}).status_code == 422
    code = totp_code(setup["secret"], at=clock.time())
    enabled = person.api("POST", "/api/auth/2fa/enable", {"code": code})
    assert len(enabled.json["recovery_codes"]) == 10
    assert person.api("POST", "/api/auth/2fa/setup").status_code == 409

    credentials = {"username": "tanaka", "password": DEMO_PASSWORD}
    assert browser.api("POST", "/api/auth/2fa/verify", {"code": code}).status_code == 401
    assert browser.api("POST", "/api/auth/login", credentials).json["second_factor_required"] is True
    assert browser.api("GET", "/api/auth/me").status_code == 401
    assert browser.api("POST", "/api/auth/2fa/verify", {"code": code}).status_code == 401
    clock.advance(30)
    code = totp_code(setup["secret"], at=clock.time())
    verified = browser.api("POST", "/api/auth/2fa/verify", {"code": code})
    assert (verified.status_code, verified.json["method"]) == (200, "totp")
    assert browser.api("GET", "/api/auth/me").json["second_factor"] is True
    assert browser.api("POST", "/api/auth/2fa/disable", {"code": code}).status_code == 403
    done = browser.api("POST", "/api/auth/2fa/disable", {"code": enabled.json["recovery_codes"][0]})
    assert done.json["second_factor"] is False


def test_who_am_i_is_for_me_only(visit: Callable[..., Any]) -> None:
    answer = visit("sato").api("GET", "/api/auth/me")
    assert answer.json["username"] == "sato"
    assert answer.json["role"] == "reviewer"
    assert "no-store" in answer.headers["Cache-Control"]
    assert "password" not in answer.get_data(as_text=True)


def test_sign_out(visit: Callable[..., Any]) -> None:
    person = visit("sato")
    assert person.api("POST", "/api/auth/logout").status_code == 200
    assert person.api("GET", "/api/auth/me").status_code == 401
    assert person.api("POST", "/api/auth/logout").status_code == 200


def test_writing_is_limited(visit: Callable[..., Any], clock: FrozenClock) -> None:
    person = visit("tanaka")
    seen = [person.api("POST", "/api/knowledge/1/comments", {"body": "x"}).status_code for _ in range(21)]
    assert seen == [201] * 20 + [429]
    refused = person.api("POST", "/api/knowledge/1/comments", {"body": "x"})
    assert int(refused.headers["Retry-After"]) > 0
    assert visit("suzuki").api("POST", "/api/knowledge/1/comments", {"body": "x"}).status_code == 201
    clock.advance(61)
    assert person.api("POST", "/api/knowledge/1/comments", {"body": "x"}).status_code == 201


def assert_problem(answer: Any) -> None:
    """Short, typed, in the language asked for, without a trace."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json
    assert document["status"] == answer.status_code
    assert document["title"]
    assert "Traceback" not in answer.get_data(as_text=True)
    assert len(answer.get_data()) < 4_000


def test_signing_in_over_an_ended_session_works_at_once(visit: Callable[..., Any], app: Any) -> None:
    person = visit("tanaka")
    app.extensions["knowledge"].session_clock.advance(1801)
    answer = person.api("POST", "/api/auth/login", {"username": "tanaka", "password": DEMO_PASSWORD})
    assert answer.status_code == 200
    assert person.api("GET", "/api/auth/me").json["username"] == "tanaka"


def test_a_page_is_come_back_to_after_signing_in_again(visit: Callable[..., Any], app: Any) -> None:
    person = visit("tanaka")
    app.extensions["knowledge"].session_clock.advance(1801)
    answer = person.send("GET", "/articles?page=2", headers={"Accept": "text/html"})
    assert answer.headers["Location"] == "/sign-in?reason=idle&next=%2Farticles%3Fpage%3D2"
