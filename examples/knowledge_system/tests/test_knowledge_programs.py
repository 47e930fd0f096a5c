"""Programs: bearer tokens, versions and repeated calls, and what is sent by those who mean no good."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

import jwt
import pytest
from sqlalchemy import select, update
from werkzeug.test import Client, TestResponse, run_wsgi_app

from knowledge_system.models import IdempotencyRecord, RefreshToken, TokenFamily
from knowledge_system.settings import DEMO_PASSWORD
from knowledge_system.web import article_changes
from mks_hardening.cache import CDNManager
from mks_hardening.security import totp_code
from mks_hardening.testing import FrozenClock
from testbed.http_sink import Answer, HttpSink

URL = "https://localhost:8443"
ARTICLE = {"title": "盛土の締固め管理", "category": "土工", "body": "締固め度 90% 以上", "tags": ["盛土"]}


class Program:
    """Keeps no cookies and sends no origin."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.client = Client(app, use_cookies=False)
        self.tokens: dict[str, Any] = {}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        sent = {"Accept": "application/json"}
        if self.tokens:
            sent["Authorization"] = f"Bearer {self.tokens['access_token']}"
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if content is not None:
            sent["Content-Type"] = "application/json"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.open(
            path,
            method=method,
            base_url=URL,
            data=content,
            headers={**sent, **named},
            environ_base={"REMOTE_ADDR": "127.0.0.1"},
            buffered=True,
        )

    def sign_in(self, name: str, password: str = DEMO_PASSWORD) -> Program:
        answer = self.call(
            "POST", "/api/auth/login", {"username": name, "password": password, "tokens": True}
        )
        assert answer.status_code == 200
        self.tokens = answer.json or {}
        return self

    def renew(self, refresh_token: str = "") -> TestResponse:
        body = {"refresh_token": refresh_token or self.tokens["refresh_token"]}
        return Program(self.app).call("POST", "/api/auth/token/refresh", body)

    @property
    def status(self) -> int:
        return self.call("GET", "/api/auth/me").status_code


@pytest.fixture
def program(app: Any) -> Callable[..., Program]:
    return lambda name="": Program(app).sign_in(name) if name else Program(app)


def elsewhere(call: Callable[[], TestResponse]) -> TestResponse:
    """A call of another process: within a request, Flask gives a second one the same ``g``."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


# --- tokens --------------------------------------------------------------------------------------


def test_a_program_signs_in_and_is_who_it_says(program: Callable[..., Program], clock: FrozenClock) -> None:
    clock.advance(0.75)
    tanaka = program("tanaka")
    result = claims(tanaka.tokens["access_token"])
    assert result["amr"] == ["pwd"]
    assert result["auth_time"] == clock.time()
    assert result["exp"] - result["iat"] == tanaka.tokens["expires_in"] == 600
    assert jwt.get_unverified_header(tanaka.tokens["access_token"])["typ"] == "at+jwt"
    who = tanaka.call("GET", "/api/auth/me")
    assert who.json is not None
    assert (who.json["username"], who.headers.get("Set-Cookie")) == ("tanaka", None)
    assert tanaka.call("POST", "/api/knowledge", ARTICLE).status_code == 201
    clock.advance(600)
    assert tanaka.status == 401
    tanaka.tokens = tanaka.renew().json or {}
    assert tanaka.status == 200
    assert claims(tanaka.tokens["access_token"])["auth_time"] == result["auth_time"]


def test_a_refresh_token_used_twice_ends_its_family_and_no_other(program: Callable[..., Program]) -> None:
    thief, other = program("tanaka"), program("tanaka")
    stolen = thief.tokens["refresh_token"]
    assert thief.renew().status_code == 200
    assert thief.status == other.status == 200
    newest = thief.renew(stolen)
    assert newest.status_code == 401
    assert (thief.status, other.status) == (401, 200)


def test_of_two_that_renew_at_once_one_gets_tokens(
    make_app: Callable[..., Any], postgres_url: str, clock: FrozenClock
) -> None:
    del clock
    app = make_app(database_url=postgres_url)
    mine = Program(app).sign_in("tanaka")
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(mine.renew().status_code)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [200, 401, 401, 401]
    assert mine.status == 401


def test_tokens_are_not_in_the_database(app: Any, program: Callable[..., Program]) -> None:
    tokens = program("tanaka").tokens
    with app.extensions["knowledge"].sessions() as session:
        kept = [row.digest for row in session.scalars(select(RefreshToken))]
        family = session.scalars(select(TokenFamily)).one()
    assert len(kept) == 1
    assert tokens["refresh_token"] not in kept[0]
    assert tokens["access_token"] not in family.facts


def sign_out(program: Program, _app: Any, _clock: FrozenClock) -> None:
    assert program.call("POST", "/api/auth/logout").status_code == 200


def new_password(program: Program, app: Any, _clock: FrozenClock) -> None:
    elsewhere = Program(app).sign_in("tanaka")
    body = {"password": DEMO_PASSWORD, "new_password": "tall-crane-4417"}
    assert elsewhere.call("POST", "/api/auth/password", body).status_code == 200
    assert elsewhere.status == 200, "the one that changed it goes on"


def second_factor(program: Program, app: Any, clock: FrozenClock) -> None:
    elsewhere = Program(app).sign_in("tanaka")
    secret = (elsewhere.call("POST", "/api/auth/2fa/setup").json or {})["secret"]
    code = {"code": totp_code(secret, at=clock.time())}
    assert elsewhere.call("POST", "/api/auth/2fa/enable", code).status_code == 200
    assert elsewhere.status == 200


def reset_by_administrator(program: Program, app: Any, _clock: FrozenClock) -> None:
    who = program.call("GET", "/api/auth/me").json or {}
    app.extensions["knowledge"].sign_in.admin_reset(str(who["id"]), actor="ito", reason="lost")


def long_time(program: Program, _app: Any, clock: FrozenClock) -> None:
    for _ in range(7):
        clock.advance(timedelta(days=13).total_seconds())
        renewed = program.renew()
        program.tokens = (renewed.json or {}) if renewed.status_code == 200 else program.tokens


def forgotten(_program: Program, _app: Any, clock: FrozenClock) -> None:
    clock.advance(timedelta(days=14).total_seconds())


@pytest.mark.parametrize(
    "end", [sign_out, new_password, second_factor, reset_by_administrator, long_time, forgotten]
)
def test_what_ends_a_family(
    app: Any,
    program: Callable[..., Program],
    clock: FrozenClock,
    end: Callable[[Program, Any, FrozenClock], None],
) -> None:
    tanaka, sato = program("tanaka"), program("sato")
    end(tanaka, app, clock)
    assert tanaka.status == 401
    assert tanaka.renew().status_code == 401
    if end not in {long_time, forgotten}:
        assert sato.status == 200


def test_a_second_factor_of_a_program(program: Callable[..., Program], clock: FrozenClock) -> None:
    first = program("tanaka")
    secret = (first.call("POST", "/api/auth/2fa/setup").json or {})["secret"]
    first.call("POST", "/api/auth/2fa/enable", {"code": totp_code(secret, at=clock.time())})
    clock.advance(30)
    second = program()
    body = {"username": "tanaka", "password": DEMO_PASSWORD, "tokens": True}
    asked = second.call("POST", "/api/auth/login", body).json or {}
    assert set(asked) == {"second_factor_required", "challenge"}
    wrong = {"challenge": asked["challenge"], "code": "000000"}
    assert second.call("POST", "/api/auth/2fa/verify", wrong).status_code == 401
    right = {"challenge": asked["challenge"], "code": totp_code(secret, at=clock.time())}
    second.tokens = second.call("POST", "/api/auth/2fa/verify", right).json or {}
    assert second.status == 200
    assert set(claims(second.tokens["access_token"])["amr"]) >= {"mfa", "otp"}
    assert program().call("POST", "/api/auth/2fa/verify", right).status_code == 401, "works once"


def test_an_unreadable_token_does_not_fall_back_on_the_cookie(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    assert person.api("GET", "/api/auth/me").status_code == 200
    answer = person.api("GET", "/api/auth/me", Authorization="Bearer x")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="knowledge", error="invalid_token"'


def test_asking_for_a_new_password_tells_nothing(program: Callable[..., Program]) -> None:
    tanaka = program("tanaka")
    known = tanaka.call("POST", "/api/auth/password-reset", {"username": "tanaka"})
    unknown = tanaka.call("POST", "/api/auth/password-reset", {"username": "nobody"})
    assert (
        (known.status_code, known.json) == (unknown.status_code, unknown.json) == (202, {"requested": True})
    )
    assert tanaka.status == 200
    body = {"token": "x" * 43, "new_password": "tall-crane-4417"}
    assert tanaka.call("POST", "/api/auth/password-reset/confirm", body).status_code == 401


def test_where_one_is_signed_in_is_listed_and_ended(
    program: Callable[..., Program], visit: Callable[..., Any], clock: FrozenClock
) -> None:
    asking, other, foreign, person = program("tanaka"), program("tanaka"), program("sato"), visit("tanaka")
    listed = (asking.call("GET", "/api/auth/sessions").json or {})["items"]
    assert sorted(each["kind"] for each in listed) == ["browser", "program", "program"]
    assert [each["id"] for each in listed if each["current"]] == [
        claims(asking.tokens["access_token"])["sid"]
    ]
    address = "/api/auth/sessions/"
    for each in listed:
        assert foreign.call("DELETE", address + each["id"]).status_code == 404
    for each in (item for item in listed if not item["current"]):
        assert asking.call("DELETE", address + each["id"]).status_code == 204
        assert asking.call("DELETE", address + each["id"]).status_code == 404
    clock.advance(60)
    assert (other.status, other.renew().status_code) == (401, 401)
    assert person.get("/articles").status_code == 303
    assert asking.status == 200
    assert len((asking.call("GET", "/api/auth/sessions").json or {})["items"]) == 1


def test_what_an_account_may_holds_for_its_tokens_at_once(
    app: Any, program: Callable[..., Program], visit: Callable[..., Any], clock: FrozenClock
) -> None:
    """Out of use, another role, a factor that a role needs, a factor added in a browser: no token outlives it."""
    tanaka, suzuki, ito = program("tanaka"), program("suzuki"), visit("ito")
    edited = {"display_name": "x", "department": "", "role": "writer", "email": "", "active": ""}
    assert ito.post("/admin/accounts/tanaka", edited).status_code == 303
    assert (tanaka.status, tanaka.renew().status_code) == (401, 401)
    assert ito.post("/admin/accounts/tanaka", {**edited, "active": "on"}).status_code == 303
    assert (tanaka.status, tanaka.renew().status_code) == (401, 401), "not even when it is in use again"
    assert suzuki.call("POST", "/api/knowledge", ARTICLE).status_code == 201
    assert ito.post("/admin/accounts/suzuki", {**edited, "role": "viewer", "active": "on"}).status_code == 303
    assert suzuki.call("POST", "/api/knowledge", ARTICLE).status_code == 403
    parts = app.extensions["knowledge"]
    needing = replace(parts.settings, second_factor_roles=frozenset({"viewer"}))
    app.extensions["knowledge"] = replace(parts, settings=needing)
    for method, path in (("GET", "/api/knowledge"), ("GET", "/api/reports/status/" + "0" * 32)):
        refused = suzuki.call(method, path)
        assert (refused.status_code, (refused.json or {})["type"]) == (
            403,
            "/problems/second-factor-required",
        )
    assert suzuki.status == 200, "the account itself stays in reach, to set one up"
    secret = (suzuki.call("POST", "/api/auth/2fa/setup").json or {})["secret"]
    code = {"code": totp_code(secret, at=clock.time())}
    assert suzuki.call("POST", "/api/auth/2fa/enable", code).status_code == 200
    assert suzuki.call("GET", "/api/knowledge").status_code == 200
    browser = visit("kobayashi")
    kobayashi = program("kobayashi")
    secret = browser.api("POST", "/api/auth/2fa/setup").json["secret"]
    code = {"code": totp_code(secret, at=clock.time())}
    assert browser.api("POST", "/api/auth/2fa/enable", code).status_code == 200
    assert (kobayashi.status, kobayashi.renew().status_code) == (401, 401)


def test_reports_have_the_names_of_the_proposal_too(program: Callable[..., Program]) -> None:
    sato, tanaka = program("sato"), program("tanaka")
    wish = {"kind": "monthly", "subject": "2026-11", "format": "xlsx", "key": "k" * 16}
    made = sato.call("POST", "/api/reports/generate", wish)
    assert made.status_code == 202
    address = "/api/reports/status/" + (made.json or {})["id"]
    assert sato.call("GET", address).status_code == 202
    assert (sato.call("GET", address).json or {})["state"] == "waiting"
    assert tanaka.call("GET", address).status_code == 404


# --- versions ------------------------------------------------------------------------------------


def test_versions(program: Callable[..., Program]) -> None:
    sato = program("sato")
    made = sato.call("POST", "/api/knowledge", ARTICLE)
    path, first = made.headers["Location"], made.headers["ETag"]
    read = sato.call("GET", path)
    assert read.headers["ETag"] == first
    assert read.headers["Cache-Control"] == "private, no-cache"
    unchanged = sato.call("GET", path, If_None_Match=f'"x", W/{first}')
    assert (unchanged.status_code, unchanged.get_data()) == (304, b"")
    assert sato.call("PUT", path, ARTICLE).status_code == 428
    for wrong in ('"x"', f"W/{first}", first.strip('"'), "", '"'):
        refused = sato.call("PUT", path, ARTICLE, If_Match=wrong)
        assert refused.status_code == 412, wrong
        assert sato.call("DELETE", path, If_Match=wrong).status_code == 412, wrong
    assert (refused.json or {})["current_revision"] == 1
    changed = sato.call("PUT", path, {**ARTICLE, "title": "改"}, If_Match=f'"other", {first}')
    assert (changed.status_code, (changed.json or {})["revision"]) == (200, 2)
    assert sato.call("PUT", path, ARTICLE, If_Match=first).status_code == 412
    assert sato.call("DELETE", path).status_code == 428
    assert sato.call("DELETE", path, If_Match=first).status_code == 412


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("*", 412),
        ("{tag}", 412),
        ('W/{tag}, "x"', 412),
        (', {tag},, "x" ,', 412),
        ('"x"', 200),
        (",", 200),
        ("", 200),
    ],
)
def test_a_version_that_is_not_to_be_there(program: Callable[..., Program], field: str, status: int) -> None:
    sato = program("sato")
    made = sato.call("POST", "/api/knowledge", ARTICLE)
    path, tag = made.headers["Location"], made.headers["ETag"]
    sent = {"If_Match": tag, "If_None_Match": field.format(tag=tag)}
    assert sato.call("PUT", path, {**ARTICLE, "title": "別"}, **sent).status_code == status
    sent["If_Match"] = "*"
    if status == 412:
        assert sato.call("DELETE", path, **sent).status_code == 412


@pytest.mark.parametrize("field", [",{tag}", "{tag} , ,", '"x", , {tag}', "\t{tag}\t"])
def test_empty_elements_of_a_list_are_passed_over(program: Callable[..., Program], field: str) -> None:
    sato = program("sato")
    tag = sato.call("GET", "/api/knowledge/1").headers["ETag"]
    sent = {"If_None_Match": field.format(tag=tag)}
    assert sato.call("GET", "/api/knowledge/1", **sent).status_code == 304


def test_a_comment_is_no_new_version(program: Callable[..., Program]) -> None:
    sato = program("sato")
    before = sato.call("GET", "/api/knowledge/1").headers["ETag"]
    for number in range(51):
        added = sato.call("POST", "/api/knowledge/1/comments", {"body": f"確認 {number}"})
        if added.status_code == 429:
            break
    assert sato.call("GET", "/api/knowledge/1").headers["ETag"] == before
    page = sato.call("GET", "/api/knowledge/1/comments").json or {}
    assert page["items"][-1]["body"].startswith("確認")


def test_of_two_that_change_one_version_one_is_saved(
    program: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    sato, ito = program("sato"), program("ito")
    made = sato.call("POST", "/api/knowledge", ARTICLE)
    path, tag = made.headers["Location"], made.headers["ETag"]
    save = article_changes.save_and_read

    def meanwhile(article_id: int, values: dict[str, Any]) -> dict[str, Any]:
        monkeypatch.setattr(article_changes, "save_and_read", save)
        first = elsewhere(lambda: ito.call("PUT", path, {**ARTICLE, "title": "先"}, If_Match=tag))
        assert first.status_code == 200
        return save(article_id, values)

    monkeypatch.setattr(article_changes, "save_and_read", meanwhile)
    late = sato.call("PUT", path, {**ARTICLE, "title": "後"}, If_Match=tag)
    assert (late.status_code, (late.json or {})["current_revision"]) == (412, 2)
    assert (sato.call("GET", path).json or {})["title"] == "先"


def test_who_removes(program: Callable[..., Program]) -> None:
    tanaka, sato, ito = program("tanaka"), program("sato"), program("ito")
    draft = tanaka.call("POST", "/api/knowledge", {**ARTICLE, "body": "消える言葉"}).headers["Location"]
    assert sato.call("DELETE", draft, If_Match="*").status_code == 403
    assert tanaka.call("DELETE", "/api/knowledge/1", If_Match="*").status_code == 403
    gone = tanaka.call("DELETE", draft, If_Match="*")
    assert (gone.status_code, gone.get_data()) == (204, b"")
    assert tanaka.call("GET", draft).status_code == 404
    assert ito.call("DELETE", "/api/knowledge/1", If_Match="*").status_code == 204
    listed = ito.call("GET", "/api/knowledge").json or {}
    assert 1 not in [item["id"] for item in listed["items"]]


# --- calls that are sent again -------------------------------------------------------------------


def test_a_call_sent_again_is_answered_and_not_repeated(program: Callable[..., Program]) -> None:
    sato = program("sato")
    first = sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="a-1")
    again = sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="a-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json == again.json
    assert first.headers["Location"] == again.headers["Location"]
    assert first.headers["ETag"] == again.headers["ETag"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = sato.call("POST", "/api/knowledge", {**ARTICLE, "title": "別"}, Idempotency_Key="a-1")
    assert (other.status_code, (other.json or {})["type"]) == (422, "/problems/key-reused")
    comment = sato.call("POST", "/api/knowledge/1/comments", ARTICLE, Idempotency_Key="a-1")
    assert comment.status_code == 422
    theirs = program("ito").call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="a-1")
    assert theirs.headers["Location"] != first.headers["Location"], "keys of others are other keys"


def test_a_file_sent_again_is_attached_once_however_its_form_is_written(
    program: Callable[..., Program],
) -> None:
    tanaka = program("tanaka")
    path = f"{tanaka.call('POST', '/api/knowledge', ARTICLE).headers['Location']}/attachments"

    def send(boundary: str, *, key: str = "f", name: str = "plan.pdf") -> TestResponse:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = head.encode() + b"%PDF-1.7\nstartxref\n0\n%%EOF\n" + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return tanaka.call("POST", path, body, Content_Type=kind, Idempotency_Key=key)

    first, again = send("one"), send("two")
    assert [each.status_code for each in (first, again)] == [201, 201]
    assert (again.json, again.headers["Location"]) == (first.json, first.headers["Location"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (send("three", name="other.pdf").json or {})["type"] == "/problems/key-reused"
    assert send("three", key="g").status_code == 201
    assert len((tanaka.call("GET", path).json or {})["items"]) == 2


def test_a_step_sent_again_is_taken_once(program: Callable[..., Program]) -> None:
    tanaka = program("tanaka")
    path = f"{tanaka.call('POST', '/api/knowledge', ARTICLE).headers['Location']}/steps"
    step = {"step": "submit", "revision": 1}
    first, again = (tanaka.call("POST", path, step, Idempotency_Key="s") for _ in range(2))
    assert [each.status_code for each in (first, again)] == [200, 200]
    assert again.json == first.json
    assert tanaka.call("POST", path, step).status_code == 409


def test_a_refused_call_can_be_mended_under_its_key(program: Callable[..., Program]) -> None:
    tanaka = program("tanaka")
    body = {**ARTICLE, "status": "published"}
    assert tanaka.call("POST", "/api/knowledge", body, Idempotency_Key="b").status_code == 422
    assert tanaka.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="b").status_code == 201


def test_a_key_is_forgotten_after_a_day(program: Callable[..., Program], clock: FrozenClock) -> None:
    sato = program("sato")
    first = sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="c")
    clock.advance(86_401)
    sato.tokens = sato.renew().json or {}
    again = sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="c")
    assert first.headers["Location"] != again.headers["Location"]


def test_a_call_in_flight(
    app: Any, program: Callable[..., Program], monkeypatch: pytest.MonkeyPatch, clock: FrozenClock
) -> None:
    sato = program("sato")
    create = article_changes.create_and_read
    seen: list[int] = []

    def meanwhile(values: dict[str, Any]) -> dict[str, Any]:
        monkeypatch.setattr(article_changes, "create_and_read", create)
        twin = elsewhere(lambda: sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="d"))
        seen.append(twin.status_code)
        assert twin.headers["Retry-After"] == "1"
        return create(values)

    monkeypatch.setattr(article_changes, "create_and_read", meanwhile)
    assert sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="d").status_code == 201
    assert seen == [409]

    # The process ends after the change and before the answer is kept.
    with app.extensions["knowledge"].sessions.begin() as session:
        session.execute(update(IdempotencyRecord).values(answer=None))
    assert (sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="d").json or {})[
        "type"
    ] == "/problems/call-in-flight"
    clock.advance(61)
    lost = sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="d")
    assert (lost.status_code, (lost.json or {})["type"]) == (409, "/problems/call-unanswered")

    # It ends before the change: whoever comes then carries it out.
    with app.extensions["knowledge"].sessions.begin() as session:
        session.execute(update(IdempotencyRecord).values(changed=False))
    assert sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="d").status_code == 201


def test_of_two_processes_only_the_holder_changes_anything(
    app: Any, program: Callable[..., Program], monkeypatch: pytest.MonkeyPatch, clock: FrozenClock
) -> None:
    """A process that slept longer than its lease finds that another has taken the call, and rolls back."""
    sato = program("sato")
    create = article_changes.create_and_read
    titles: list[str] = []

    def slept(values: dict[str, Any]) -> dict[str, Any]:
        monkeypatch.setattr(article_changes, "create_and_read", create)
        clock.advance(61)
        twin = elsewhere(lambda: sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="e"))
        titles.append(twin.headers["Location"])
        return create(values)

    monkeypatch.setattr(article_changes, "create_and_read", slept)
    late = sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="e")
    assert (late.status_code, (late.json or {})["type"]) == (409, "/problems/call-in-flight")
    again = sato.call("POST", "/api/knowledge", ARTICLE, Idempotency_Key="e")
    assert [again.headers["Location"]] == titles
    del app


# --- what is sent by those who mean no good --------------------------------------------------------


def forged(**changed: Any) -> str:
    """A token with the right form and another signature."""
    content = {
        "iss": "knowledge-system",
        "aud": "knowledge-system/api",
        "sub": "1",
        "sid": "0" * 32,
        "jti": "x",
    }
    times = {"iat": 1_795_564_800, "exp": 1_795_565_400}
    return jwt.encode({**content, **times, **changed}, "k" * 32, headers={"typ": "at+jwt", "kid": "0" * 16})


def unsigned(header: dict[str, Any], content: Any) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(content)}."


BODIES: list[tuple[bytes, set[int]]] = [
    (b"{", {400}),
    (b"[]", {400}),
    (b"null", {400}),
    (b"\xff\xfe\x00", {400}),
    (b"\xef\xbb\xbf{}", {400}),
    (b'{"title": "\xed\xa0\x80"}', {400}),
    (b'{"title": NaN}', {400}),
    (b'{"title": 1e999999}', {422}),
    (b'{"title": ' + b"9" * 5000 + b"}", {400}),
    (b'{"title": "\\u0000"}', {422}),
    (b'{"title": "\\ud800"}', {422}),
    (b'{"title": "\\u202e"}', {422}),
    (b'{"title": "a", "title": "b"}', {400}),
    (b"[" * 100_000, {400}),
    (b'{"a":' * 40_000, {400}),
    (b'{"__proto__": {"admin": true}}', {422}),
    (b'{"author_id": 4, "id": 1}', {422}),
    (b'{"title": {"$ne": null}}', {422}),
    (b'{"title": ["x"], "tags": "x"}', {422}),
    (b'{"tags": [' + b'"x",' * 5000 + b'"x"]}', {422}),
    (b"{}" + b" " * 1_100_000, {413}),
]
AUTHORIZATIONS = [
    "Bearer",
    "Bearer ",
    "Bearer x",
    "Bearer a.b.c",
    "Bearer ..",
    "Bearer " + "a" * 5000,
    "Bearer " + "." * 4000,
    "Basic dGFuYWthOng=",
    "Digest x",
    "bearer  x",
    "Bearer \u00e9",
    "Negotiate " + "A" * 3000,
    "Bearer " + unsigned({"alg": "none", "typ": "at+jwt"}, {"sub": "1"}),
    "Bearer " + unsigned({"alg": "None", "typ": "at+jwt", "kid": "0" * 16}, {"sub": "1"}),
    "Bearer " + unsigned({"alg": "HS256", "typ": "at+jwt", "kid": ["x"]}, {"sub": "1"}),
    "Bearer " + unsigned({"alg": "HS256", "typ": "at+jwt", "kid": {"a": 1}}, []),
    "Bearer " + unsigned({"alg": "RS256", "typ": "at+jwt", "jku": "https://evil.example"}, {"sub": "1"}),
    "Bearer " + unsigned({"alg": 5, "typ": None}, "x"),
    "Bearer " + forged(),
    "Bearer " + forged(sub="1 OR 1=1", sid="' OR ''='"),
    "Bearer " + forged(exp="soon", iat=[], sub=None),
    "Bearer " + forged(aud="elsewhere"),
    "Bearer " + forged(exp=10**400),
]
QUERIES = [
    "after=x",
    "after=" + "A" * 3000,
    "after=%00",
    "after=%ff",
    "after=eyJhIjoxfQ",
    "after=W10",
    "after=bnVsbA",
    "after=../../etc/passwd",
    "after=-1",
    "after=%F0%9F%92%A9",
    "q=" + "a" * 101,
    "q=%00",
    "q=%ed%a0%80",
    "q=a&q=b",
    "category=x",
    "status=deleted",
    "status[]=draft",
    "tag=%E2%80%AE",
    "page=1",
    "author=" + "a" * 65,
    "&".join(f"x{number}=1" for number in range(100)),
    "=&=&=",
    "%",
]
PATHS = [
    "/api/knowledge/0",
    "/api/knowledge/-1",
    "/api/knowledge/01",
    "/api/knowledge/１",
    "/api/knowledge/1.0",
    "/api/knowledge/1e3",
    "/api/knowledge/2147483648",
    "/api/knowledge/" + "9" * 400,
    "/api/knowledge/%00",
    "/api/knowledge/%ff",
    "/api/knowledge/1%2f..%2f2",
    "/api/knowledge/1;x",
    "/api/knowledge/1/comments/1",
    "/api/knowledge/",
    "/api/tasks/" + "0" * 32,
    "/api/tasks/" + "A" * 32,
    "/api/tasks/x",
    "/api/",
    "/api/../admin",
    "/api/openapi.json/",
]
METHODS = [
    (method, path)
    for method in ("PATCH", "TRACE", "CONNECT", "PROPFIND", "GET ", "G\u00cbT", "X" * 300)
    for path in ("/api/knowledge", "/api/knowledge/1")
]
FIELDS = (
    [
        ("If-Match", value)
        for value in ('"', '""', "x", '"x', '"x", ', ",", '*, "x"', '"' + "x" * 5000 + '"', '"\u00e9"', "W/*")
    ]
    + [("Idempotency-Key", value) for value in (" ", "x" * 256, "\u00e9", "\t", "a\x7f", "\x01")]
    + [
        ("Content-Type", value)
        for value in (
            "text/plain",
            "application/xml",
            "multipart/form-data",
            "application/json; charset=utf-16",
            ";",
        )
    ]
    + [("Accept", value) for value in ("text/html", "*/*;q=x", "," * 2000, "application/xml")]
    + [("Accept-Language", value) for value in ("*", "ja;q=2", "x" * 3000, ",,,")]
    + [("If-None-Match", value) for value in ("*", '"', "x" * 4000)]
    + [
        ("Content-Length", "-1"),
        ("Range", "bytes=0-"),
        ("Expect", "x"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Host", "evil.example"),
        ("X-Forwarded-For", "1"),
        ("Cookie", "=;=;=" * 500),
    ]
)

HOSTILE: list[tuple[str, str, bytes | None, dict[str, str], set[int]]] = [
    *[("POST", "/api/knowledge", body, {}, statuses) for body, statuses in BODIES],
    *[("PUT", "/api/knowledge/1", body, {"If-Match": "*"}, statuses) for body, statuses in BODIES],
    *[("GET", "/api/auth/me", None, {"Authorization": value}, {401}) for value in AUTHORIZATIONS],
    *[("GET", f"/api/knowledge?{query}", None, {}, {400, 422}) for query in QUERIES],
    *[("GET", path, None, {}, {400, 404}) for path in PATHS],
    ("GET", "/api//knowledge/1", None, {}, {308}),
    *[(method, path, None, {}, {400, 403, 405, 501}) for method, path in METHODS],
    *[("PUT", "/api/knowledge/1", b"{}", {name: value}, set(range(400, 500))) for name, value in FIELDS],
]


def test_what_is_hostile_is_refused_in_words_and_changes_nothing(
    app: Any, program: Callable[..., Program], clock: FrozenClock
) -> None:
    assert len(HOSTILE) >= 150
    ito = program("ito")
    before = ito.call("GET", "/api/knowledge/1").get_data()
    for number, each in enumerate(HOSTILE):
        method, path, body, headers, statuses = each
        if number % 15 == 0:
            clock.advance(61)  # limits are not what is tested here
            ito.tokens = ito.renew().json or {}
        answer = hostile(app, ito, each)
        row = (number, method[:20], path[:60], headers, (body or b"")[:40], answer.status_code)
        assert answer.status_code in statuses, row
        assert "Traceback" not in answer.get_data(as_text=True), row
        if method.isalpha() and method.isascii() and answer.status_code not in {308, 400}:
            assert answer.headers["Content-Type"].startswith("application/problem+json"), row
            assert (answer.json or {})["status"] == answer.status_code, row
            assert len(answer.get_data()) < 6_000, row
    ito.tokens = ito.renew().json or {}
    assert ito.call("GET", "/api/knowledge/1").get_data() == before


def hostile(app: Any, ito: Program, row: tuple[str, str, bytes | None, dict[str, str], Any]) -> TestResponse:
    """One row as a server would hand it on, without the manners of a client."""
    method, address, body, headers, _ = row
    path, _, query = address.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost:8443",
        "wsgi.url_scheme": "https",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_AUTHORIZATION": f"Bearer {ito.tokens['access_token']}",
        "wsgi.input": BytesIO(body or b""),
        "wsgi.errors": BytesIO(),
        "CONTENT_TYPE": "application/json" if body is not None else "",
        "CONTENT_LENGTH": str(len(body or b"")),
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key.startswith("CONTENT_") else f"HTTP_{key}"] = value
    return TestResponse(*run_wsgi_app(app, environ, buffered=True), request=None)  # type: ignore[misc, arg-type]


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/knowledge", 200),
        ("GET", "/api/knowledge/999999", 404),
        ("GET", "/api/nothing", 404),
        ("PATCH", "/api/knowledge", 405),
        ("POST", "/api/knowledge", 422),
        ("GET", "/api/openapi.json", 200),
        ("GET", "/api/auth/session", 200),
    ],
)
def test_every_answer_says_where_its_client_stands(
    program: Callable[..., Program], method: str, path: str, status: int
) -> None:
    for who in (program("sato"), program()):
        first, second = (who.call(method, path) for _ in range(2))
        assert first.status_code in {status, 401}
        left = [int(answer.headers["X-RateLimit-Remaining"]) for answer in (first, second)]
        assert left[1] == left[0] - 1
        assert first.headers["RateLimit"]
        assert first.headers["RateLimit-Policy"]


def test_refusals_of_the_edge_say_it_too(program: Callable[..., Program], visit: Callable[..., Any]) -> None:
    refused = visit("sato").api("POST", "/api/knowledge", ARTICLE, Origin="https://evil.example")
    assert (refused.status_code, "RateLimit" in refused.headers) == (403, True)
    dead = program().call("GET", "/api/auth/me", Cookie="__Host-mks-session=" + "A" * 43)
    assert (dead.status_code, "RateLimit" in dead.headers) == (401, True)


# --- caches --------------------------------------------------------------------------------------


@pytest.fixture
def behind_a_cdn(app: Any, http_sink: HttpSink) -> Iterator[HttpSink]:
    with CDNManager("a" * 32, api_token="cdn-token", base_url=http_sink.url, sleep=lambda _: None) as cdn:
        app.extensions["knowledge"] = replace(app.extensions["knowledge"], cdn=cdn)
        yield http_sink


def test_administrators_throw_lists_out_of_the_cache(program: Callable[..., Program]) -> None:
    tanaka, ito = program("tanaka"), program("ito")
    assert tanaka.call("POST", "/api/admin/cache/invalidate").status_code == 403
    seen = [ito.call("GET", "/api/knowledge").headers["X-Cache"] for _ in range(2)]
    assert ito.call("POST", "/api/admin/cache/invalidate").json == {"done": True}
    seen.append(ito.call("GET", "/api/knowledge").headers["X-Cache"])
    assert seen == ["miss", "hit", "miss"]


def test_administrators_purge_the_cdn_and_hear_what_came_of_it(
    program: Callable[..., Program], behind_a_cdn: HttpSink
) -> None:
    tanaka, ito = program("tanaka"), program("ito")
    body = {"urls": [f"{URL}/static/app.css"]}
    assert tanaka.call("POST", "/api/admin/cdn/purge", body).status_code == 403
    behind_a_cdn.answer(Answer(body={"success": True}))
    done = ito.call("POST", "/api/admin/cdn/purge", body)
    assert (done.status_code, done.json) == (200, {"done": body["urls"]})
    assert behind_a_cdn.wait_for()[0].json() == {"files": body["urls"]}
    behind_a_cdn.answer(Answer(403, body={"success": False, "errors": [{"code": 9109, "message": "no"}]}))
    refused = ito.call("POST", "/api/admin/cdn/purge", {"everything": True})
    assert (refused.status_code, (refused.json or {})["type"]) == (409, "/problems/purge-refused")
    assert [(refused.json or {})[name] for name in ("done", "failed")] == [[], ["*"]]
    assert "Retry-After" not in refused.headers
    for wrong in ({}, {"everything": True, **body}, {"urls": ["ftp://x"]}, {"tags": ["a b"]}):
        assert ito.call("POST", "/api/admin/cdn/purge", wrong).status_code == 422


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (Answer(502, body="<html>"), "30"),
        (Answer(429, headers={"Retry-After": "3600"}, body={"success": False, "errors": []}), "3600"),
        (Answer(429, headers={"Retry-After": "9" * 400}, body={"success": False, "errors": []}), "86400"),
    ],
    ids=["away", "busy", "absurd"],
)
def test_a_cdn_that_is_away_or_busy_is_told_with_what_was_done_and_when_to_come_back(
    program: Callable[..., Program], behind_a_cdn: HttpSink, answer: Answer, wait: str
) -> None:
    ito, tags = program("ito"), [f"tag-{number}" for number in range(150)]
    behind_a_cdn.answer(Answer(body={"success": True}))
    behind_a_cdn.default = answer
    failed = ito.call("POST", "/api/admin/cdn/purge", {"tags": tags})
    assert (failed.status_code, failed.mimetype) == (503, "application/problem+json")
    assert failed.headers["Retry-After"] == wait
    problem = failed.json or {}
    assert (problem["type"], problem["done"], problem["failed"]) == (
        "/problems/not-purged",
        tags[:100],
        tags[100:],
    )
    assert problem["reasons"]
    assert failed.headers["RateLimit"]
    behind_a_cdn.default = Answer(body={"success": True})
    assert ito.call("POST", "/api/admin/cdn/purge", {"tags": problem["failed"]}).json == {"done": tags[100:]}


def test_without_a_cdn(program: Callable[..., Program]) -> None:
    answer = program("ito").call("POST", "/api/admin/cdn/purge", {"everything": True})
    assert (answer.status_code, (answer.json or {})["type"]) == (409, "/problems/no-cdn")


def test_a_program_with_a_dead_session_cookie_signs_in_again(
    app: Any, browser: Any, visit: Callable[..., Any]
) -> None:
    """A client without an Origin, which keeps cookies: a session that has ended is as good as none."""
    asked = {"username": "tanaka", "password": DEMO_PASSWORD}
    manager = app.extensions["knowledge"].session_manager
    for _ in range(2):
        assert browser.api("POST", "/api/auth/login", asked, Origin=None).status_code == 200
        [session] = manager.sessions("1")
        manager.end(session)
