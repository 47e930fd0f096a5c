"""What is sent by those who mean no good, to pages and API: a table of requests, each with its answer.

Beside its own status every row goes by four rules: nobody is led elsewhere, no secret that was sent comes back,
nothing is logged as an error, and afterwards every table holds what it held before.
Bodies and tokens of the API have a table of their own in test_knowledge_programs.py.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import BytesIO
from itertools import product
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

import jwt
import pytest
from sqlalchemy import event, select

from knowledge_system import models
from knowledge_system.domain.permissions import Actor
from knowledge_system.reports.spreadsheet import write_sheet
from knowledge_system.services import reports
from knowledge_system.services.secret_keys import key_bytes
from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.testing import FrozenClock

URL = "https://localhost:8443"
SECRET = "hunter2-hunter2-4417"
"""Sent as a password or token in many rows; no answer and no record may hold it."""
FORM = {
    "title": "盛土の締固め管理",
    "category": "土工",
    "summary": "",
    "body": "締固め度 90% 以上",
    "tags": "",
    "status": "draft",
}
_KEPT = (
    models.User,
    models.Article,
    models.ArticleTag,
    models.Comment,
    models.Revision,
    models.Review,
    models.Notice,
    models.Report,
    models.TokenFamily,
    models.RefreshToken,
)


class Row(NamedTuple):
    """One request: who sends what, how it is answered, and words that stand in the answer or its ``Location``."""

    who: str
    method: str
    path: str
    status: int
    says: str = ""
    form: Mapping[str, str] | bytes | None = None
    json: Any = None
    headers: Mapping[str, str] = {}
    csrf: str = "own"

    def __str__(self) -> str:
        sent = f"{self.headers} {self.form or self.json}"[:120]
        return f"{self.who} {self.method[:20]} {self.path[:80]!a} {sent!a}"


@pytest.fixture
def people(app: Any, visit: Callable[..., Any], browser: Any) -> dict[str, Any]:
    """One of each role, and somebody who has not signed in."""
    names = ("kobayashi", "tanaka", "suzuki", "sato", "ito")
    browser.get("/sign-in")
    everybody = {name: visit(name) for name in names} | {"nobody": browser}
    for person in everybody.values():
        person.get("/account")
    return everybody


@pytest.fixture
def draft(people: dict[str, Any]) -> str:
    """Tanaka's draft, which only tanaka and those who may approve it see; ``/articles/7``, say."""
    made = people["tanaka"].post("/articles", {**FORM, "title": "機密の下書き"})
    assert made.status_code == 303
    return str(made.headers["Location"].partition("?")[0])


def result(app: Any) -> str:
    """A digest of every table that people write."""
    digest = hashlib.sha256()
    with app.extensions["knowledge"].engine.connect() as connection:
        for model in _KEPT:
            rows = connection.execute(select(model.__table__).order_by(*model.__table__.primary_key)).all()
            digest.update(repr([tuple(row) for row in rows]).encode())
    return digest.hexdigest()


def send(person: Any, row: Row) -> Any:
    """The request as a server would hand it on, without the manners of a client."""
    path, _, query = row.path.partition("?")
    raw = {
        "REQUEST_METHOD": row.method,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": row.path,
        "RAW_URI": row.path,
    }
    headers = dict(row.headers)
    for name in ("Host", "Content-Length", "Content-Type"):
        if name in headers:
            key = name.upper().replace("-", "_")
            raw[key if name != "Host" else "HTTP_HOST"] = headers.pop(name)
    if isinstance(row.form, bytes):
        options: dict[str, Any] = {"data": row.form}
        raw.setdefault("CONTENT_TYPE", "application/x-www-form-urlencoded")
    elif row.json is not None:
        options = {"json": row.json}
    elif row.method in {"GET", "HEAD"}:
        options = {}
    else:
        token = {"own": person.token, "none": None}.get(row.csrf, row.csrf)
        fields = dict(row.form or {})
        options = {"data": fields if token is None else {"csrf_token": token, **fields}}
    return person.send(row.method, "/", headers=headers, environ_overrides=raw, **options)


def assert_harmless(app: Any, people: dict[str, Any], rows: Iterable[Row], clock: Any, caplog: Any) -> None:
    """Each row is answered as it says, and by the rules that go for all."""
    wrong, before, engine = list[str](), result(app), app.extensions["knowledge"].engine
    written = list[str]()

    def look(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(("SELECT", "WITH", "PRAGMA")):
            written.append(statement)

    event.listen(engine, "before_cursor_execute", look)
    for row in rows:
        clock.advance(7)  # limits are not what is tested here
        caplog.clear()
        answer = send(people[row.who], row)
        text = answer.get_data(as_text=True) + answer.headers.get("Location", "")
        if answer.status_code != row.status:
            wrong.append(f"{row}: {answer.status_code}, not {row.status}")
        if urlsplit(urljoin(URL, answer.headers.get("Location", "/"))).netloc != urlsplit(URL).netloc:
            wrong.append(f"{row}: leads to {answer.headers['Location']!a}")
        if row.says not in text:
            wrong.append(f"{row}: {row.says!a} is not said")
        if SECRET in text or SECRET in str(answer.headers):
            wrong.append(f"{row}: the secret comes back")
        if "Traceback" in text or "sqlalchemy" in text.lower():
            wrong.append(f"{row}: internals are shown")
        wrong += [
            f"{row}: {record.getMessage()[:200]!a} is logged"
            for record in caplog.records
            if record.levelno >= logging.ERROR or SECRET in record.getMessage()
        ]
        if written and result(app) != before:
            wrong.append(f"{row}: something has changed")
            before = result(app)
        written.clear()
    event.remove(engine, "before_cursor_execute", look)
    for name, person in people.items():
        if name != "nobody" and person.get("/articles").status_code != 200:
            wrong.append(f"{name} is shut out")
    assert "\n".join(wrong) == ""


# --- ways to a page ----------------------------------------------------------------------------------

_NOWHERE = (
    "/articles/%EF%BC%91",  # full-width 1
    "/articles/%D9%A1",  # an Arabic one
    "/articles/1%E2%80%8B",  # zero width space
    "/articles/01",
    "/articles/+1",
    "/articles/-1",
    "/articles/0x1",
    "/articles/1.0",
    "/articles/1e0",
    "/articles/99999999999",
    "/articles/1%00",
    "/articles/%ff",
    "/articles/1%0d%0aSet-Cookie:%20a=b",
    "/articles/1;jsessionid=1",
    "/articles/1/",
    "/articles/1%2fedit%2f",
    "/articles/..%2fadmin%2faudit",
    "/articles/%2e%2e/admin/audit",
    "/articles/../admin/audit",
    "/./articles",
    "/ARTICLES",
    "/articles.json",
    "/articles\\1",
    "/%5carticles",
    "/articles/%252e%252e/1",
    "/static/../settings.py",
    "/static/..%2fsettings.py",
    "/static/%2e%2e/%2e%2e/settings.py",
    "/static/..%5csettings.py",
    "/static/etc%2fpasswd",
    "/static/app.css%00.html",
    "/static/",
    "/static/.git/config",
    "/.env",
    "/.git/HEAD",
    "/server-status",
    "/wp-login.php",
    "/admin",
    "/admin/accounts/..%2f..%2faccount",
    "/admin/accounts/%EF%BD%89to",
    "/admin/accounts/ito%00",
    "/admin/accounts/%F0%9F%92%A9",
    "/reports/" + "0" * 32,
    "/reports/" + "A" * 32,
    "/reports/x%2f..",
    "/articles/1/history/%EF%BC%91",
    "/articles/1/history/999999",
    "/articles/" + "9" * 6000,
    "/" + "a" * 9000,
)
PATHS = [Row("ito", "GET", path, 404) for path in _NOWHERE] + [
    Row("ito", "GET", "//articles", 404),
    Row("ito", "GET", "///articles/1", 404),
    Row("ito", "GET", "//evil.example/%2e%2e", 404),
    Row("ito", "GET", "/articles//1", 308, "/articles/1"),
    Row("ito", "GET", "/articles?q=" + quote("養生") + "%ed%a0%80", 400),
    Row("ito", "GET", "/articles?after=" + "A" * 3000, 422),
    Row("ito", "GET", "/articles?after=eyJhIjoxfQ", 400),
    Row("ito", "GET", "/articles?q=a&q=b", 422),
    Row("ito", "GET", "/articles?q=%00", 422),
    Row("ito", "GET", "/admin/audit?before=-1", 422),
    Row("ito", "GET", "/admin/audit?before=%EF%BC%91", 422),
    Row("ito", "GET", "/admin/audit?q=" + "a" * 101, 422),
    Row("ito", "GET", "/admin/tasks?state=everything", 422),
    Row("nobody", "GET", "/%61dmin/audit", 303, "/sign-in?next="),
    Row("tanaka", "GET", "/%61dmin/audit", 403),
    Row("tanaka", "GET", "//admin/audit", 404),
    Row("tanaka", "GET", "/api/admin/../knowledge", 404),
]


def test_ways_to_a_page(
    app: Any, people: dict[str, Any], clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    assert_harmless(app, people, PATHS, clock, caplog)


# --- what belongs to others --------------------------------------------------------------------------

_OUTSIDE = ("nobody", "kobayashi", "suzuki")
"""Who may not so much as know of the draft."""


def of_others(draft: str, report: str, foreign_session: str) -> Iterator[Row]:
    number = draft.rpartition("/")[2]
    edit = {**FORM, "title": "乗っ取り", "revision": "1"}
    step = {"step": "submit", "revision": "1", "comment": ""}
    comment, restore = {"body": "x"}, {"revision": "1"}
    article = {"title": "乗っ取り", "category": "土工", "body": "x", "tags": [], "revision": 1}
    for who in _OUTSIDE:
        gone, there = (401, 303) if who == "nobody" else (404, 404)
        for page in ("", "/edit", "/history", "/history/1"):
            yield Row(who, "GET", draft + page, there)
        for page, form in (
            ("/edit", edit),
            ("/steps", step),
            ("/comments", comment),
            ("/history/1/restore", restore),
        ):
            yield Row(who, "POST", draft + page, gone, form=form)
        yield Row(who, "GET", f"/api/knowledge/{number}", gone)
        yield Row(who, "PUT", f"/api/knowledge/{number}", gone, json=article, headers={"If-Match": "*"})
        yield Row(who, "DELETE", f"/api/knowledge/{number}", gone, json={}, headers={"If-Match": "*"})
        yield Row(who, "POST", f"/api/knowledge/{number}/comments", gone, json=comment)
        yield Row(who, "GET", f"/articles?q={quote('機密の下書き')}", 303 if who == "nobody" else 200)
    for who in ("nobody", "kobayashi", "tanaka", "ito"):
        gone, there = (401, 303) if who == "nobody" else (404, 404)
        yield Row(who, "GET", f"/reports/{report}", there)
        yield Row(who, "GET", f"/reports/{report}/file?until=9999999999&signature={'0' * 64}", there)
        yield Row(who, "POST", f"/reports/{report}/cancel", gone)
        yield Row(who, "GET", f"/api/tasks/{report}", gone)
        yield Row(who, "DELETE", f"/api/tasks/{report}", gone, json={})
        yield Row(who, "POST", "/account/sessions/end", gone, form={"session": foreign_session})
    # What everybody may read, and not change.
    for who in ("kobayashi", "suzuki"):
        yield Row(who, "POST", "/articles/1/edit", 403, form=edit)
        yield Row(who, "POST", "/articles/1/steps", 403, form={**step, "step": "retire"})
        yield Row(who, "PUT", "/api/knowledge/1", 403, json=article, headers={"If-Match": "*"})
        yield Row(who, "DELETE", "/api/knowledge/1", 403, json={}, headers={"If-Match": "*"})
    yield Row("tanaka", "POST", f"{draft}/steps", 403, form={**step, "step": "approve"})
    for who, path in product(
        ("kobayashi", "tanaka", "suzuki", "sato"),
        (
            "/admin/accounts",
            "/admin/accounts/ito",
            "/admin/tasks",
            "/admin/second-factor",
            "/admin/accounts/ito/invite",
        ),
    ):
        yield Row(who, "POST", path, 403, form={"owner": "ito", "help": "reset", "reason": "x"})
    for who, path in product(("kobayashi", "sato"), ("/api/auth/register", "/api/admin/cdn/purge")):
        yield Row(who, "POST", path, 403, json={"everything": True})


def test_what_belongs_to_others(
    app: Any, people: dict[str, Any], draft: str, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    wish = {"kind": "monthly", "subject": "2026-11", "format": "xlsx", "key": "k" * 16}
    asked = people["sato"].api("POST", "/api/reports", wish)
    assert asked.status_code == 202
    parts = app.extensions["knowledge"]
    with parts.sessions() as session:
        owner = session.scalar(select(models.User.id).where(models.User.username == "sato"))
    foreign = parts.session_manager.sessions(str(owner))[0].key
    assert_harmless(app, people, of_others(draft, asked.json["id"], foreign), clock, caplog)


# --- requests that other sites make people send ------------------------------------------------------

_REMARK = {"body": "勝手な投稿"}
_EVIL = "https://evil.example"


def _forged(headers: Mapping[str, str | None], *, csrf: str = "own", **how: Any) -> Row:
    return Row("sato", "POST", "/articles/1/comments", 403, form=_REMARK, headers=headers, csrf=csrf, **how)


FORGED = [
    *[
        _forged({"Origin": origin})
        for origin in (
            _EVIL,
            "null",
            "",
            "https://localhost",
            "http://localhost:8443",
            "https://localhost:8443.evil.example",
            "https://localhost:8443@evil.example",
            "https://evil.example/https://localhost:8443",
            "https://LOCALHOST.evil",
            "file://",
        )
    ],
    *[
        _forged({"Origin": None}, csrf=token)
        for token in ("none", "", "x", "A" * 64, "own ", "\x00", "0" * 5000)
    ],
    _forged({"Origin": None, "Referer": f"{_EVIL}/x"}),
    _forged({"Origin": None, "Referer": f"{_EVIL}/?{URL}"}, csrf="none"),
    _forged({"Origin": None, "Sec-Fetch-Site": "cross-site"}),
    _forged({"Origin": _EVIL, "Sec-Fetch-Site": "same-origin"}),
    _forged({"Origin": _EVIL, "X-Forwarded-Host": "evil.example"}),
    Row("sato", "POST", "/sign-out", 403, headers={"Origin": _EVIL}),
    Row("sato", "GET", "/sign-out", 405),
    Row("ito", "POST", "/admin/accounts/sato", 403, headers={"Origin": _EVIL}, form={"role": "admin"}),
    Row("sato", "POST", "/api/knowledge/1/comments", 403, json=_REMARK, headers={"Origin": _EVIL}),
    Row(
        "sato",
        "POST",
        "/api/knowledge/1/comments",
        403,
        form=b'{"body": "x"}',
        headers={"Origin": _EVIL, "Content-Type": "text/plain"},
    ),
    Row(
        "sato", "POST", "/sign-in", 403, headers={"Origin": _EVIL}, form={"username": "x", "password": SECRET}
    ),
    Row(
        "nobody",
        "POST",
        "/sign-in",
        403,
        headers={"Origin": _EVIL},
        form={"username": "x", "password": SECRET},
    ),
    Row("nobody", "POST", "/api/auth/login", 403, headers={"Origin": _EVIL}, json={"password": SECRET}),
    Row("sato", "DELETE", "/api/knowledge/1", 403, headers={"Origin": _EVIL, "If-Match": "*"}, json={}),
]


def test_requests_that_other_sites_make_people_send(
    app: Any, people: dict[str, Any], clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    assert_harmless(app, people, FORGED, clock, caplog)


# --- where one is sent on to -------------------------------------------------------------------------

_ELSEWHERE = (
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/%5cevil.example",
    "https://evil.example",
    "https:evil.example",
    "http:///evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    " //evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\nSet-Cookie: a=b",
    "／／evil.example",
    "//evil%2eexample",
    "@evil.example",
    ".evil.example",
    "/" + "a" * 600,
    "\x00",
)
NEXT = [
    row
    for target in _ELSEWHERE
    for row in (
        Row("sato", "GET", f"/sign-in?next={quote(target)}", 303),
        Row("sato", "POST", "/session/refresh", 303, form={"next": target}),
    )
]


def test_where_one_is_sent_on_to(
    app: Any, people: dict[str, Any], clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    assert_harmless(app, people, NEXT, clock, caplog)


# --- header fields, sizes and encodings --------------------------------------------------------------


def _page(headers: Mapping[str, str | None], status: int = 200, says: str = "") -> Row:
    return Row("tanaka", "GET", "/articles", status, says, headers=headers)


def _sent(body: bytes, status: int, says: str = "", kind: str = "") -> Row:
    headers = {"Content-Type": kind} if kind else {}
    return Row("tanaka", "POST", "/articles", status, says, form=body, headers=headers)


def _typed(**fields: str) -> Row:
    return Row("tanaka", "POST", "/articles", 422, form={**FORM, **fields})


FIELDS = [
    *[
        _page({"Host": host}, 400)
        for host in (
            "evil.example",
            "localhost:8443.evil.example",
            "localhost@evil.example",
            "localhost:8443, evil.example",
            "localhost\tevil",
            "ｌocalhost:8443".encode().decode("latin-1"),
            "127.0.0.1:8443",
            "[::1]:8443",
        )
    ],
    _page({"X-Forwarded-Host": "evil.example"}),
    _page({"X-Forwarded-Proto": "http"}),
    _page({"Forwarded": "host=evil.example;proto=http"}),
    _page({"X-Original-URL": "/admin/audit"}),
    _page({"X-Rewrite-URL": "/admin/audit"}),
    _page({"X-HTTP-Method-Override": "DELETE"}),
    _page({"Accept-Language": "x" * 4000}),
    _page({"Accept-Language": "../../etc/passwd"}),
    _page({"Accept": "," * 3000}),
    _page({"Range": "bytes=0-,5-,99-"}),
    _page({"If-Modified-Since": "x"}),
    _page({"If-None-Match": "x" * 4000}),
    _page({"X-Request-Id": "a\tb<script>"}),
    _page({"User-Agent": "<script>alert(1)</script>"}),
    Row("nobody", "GET", "/articles", 303, headers={"Cookie": "=;=;=" * 500}),
    Row("nobody", "GET", "/articles", 303, headers={"Cookie": "__Host-mks-session=" + "A" * 43}),
    Row("nobody", "GET", "/articles", 303, headers={"Cookie": "__Host-mks-session=\x01"}),
    Row(
        "nobody",
        "GET",
        "/articles",
        303,
        headers={"Cookie": "knowledge_device=x; __Host-knowledge_challenge=../../x"},
    ),
    Row("tanaka", "POST", "/articles/1", 405, form={"_method": "DELETE"}),
    *[
        Row("ito", method, "/articles", 405)
        for method in ("PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "X" * 300)
    ],
    *[
        _typed(**{name: text})
        for name, text in product(("title", "site"), ("a\x00b", "\u202eabc", "\x1b[31m", "a\nb", "あ" * 201))
    ],
    *[_typed(title=text) for text in ("\u200b", "\u3164", "\u2800", "\u00ad\u200d", " \u3000 ", "\ufeff")],
    _typed(body="x" * 50_001),
    _typed(tags=",".join("abcdefghijk")),
    *[
        _typed(**{name: "1"})
        for name in (
            "id",
            "author_id",
            "shown_revision",
            "slug",
            "created_at",
            "role",
            "is_admin",
            "__class__",
        )
    ],
    _typed(status="published"),
    _typed(status="retired"),
    _sent(b"title=%ff", 400),
    _sent(b"title=\xff", 400),
    _sent(b"title=%ed%a0%80", 400),
    _sent(b"title=a&title=b", 422),
    _sent(b"&".join(b"f%d=1" % number for number in range(3000)), 400),
    _sent(b"a=" + b"x" * 1_100_000, 413),
    _sent(b"a=b", 415, kind="multipart/form-data; boundary=x"),
    _sent(b"a=b", 415, kind="application/xml"),
    _sent(
        b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
        415,
        kind="text/xml",
    ),
    _sent("title=\u3042".encode("utf-16"), 400, kind="application/x-www-form-urlencoded; charset=utf-16"),
    Row(
        "ito",
        "POST",
        "/admin/accounts",
        422,
        form={"username": "ＩＴＯ", "display_name": "x", "role": "admin"},
    ),
    Row(
        "ito",
        "POST",
        "/admin/accounts",
        422,
        form={"username": "it\u200bo", "display_name": "x", "role": "admin"},
    ),
    Row(
        "ito",
        "POST",
        "/admin/accounts",
        422,
        form={"username": "root\r\nBcc: x", "display_name": "x", "role": "x"},
    ),
    Row(
        "ito",
        "POST",
        "/admin/accounts/tanaka",
        422,
        form={"display_name": "田中", "role": "admin", "active": "on", "password_hash": "x"},
    ),
    Row(
        "ito",
        "POST",
        "/admin/accounts/tanaka",
        422,
        form={
            "display_name": "田中",
            "role": "writer",
            "email": "a@x.example\r\nBcc: b@x.example",
            "active": "on",
        },
    ),
    Row(
        "ito",
        "POST",
        "/admin/accounts/tanaka",
        422,
        form={"display_name": "田中", "role": "root", "active": "on"},
    ),
]


def test_header_fields_sizes_and_encodings(
    app: Any, people: dict[str, Any], clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    assert_harmless(app, people, FIELDS, clock, caplog)


# --- secrets and tokens ------------------------------------------------------------------------------


def _login(body: Any, status: int) -> Row:
    return Row("nobody", "POST", "/api/auth/login", status, json=body)


SECRETS = [
    Row("nobody", "POST", "/sign-in", 401, form={"username": "tanaka", "password": SECRET}),
    Row("nobody", "POST", "/sign-in", 401, form={"username": "nobody", "password": SECRET}),
    Row("nobody", "POST", "/sign-in", 422, form={"username": "tanaka", "password": SECRET * 20}),
    Row("nobody", "POST", "/sign-in", 422, form={"password": SECRET}),
    Row("nobody", "POST", "/sign-in", 422, form={"username": "x", "password": SECRET, "remember": SECRET}),
    Row("nobody", "POST", "/password/reset", 403, form={"token": "x" * 43, "new_password": SECRET}),
    Row("nobody", "POST", "/password/reset", 403, form={"token": "' OR 1=1 --", "new_password": SECRET}),
    Row("nobody", "POST", "/sign-in/passkey", 403, form={"answer": SECRET, "next": "/"}),
    Row("sato", "POST", "/account/confirm", 403, form={"proof": SECRET}),
    Row(
        "sato", "POST", "/account/password", 403, form={"password": SECRET, "new_password": "tall-crane-4417"}
    ),
    Row("sato", "POST", "/account/password", 422, form={"password": DEMO_PASSWORD, "new_password": "sato"}),
    Row("ito", "POST", "/admin/accounts", 422, form={"username": "x", "password": SECRET, "role": "x"}),
    _login({"username": "tanaka", "password": SECRET}, 401),
    _login({"username": "tanaka", "password": [SECRET]}, 422),
    _login({"username": {"$ne": ""}, "password": {"$gt": ""}}, 422),
    _login({"username": "tanaka' OR '1'='1", "password": SECRET}, 401),
    _login({"username": "tanaka\u0000", "password": SECRET}, 422),
    _login({"username": "TANAKA", "password": DEMO_PASSWORD}, 401),
    _login({"username": "ｔanaka", "password": DEMO_PASSWORD}, 401),
    _login({"username": "tana\u200bka", "password": DEMO_PASSWORD}, 401),
    _login({"username": "tanaka", "password": SECRET, "role": "admin"}, 422),
    _login({"username": "tanaka", "password": SECRET, "tokens": "yes"}, 422),
    Row("nobody", "POST", "/api/auth/2fa/verify", 401, json={"code": "000000", "challenge": SECRET}),
    Row("nobody", "POST", "/api/auth/token/refresh", 401, json={"refresh_token": SECRET}),
    Row("nobody", "POST", "/api/auth/token/refresh", 422, json={"refresh_token": SECRET + "\u0000"}),
    Row(
        "nobody",
        "POST",
        "/api/auth/password-reset/confirm",
        401,
        json={"token": SECRET, "new_password": "tall-crane-4417"},
    ),
    Row("nobody", "GET", "/api/auth/me", 401, headers={"Authorization": f"Bearer {SECRET}"}),
    Row(
        "nobody",
        "GET",
        "/articles",
        401,
        headers={"Authorization": f"Basic {SECRET}", "Accept": "application/json"},
    ),
    Row("sato", "GET", f"/articles?token={SECRET}", 200),
    Row("sato", "GET", f"/nowhere?password={SECRET}", 404),
]


def test_secrets_come_back_nowhere(
    app: Any, people: dict[str, Any], clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert_harmless(app, people, SECRETS, clock, caplog)


# --- what is signed with the right key and still no token of ours ------------------------------------


def test_tokens_that_are_no_access_tokens(
    app: Any, people: dict[str, Any], clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    parts = app.extensions["knowledge"]
    asked = {"username": "tanaka", "password": DEMO_PASSWORD, "tokens": True}
    pair, other = (people["nobody"].api("POST", "/api/auth/login", asked).json for _ in range(2))
    header = jwt.get_unverified_header(pair["access_token"])
    good = jwt.decode(pair["access_token"], options={"verify_signature": False})
    foreign = jwt.decode(other["access_token"], options={"verify_signature": False})["sid"]
    secret = key_bytes(parts.settings.hardening.security.secret_keys)[0]
    key = hmac.digest(secret, b"access tokens of the API", "sha256")
    now = int(clock.time())

    def made(*, signed_by: bytes = key, algorithm: str = "HS256", head: Any = None, **changed: Any) -> str:
        content = {name: value for name, value in {**good, **changed}.items() if value is not None}
        return jwt.encode(content, signed_by, algorithm=algorithm, headers={**header, **(head or {})})

    unsigned = jwt.encode(good, None, algorithm="none", headers={**header, "alg": "none"}).rpartition(".")[0]
    refused = [
        made(exp=now - 1),
        made(exp=now),
        made(iat=now + 3600, exp=now + 7200),
        made(nbf=now + 10**9),
        made(exp=None),
        made(iat=None),
        made(sid=None),
        made(sub=None),
        made(jti=None),
        made(aud="elsewhere"),
        made(aud=None),
        made(iss="https://evil.example"),
        made(iss=None),
        made(sub="6"),
        made(sub="0"),
        made(sid="0" * 32),
        made(sid="' OR ''='"),
        made(sid=["x"]),
        made(head={"typ": "JWT"}),
        made(head={"typ": "refresh+jwt"}),
        made(head={"kid": "0" * 16}),
        made(head={"kid": "../../dev/null"}),
        made(signed_by=b"k" * 32),
        made(signed_by=secret),
        made(algorithm="HS512", signed_by=key * 2),
        unsigned + ".",
        unsigned + "." + good["jti"],
        pair["access_token"][:-4],
        pair["access_token"] + "A",
        pair["access_token"].rpartition(".")[0] + ".",
        pair["access_token"].swapcase(),
        pair["refresh_token"],
        f"{pair['access_token']}, {other['access_token']}",
    ]
    rows = [
        Row("nobody", "GET", "/api/auth/me", 401, headers={"Authorization": f"Bearer {each}"})
        for each in refused
    ]
    assert (
        people["nobody"].api("GET", "/api/auth/me", Authorization=f"Bearer {made(sid=foreign)}").status_code
        == 200
    )
    assert_harmless(app, people, rows, clock, caplog)
    # A refresh token that was used ends its family, and no other.
    for token, status in ((pair, 200), (pair, 401)):
        body = {"refresh_token": token["refresh_token"]}
        assert people["nobody"].api("POST", "/api/auth/token/refresh", body).status_code == status


# --- what becomes markup, a formula, a header of a mail ----------------------------------------------

_SCRIPTS = (
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example></ScRiPt>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<img src=x onerror=alert(1)>",
    "<img src=x onerror\n=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><animate onbegin=alert(1)>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<form action=//evil.example><button>x</button></form>",
    "<input autofocus onfocus=alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<p style='background:url(//evil.example)'>x</p>",
    "<link rel=stylesheet href=//evil.example>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "</main></body><script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:msgbox(1))",
    "[x](file:///etc/passwd)",
    "![x](javascript:alert(1))",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    '![x](x"onerror="alert(1))',
    '[x](https://a.example "onmouseover=alert(1)")',
    "[x](https://a.example'onmouseover='alert(1))",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    "`<script>alert(1)</script>`",
    "```\n</code></pre><script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\nx\n```',
    "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
    "- [ ] <img src=x onerror=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u003cscript\u003ealert(1)\u003c/script\u003e",
    "{{ config }}{% include '/etc/passwd' %}",
    "${7*7}#{7*7}<%= 7*7 %>",
)


class Markup(HTMLParser):
    """What a browser would act upon."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found = set[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "script" and not named.get("nonce"):
            self.found.add("script")
        if tag in {"iframe", "object", "embed", "base", "svg", "math", "style", "animate", "noscript"}:
            self.found.add(tag)
        if tag == "meta" and "http-equiv" in named:
            self.found.add("meta")
        for name, value in attrs:
            scheme = urlsplit((value or "").strip()).scheme
            if name.startswith("on") or name in {"style", "srcdoc"}:
                self.found.add(name)
            if name in {"href", "src", "action", "formaction", "data"} and scheme not in {
                "",
                "https",
                "http",
                "mailto",
            }:
                self.found.add(f"{name} {scheme}")
            if name in {"src", "action", "formaction"} and "evil.example" in (value or ""):
                self.found.add(f"{name} elsewhere")


def test_no_text_becomes_markup(people: dict[str, Any], clock: FrozenClock) -> None:
    writer, found = people["tanaka"], dict[str, set[str]]()
    for text in _SCRIPTS:
        clock.advance(7)
        title = text.partition("\n")[0].replace("\t", " ")
        page = writer.post("/articles/preview", {"title": title, "summary": text, "body": text})
        assert page.status_code == 200, text
        if acted := Markup(page.get_data(as_text=True)).found:
            found[text] = acted
    assert found == {}
    made = writer.post(
        "/articles", {**FORM, "body": "\n\n".join(_SCRIPTS), "site": _SCRIPTS[0], "tags": "<b>x"}
    )
    path = made.headers["Location"].partition("?")[0]
    for text in _SCRIPTS:
        clock.advance(30)
        assert writer.post(f"{path}/comments", {"body": text}).status_code == 303
    for page in (path, f"{path}/edit", f"{path}/history", f"{path}/history/1", "/articles?status=draft"):
        assert Markup(writer.get(page).get_data(as_text=True)).found == set(), page


_FORMULAS = (
    "=1+1",
    "+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    '=HYPERLINK("https://evil.example")',
    "=cmd|' /C calc'!A0",
)


def test_no_text_becomes_a_formula(app: Any) -> None:
    """Every cell of text is a string by its type, which no spreadsheet evaluates."""
    with app.extensions["knowledge"].sessions() as session:  # never committed
        for row, text in zip(session.scalars(select(models.Article)), _FORMULAS, strict=False):
            row.title = text
        for person, text in zip(session.scalars(select(models.User)), _FORMULAS, strict=False):
            person.display_name = person.department = text
        session.flush()
        now = datetime(2026, 11, 25, tzinfo=UTC)
        ito = Actor(1, "ito", "", "admin")
        months = reports.months(session, ito, now=now)
        files = [write_sheet(reports.figures(session, ito, "monthly", month, now=now)) for month in months]
    result = "".join(
        archive.read(entry).decode()
        for file in files
        for archive in [zipfile.ZipFile(BytesIO(file))]
        for entry in archive.namelist()
        if entry.startswith("xl/")
    )
    assert "=1+1" in result
    assert "HYPERLINK" in result
    assert "<f>" not in result
    assert "hyperlink" not in result
