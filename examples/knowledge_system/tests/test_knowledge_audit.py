"""The audit log: written with each change or not at all, kept as it is, and a change of it shows."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import resource
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, event, select, text, update
from sqlalchemy.exc import DatabaseError

from knowledge_system.background.queue import Background
from knowledge_system.domain import labels, translations
from knowledge_system.domain.permissions import Actor
from knowledge_system.models import AuditEntry
from knowledge_system.services import audit, audit_export, audit_heads
from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.security import totp_code
from mks_hardening.tasks import TaskWorker
from mks_hardening.testing import FrozenClock

FORM = {
    "title": "盛土の締固め管理",
    "category": "土工",
    "summary": "",
    "body": "締固め度 90% 以上",
    "tags": "",
    "status": "review",
}


def log(app: Any) -> list[tuple[str, str, str]]:
    with app.extensions["knowledge"].sessions() as session:
        return [
            (entry.actor_name, entry.action, entry.subject)
            for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.id))
            if entry.action.startswith("article.")
        ]


def broken_entry(app: Any) -> int | None:
    with app.extensions["knowledge"].sessions() as session:
        return audit.first_broken_entry(session)


def test_each_change_is_told_and_a_refused_one_is_not(app: Any, visit: Callable[..., Any]) -> None:
    writer, reviewer, administrator = visit("tanaka"), visit("sato"), visit("ito")
    path = writer.post("/articles", FORM).headers["Location"].partition("?")[0]
    subject = path.strip("/").replace("articles/", "article ")
    assert writer.post(f"{path}/edit", {**FORM, "revision": "9"}).status_code == 409
    assert writer.post(f"{path}/steps", {"step": "approve", "revision": "1"}).status_code == 403
    assert reviewer.post(f"{path}/steps", {"step": "approve", "revision": "1"}).status_code == 303
    assert writer.post(f"{path}/edit", {**FORM, "title": "次の版", "revision": "1"}).status_code == 303
    assert log(app) == [
        ("tanaka", "article.create", subject),
        ("sato", "article.approve", subject),
        ("tanaka", "article.save", subject),
    ]
    assert broken_entry(app) is None
    page = administrator.get("/admin/audit?q=次の版").get_data(as_text=True)
    assert len(re.findall('<td data-label="番号">', page)) == 1
    assert "改ざんや欠落はありません" in administrator.get("/admin/audit?verify=1").get_data(as_text=True)
    assert "該当する記録はありません" in administrator.get("/admin/audit?q=%25").get_data(as_text=True)
    for person in (writer, reviewer):
        assert person.get("/admin/audit").status_code == 403


def test_entries_of_many_people_at_once_make_one_chain(app: Any, visit: Callable[..., Any]) -> None:
    people = [visit(name) for name in ("tanaka", "suzuki", "sato", "yamamoto")] * 2
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda person: person.post("/articles", FORM).status_code, people))
    assert seen == [303] * 8
    assert len(log(app)) == 8
    assert broken_entry(app) is None


def tables(make_app: Callable[..., Any], url: str) -> Any:
    return make_app(database_url=url) if url else make_app()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_nothing_is_changed_and_what_was_changed_shows(
    make_app: Callable[..., Any], visit: Callable[..., Any], request: pytest.FixtureRequest, database: str
) -> None:
    app = tables(make_app, request.getfixturevalue("postgres_url") if database == "postgresql" else "")
    person = visit("tanaka", at=app)
    for _ in range(3):
        assert person.post("/articles", FORM).status_code == 303
    engine = app.extensions["knowledge"].engine
    changes: list[Any] = [update(AuditEntry).values(actor_name="sato"), delete(AuditEntry)]
    if database == "sqlite":  # which goes round the triggers of a DELETE
        kept = "at, actor_id, 'sato', action, subject, detail, previous, hash FROM audit_entries"
        changes += [text(f"REPLACE INTO audit_entries SELECT {key}, {kept}") for key in ("id", "id + 9")]
    for change in changes:
        with pytest.raises(DatabaseError, match="audit entries stay"), engine.begin() as connection:
            connection.execute(change)
    assert broken_entry(app) is None
    names = ("audit_entries_stay_update", "audit_entries_stay_delete")
    drop = [f"DROP TRIGGER {name}" for name in names] if database == "sqlite" else []
    drop = drop or ["DROP TRIGGER audit_entries_stay ON audit_entries"]
    with engine.begin() as connection:
        for statement in drop:
            connection.execute(text(statement))
        ids = connection.scalars(select(AuditEntry.id).order_by(AuditEntry.id)).all()
        connection.execute(update(AuditEntry).where(AuditEntry.id == ids[1]).values(actor_name="sato"))
    assert broken_entry(app) == ids[1]
    with engine.begin() as connection:
        connection.execute(delete(AuditEntry).where(AuditEntry.id == ids[1]))
    assert broken_entry(app) == ids[2]
    assert f"{ids[2]} 番の記録が" in visit("ito", at=app).get("/admin/audit?verify=1").get_data(as_text=True)


def test_the_hash_covers_every_part() -> None:
    values = ("2026-11-25T00:00:00.000000+00:00", 1, "tanaka", "article.save", "article 1", "{}")
    known = audit.chained(audit.FIRST, values)
    others = {audit.chained("1" * 64, values)}
    for place in range(len(values)):
        changed: list[Any] = list(values)
        changed[place] = "x"
        others.add(audit.chained(audit.FIRST, tuple(changed)))  # type: ignore[arg-type]  # six parts
    assert len(others | {known}) == len(values) + 2


# --- around signing in --------------------------------------------------------------------------------


def told_of(app: Any, *, without: str = "article.") -> list[tuple[str, str, str, str]]:
    with app.extensions["knowledge"].sessions() as session:
        return [
            (entry.actor_name, entry.action, entry.subject, json.loads(entry.detail).get("client", ""))
            for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.id))
            if not entry.action.startswith(without)
        ]


def test_signing_in_factors_tokens_and_remarks_are_told_with_who_and_from_where(
    app: Any, visit: Callable[..., Any], browser: Any, clock: FrozenClock
) -> None:
    home = "127.0.0.1"
    browser.sign_in("tanaka", "guess")
    browser.sign_in("nobody-like-this", "guess")
    person, administrator = visit("tanaka"), visit("ito")
    assert person.post("/articles/1/comments", {"body": "確認しました"}).status_code == 303
    secret = person.api("POST", "/api/auth/2fa/setup").json["secret"]
    code = {"code": totp_code(secret, at=clock.time())}
    assert person.api("POST", "/api/auth/2fa/enable", code).status_code == 200
    clock.advance(30)
    asked = {"username": "suzuki", "password": DEMO_PASSWORD, "tokens": True}
    pair = browser.api("POST", "/api/auth/login", asked).json
    refresh = {"refresh_token": pair["refresh_token"]}
    assert browser.api("POST", "/api/auth/token/refresh", refresh).status_code == 200
    assert browser.api("POST", "/api/auth/token/refresh", refresh).status_code == 401
    for kind in ("unlock", "reset"):
        form = {"owner": "tanaka", "help": kind, "reason": "本人から電話"}
        assert administrator.post("/admin/second-factor", form).status_code == 303
    role = {"display_name": "鈴木 美咲", "department": "", "role": "reviewer", "email": "", "active": "on"}
    assert administrator.post("/admin/accounts/suzuki", role).status_code == 303
    administrator.post("/sign-out")
    assert told_of(app) == [
        ("", "sign-in.refused", "user tanaka", home),
        ("", "sign-in.refused", "nobody known", home),
        ("tanaka", "sign-in.done", "user tanaka", home),
        ("ito", "sign-in.done", "user ito", home),
        ("tanaka", "comment.create", "article 1", home),
        ("tanaka", "factor.on", "user tanaka", home),
        ("suzuki", "token.issue", "user suzuki", home),
        ("suzuki", "sign-in.done", "user suzuki", home),
        ("", "token.reuse", "user suzuki", home),
        ("ito", "account.unlock", "user tanaka", home),
        ("ito", "factor.reset", "user tanaka", home),
        ("ito", "account.change", "user suzuki", home),
        ("ito", "sign-in.out", "user ito", home),
    ]
    assert broken_entry(app) is None
    page = visit("ito").get("/admin/audit?q=sign-in.refused").get_data(as_text=True)
    assert len(re.findall('<td data-label="番号">', page)) == 2


def test_a_change_of_an_account_tells_what_it_was_before(app: Any, visit: Callable[..., Any]) -> None:
    administrator, parts = visit("ito"), app.extensions["knowledge"]
    former = audit.Fact("account.change", "user sato", {"role": "reviewer", "active": True})
    with parts.sessions.begin() as session:  # as entries were until now
        audit.append(session, Actor(6, "ito", "", "admin"), former, now=datetime(2026, 11, 25, tzinfo=UTC))
    form = {"display_name": "鈴木 美咲", "department": "", "role": "reviewer", "email": ""}
    assert administrator.post("/admin/accounts/suzuki", form).status_code == 303
    with parts.sessions() as session:
        result = [entry["detail"] for entry in audit.entries(session, query="account.change", before=None)]
    assert result == [
        {
            "role": "reviewer",
            "role_before": "writer",
            "active": False,
            "active_before": True,
            "client": "127.0.0.1",
        },
        {"role": "reviewer", "active": True},
    ]
    assert broken_entry(app) is None
    page = administrator.get("/admin/audit?q=account.change").get_data(as_text=True)
    assert "利用: 利用できる → 停止中; 接続元: 127.0.0.1; 役割: 執筆 → 承認<" in page
    assert "利用: 利用できる; 役割: 承認<" in page


def test_what_the_database_does_not_take_is_in_the_log(
    app: Any, visit: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO audit_entries"):
            raise sqlite3.OperationalError("database or disk is full")

    engine = app.extensions["knowledge"].engine
    event.listen(engine, "do_execute", refuse)
    person = visit("tanaka")
    assert person.post("/articles", FORM).status_code == 503, "an article is not written without its entry"
    event.remove(engine, "do_execute", refuse)
    said = [
        record.getMessage() for record in caplog.records if record.name.endswith("services.sign_in_audit")
    ]
    assert len(said) == 1
    assert "sign-in.done of user 1 by 1" in said[0]
    assert "127.0.0.1" in said[0]
    assert told_of(app) == []


def test_two_applications_in_one_process_tell_of_their_own(
    make_app: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    first, second = make_app(), make_app()
    visit("tanaka", at=first)
    assert len(told_of(first)) == 1
    assert told_of(second) == []


@pytest.mark.parametrize("newest", [1, 3])
def test_a_removed_end_shows(
    make_app: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path, caplog: Any, newest: int
) -> None:
    app = make_app()
    parts = app.extensions["knowledge"]
    heads = tmp_path / "audit-heads"
    parts = app.extensions["knowledge"] = replace(parts, settings=replace(parts.settings, audit_heads=heads))
    background = Background(parts.engine, parts.sessions, settings=parts.settings, clock=parts.clock)
    person = visit("tanaka", at=app)
    for _ in range(3):
        assert person.post("/articles", FORM).status_code == 303

    def nightly() -> Any:
        with parts.engine.begin() as connection:
            task = background.tasks.known["auditing.head"].enqueue(connection)
        TaskWorker(background.tasks, schedule=False).run_pending()
        return background.tasks.status(task).result

    assert nightly()["whole"] is True
    assert nightly()["whole"] is True
    assert len(heads.read_text().splitlines()) == 2
    with parts.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_entries_stay_delete"))
        kept = connection.scalars(select(AuditEntry.id).order_by(AuditEntry.id.desc()).limit(newest)).all()
        connection.execute(delete(AuditEntry).where(AuditEntry.id.in_(kept)))
    assert broken_entry(app) is None, "the chain alone does not show it"
    assert nightly() == {"whole": False}
    assert "the audit log was changed" in caplog.text
    page = visit("ito", at=app).get("/admin/audit?verify=1").get_data(as_text=True)
    assert f"{max(kept)} 番までの記録" in page


def test_a_full_disk_leaves_no_half_line_among_the_kept_ends(tmp_path: Path) -> None:
    """A torn line would make every later check fail."""
    file, now = tmp_path / "audit-heads", datetime(2026, 11, 28, tzinfo=UTC)
    audit_heads.keep(file, audit_heads.Head(1, "a" * 64), now=now)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            audit_heads.keep(file, audit_heads.Head(2, "b" * 64), now=now)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    audit_heads.keep(file, audit_heads.Head(3, "c" * 64), now=now)
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == [1, 3]


@pytest.mark.parametrize(
    ("detail", "japanese", "english"),
    [
        (
            {"client": "::/64", "method": "pwd", "reason": "new_device no_second_factor"},
            "接続元: ::/64; 方法: パスワード; 理由: 初めての端末 / 二段階認証なし",
            "Client: ::/64; method: Password; Reason: new device / no second factor",
        ),
        ({"method": "pwd otp mfa"}, "方法: パスワード / 認証コード / 二段階認証", None),
        ({"which": "every other"}, "範囲: ほかのすべて", "which: all others"),
        (
            {"title": "記事", "status": "review", "revision": 3},
            "題名: 記事; 状態: レビュー中; 版: 第 3 版",
            None,
        ),
        ({"title": "第 %(number)s 版"}, "題名: 第 %(number)s 版", "Title: 第 %(number)s 版"),
        ({"reason": "本人から電話 wrong"}, "理由: 本人から電話 wrong", None),  # an administrator's words
        ({"files": [{"id": 3, "name": "図.png", "sha256": "0" * 64}]}, "ファイル: 図.png", None),
        ({"comment": 12}, "", ""),
        ({"active": False, "active_before": True}, "利用: 利用できる → 停止中", None),
        ({"role": "reviewer", "role_before": "reviewer"}, "役割: 承認", None),
        ({"reason": "code_of_a_newer_version"}, "理由: code_of_a_newer_version", None),
    ],
)
def test_details_are_in_words(detail: dict[str, Any], japanese: str, english: str | None) -> None:
    def shown(language: str) -> str:
        def say(text: str, **values: object) -> str:
            return translations.say(text, language, **values)

        return "; ".join(f"{label}: {text}" for label, text in labels.described_detail(detail, say))

    assert shown("ja") == japanese
    if english is not None:
        assert shown("en") == english


def test_the_log_is_searched_by_the_words_that_it_shows(visit: Callable[..., Any]) -> None:
    administrator = visit("ito")
    visit("tanaka")
    rows = '<td data-label="番号">'
    for query in ("サインインに成功", "利用者 ito", "ito サインイン"):
        assert rows in administrator.get(f"/admin/audit?q={query}").get_data(as_text=True), query
    page = administrator.get("/admin/audit").get_data(as_text=True)
    assert '<a href="/admin/accounts/tanaka">tanaka</a>' in page
    assert "理由: 初めての端末 / 二段階認証なし" in page
    assert "new_device" not in page
    assert rows not in administrator.get("/admin/audit?q=記事を削除").get_data(as_text=True)


def test_the_log_of_a_period_is_exported_with_its_chain(app: Any, visit: Callable[..., Any]) -> None:
    administrator, writer = visit("ito"), visit("tanaka")
    writer.get("/articles/new")
    writer.post("/articles/new", {**FORM, "title": "=1+1"})
    administrator.get("/admin/audit")

    def export(**asked: str) -> Any:
        return administrator.post("/admin/audit/export", {"format": "jsonl", **asked})

    answer = export()
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Disposition"].endswith('.jsonl"')
    rows = [json.loads(line) for line in answer.get_data(as_text=True).splitlines()]
    assert [row["action"] for row in rows] == ["sign-in.done", "sign-in.done", "article.create"]
    for before, row in itertools.pairwise(rows):
        assert row["previous"] == before["hash"]
    for row in rows:  # a recipient can verify it without the application
        at = datetime.fromisoformat(row["at"]).isoformat(timespec="microseconds")
        values = (at, row["actor_id"], row["actor_name"], row["action"], row["subject"], row["detail"])
        assert row["hash"] == audit.chained(row["previous"], values)
    assert broken_entry(app) is None
    page = administrator.get("/admin/audit").get_data(as_text=True)
    assert "監査ログを書き出し" in page
    assert f"{rows[-1]['id']} 番までの記録" in page
    assert rows[-1]["hash"] not in page

    table = list(csv.DictReader(io.StringIO(export(format="csv").get_data().decode("utf-8-sig"))))
    assert [row["action"] for row in table] == [*(row["action"] for row in rows), "audit.export"]
    assert table[2]["hash"] == rows[2]["hash"]
    assert export(since="2026-11-26").get_data() == b""
    assert export(until="2026-11-24").get_data() == b""
    assert len(export(since="2026-11-25", until="2026-11-25").get_data().splitlines()) >= 4
    assert export(since="2026-02-31").status_code == 422
    assert export(format="xlsx").status_code == 422
    assert writer.post("/admin/audit/export", {"format": "csv"}).status_code == 403


def test_cells_of_an_export_are_no_formulas() -> None:
    row = dict.fromkeys(("id", "at", "actor_id", "action", "previous", "hash"), "x")
    for typed in ("=1+1", "+1", "-1", "@x", "\tx", "\rx"):
        written = b"".join(
            audit_export.as_csv(iter([{**row, "actor_name": typed, "subject": typed, "detail": typed}]))
        )
        cells = next(csv.DictReader(io.StringIO(written.decode("utf-8-sig"), newline="")))
        assert {cells[name] for name in ("actor_name", "subject", "detail")} == {f"'{typed}"}
