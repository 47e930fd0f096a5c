"""Which group of rate limits each view takes its hit from, and how large a request may be."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from knowledge_system.domain.fields import BODY_LIMIT
from mks_hardening._core import hooks
from mks_hardening.events import RateLimitDecided

PDF = b"%PDF-1.7\n1 0 obj<<>>endobj\nxref\n0 1\ntrailer<<>>\nstartxref\n28\n%%EOF\n"
ARTICLE = {"title": "題名", "category": "土工", "body": "本文です。", "status": "draft"}
ACCOUNT = {"username": "newcomer", "display_name": "新", "role": "writer", "email": "new@example.com"}


def upload(person: Any, path: str, content: bytes = PDF, **form: Any) -> Any:
    return person.send(
        "POST",
        path,
        data={"file": (io.BytesIO(content), "file.pdf"), "csrf_token": person.token, **form},
        content_type="multipart/form-data",
    )


VIEWS: list[tuple[str, str, Callable[[Any], Any], set[str]]] = [
    ("POST /sign-in", "", lambda p: p.sign_in("tanaka", "wrong"), {"auth_login"}),
    (
        "POST /api/auth/login",
        "",
        lambda p: p.api("POST", "/api/auth/login", {"username": "tanaka", "password": "wrong"}),
        {"auth_login", "api_open"},
    ),
    (
        "POST /password/forgotten",
        "",
        lambda p: p.post("/password/forgotten", {"username": "tanaka"}),
        {"auth_password_reset"},
    ),
    (
        "POST /api/auth/password-reset",
        "",
        lambda p: p.api("POST", "/api/auth/password-reset", {"username": "tanaka"}),
        {"auth_password_reset", "api_open"},
    ),
    ("POST /admin/accounts", "ito", lambda p: p.post("/admin/accounts", ACCOUNT), {"auth_register"}),
    (
        "POST /api/auth/register",
        "ito",
        lambda p: p.api("POST", "/api/auth/register", ACCOUNT),
        {"auth_register"},
    ),
    ("GET /articles?q=", "tanaka", lambda p: p.get("/articles?q=足場"), {"search"}),
    ("GET /api/knowledge", "tanaka", lambda p: p.api("GET", "/api/knowledge"), {"api_read"}),
    ("POST /api/knowledge", "tanaka", lambda p: p.api("POST", "/api/knowledge", ARTICLE), {"api_write"}),
    ("POST /articles", "tanaka", lambda p: p.post("/articles", ARTICLE), {"api_write"}),
    ("POST /articles/preview", "tanaka", lambda p: p.post("/articles/preview", {"body": "x"}), {"api_read"}),
    ("DELETE /api/knowledge/1", "tanaka", lambda p: p.api("DELETE", "/api/knowledge/1"), {"api_delete"}),
    ("POST /admin/accounts/x", "ito", lambda p: p.post("/admin/accounts/kato", {}), {"admin"}),
    (
        "POST /api/knowledge/1/attachments",
        "tanaka",
        lambda p: upload(p, "/api/knowledge/1/attachments"),
        {"file_upload"},
    ),
    (
        "POST /articles/1/attachments",
        "tanaka",
        lambda p: upload(p, "/articles/1/attachments"),
        {"file_upload"},
    ),
    ("POST /exchange/import", "sato", lambda p: upload(p, "/exchange/import"), {"file_upload"}),
]


@pytest.fixture
def groups() -> Iterator[Callable[[], set[str]]]:
    """The groups that were hit since they were last asked for."""
    seen: list[RateLimitDecided] = []

    def observe(event: object) -> None:
        if isinstance(event, RateLimitDecided):
            seen.append(event)

    def taken() -> set[str]:
        found = {event.group for event in seen}
        seen.clear()
        return found

    hooks.add_observer(observe)
    yield taken
    hooks.remove_observer(observe)


@pytest.mark.parametrize(
    ("who", "ask", "expected"), [row[1:] for row in VIEWS], ids=[row[0] for row in VIEWS]
)
def test_each_view_takes_its_hit_from_its_group(
    who: str,
    ask: Callable[[Any], Any],
    expected: set[str],
    *,
    browser: Any,
    visit: Callable[..., Any],
    groups: Callable[[], set[str]],
) -> None:
    person = visit(who) if who else browser
    person.get("/account" if who else "/sign-in")  # the token of a form
    groups()
    ask(person)
    assert {
        group for group in groups() if not group.endswith(("_address", "_account", "_network"))
    } == expected


@pytest.mark.parametrize("by_form", [False, True])
def test_the_sixth_upload_in_a_minute_is_refused(
    visit: Callable[..., Any], clock: Any, *, by_form: bool
) -> None:
    person = visit("tanaka")
    number = person.api("POST", "/api/knowledge", ARTICLE).json["id"]
    person.get(f"/articles/{number}/edit")
    path = f"/articles/{number}/attachments" if by_form else f"/api/knowledge/{number}/attachments"
    statuses = [upload(person, path, PDF + bytes([turn])).status_code for turn in range(6)]
    assert statuses == [303 if by_form else 201] * 5 + [429]
    clock.advance(61)
    assert upload(person, path, PDF + b"later").status_code == statuses[0]


@pytest.mark.parametrize("path", ["/sign-in", "/api/auth/login"])
@pytest.mark.parametrize(
    ("group", "key", "named"),
    [
        ("auth_login_address", "127.0.0.1", '"minute";r=0'),
        ("auth_login_network", "127.0.0.0/24", '"minute";r=0'),
        ("auth_login", "127.0.0.1 tanaka", None),  # of one name: where it stands is not shown
    ],
)
def test_a_refused_sign_in_names_the_limit_of_the_client_only(
    browser: Any, app: Any, *, group: str, key: str, named: str | None, path: str
) -> None:
    limiter = app.extensions["knowledge"].limiter
    limiter.hit(group, key, cost=limiter.groups[group][0].quota)
    browser.get("/sign-in")
    if path == "/sign-in":
        answer = browser.sign_in("tanaka", "wrong")
    else:
        answer = browser.api("POST", path, {"username": "tanaka", "password": "wrong"})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    if named is None:
        assert not [name for name in answer.headers.keys() if "ratelimit" in name.lower()]  # noqa: SIM118
        return
    assert answer.headers["X-RateLimit-Remaining"] == "0"
    assert answer.headers["RateLimit"].startswith(named)
    assert f"q={limiter.groups[group][0].quota};w=60" in answer.headers["RateLimit-Policy"]


# --- how large a request may be


@pytest.mark.parametrize("character", ["技", "𠮷", "a"])
@pytest.mark.parametrize("by_form", [False, True])
def test_the_longest_article_can_be_saved(
    visit: Callable[..., Any], character: str, *, by_form: bool
) -> None:
    person = visit("tanaka")
    longest = {
        **ARTICLE,
        "title": character * 200,
        "summary": character * 500,
        "body": character * 50_000,
        "site": character * 100,
    }
    if by_form:
        person.get("/articles/new")
        answer = person.post("/articles", longest)
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith("/articles/")
        return
    made = person.api("POST", "/api/knowledge", longest)
    assert made.status_code == 201
    assert person.api("GET", f"/api/knowledge/{made.json['id']}").json["body"] == longest["body"]


def test_a_refusal_names_the_limit(visit: Callable[..., Any], app: Any) -> None:
    person = visit("tanaka")
    answer = person.api("POST", "/api/knowledge", b"{}" + b" " * BODY_LIMIT)
    assert (answer.status_code, answer.json["limit_bytes"]) == (413, BODY_LIMIT)
    assert "1,048,576 バイト" in answer.json["detail"]
    app.extensions["knowledge"].intake.limit = 1000
    number = person.api("POST", "/api/knowledge", ARTICLE).json["id"]
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = person.send("POST", f"/articles/{number}/attachments", data=bytes(600_000), headers=form)
    assert answer.status_code == 413
    assert "525,288 バイト" in answer.get_data(as_text=True)


class _Endless:
    """A body that never ends, each piece of which takes a second."""

    def __init__(self, clock: Any) -> None:
        self.clock, self.given = clock, 0

    def read(self, size: int = -1) -> bytes:
        self.clock.advance(1)
        self.given += size
        return bytes(size)


def test_a_refused_upload_is_read_to_its_end_but_not_for_ever(visit: Callable[..., Any], clock: Any) -> None:
    """A browser shows no answer before it has sent everything; a client that never ends is left."""
    person = visit("tanaka")
    whole = io.BytesIO(bytes(17 * 1_048_576))
    form = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(17 * 1_048_576)}
    number = person.api("POST", "/api/knowledge", ARTICLE).json["id"]
    path = f"/api/knowledge/{number}/attachments"
    assert person.send("POST", path, input_stream=whole, headers=form).status_code == 413
    assert whole.tell() == 17 * 1_048_576
    slow = _Endless(clock)
    environ = {"wsgi.input": slow, "CONTENT_LENGTH": str(60 * 1_048_576)}
    answer = person.send("POST", path, headers=form, environ_overrides=environ)
    assert answer.status_code == 413
    assert slow.given == 30 * 65_536
