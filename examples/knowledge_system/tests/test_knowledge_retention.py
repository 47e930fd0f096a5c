"""How long data are kept: leavers are blocked, handed over and erased; articles stay as long as they must."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, update

from knowledge_system.domain import permissions
from knowledge_system.models import Article, AuditEntry, Notice, User, Watch
from knowledge_system.services import audit
from knowledge_system.settings import AppSettings
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.tasks import TaskWorker
from mks_hardening.testing import FrozenClock

DAY = 86_400
KEY = base64.b64encode(bytes(range(32))).decode()
LEAVER = {
    "display_name": "田中 健一",
    "department": "土木部",
    "role": "writer",
    "email": "t@knowledge.example",
}


def clean(app: Any) -> Any:
    tasks = app.extensions["knowledge"].background.tasks
    with tasks.begin() as connection:
        task = tasks.known["cleaning.people"].enqueue(connection)
    list(TaskWorker(tasks, schedule=False).run_pending())
    return tasks.status(task).result


def test_a_leaver_is_blocked_handed_over_and_erased(
    app: Any, visit: Callable[..., Any], browser: Any, clock: FrozenClock
) -> None:
    sessions = app.extensions["knowledge"].sessions
    admin, leaver = visit("ito"), visit("tanaka")
    leaver.get("/articles/1")
    leaver.post("/watches", {"kind": "article", "subject": "1", "on": "on"})
    leaver.post("/articles/1/comments", {"body": "残る言葉"})
    admin.get("/admin/retention")
    handed = {"leaver": "tanaka", "successor": "suzuki"}
    assert admin.post("/admin/retention/hand-over", handed).status_code == 409  # still active
    assert admin.post("/admin/accounts/tanaka", LEAVER).status_code == 303  # deactivated
    assert leaver.get("/articles").status_code == 303  # blocked at once
    assert browser.sign_in("tanaka").status_code == 401
    with sessions() as session:
        [number] = session.execute(select(User.id).where(User.username == "tanaka")).one()
        written = session.scalar(select(func.count()).where(Article.author_id == number))
    page = admin.get("/admin/retention").get_data(as_text=True)
    assert re.search(rf"田中 健一</a></td><td[^>]*>2027年11月25日</td><td[^>]*>{written}</td>", page)
    for wrong in ("nobody", "kobayashi", "tanaka"):
        refused = admin.post("/admin/retention/hand-over", {**handed, "successor": wrong})
        assert refused.status_code in {404, 409, 422}, wrong
    assert admin.post("/admin/retention/hand-over", handed).status_code == 303
    with sessions() as session:
        assert session.scalar(select(func.count()).where(Article.author_id == number)) == 0

    clock.advance(364 * DAY)
    assert clean(app)["erased"] == 0
    clock.advance(2 * DAY)
    assert clean(app)["erased"] == 1
    assert clean(app)["erased"] == 0
    with sessions() as session:
        user = session.get_one(User, number)
        assert (user.username, user.display_name) == (f"former:{number}", f"元社員 {number}")
        assert (user.email, user.department, user.password_hash) == (None, "", None)
        assert session.scalar(select(func.count()).where(Watch.user_id == number)) == 0
        assert audit.first_broken_entry(session) is None
        assert session.scalar(select(AuditEntry.action).order_by(AuditEntry.id.desc())) == "account.erase"
    page = visit("suzuki").get("/articles/1").get_data(as_text=True)
    assert "残る言葉" in page
    assert "田中 健一" not in page


def test_no_account_can_stop_the_erasure_by_its_name(
    app: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    sessions, admin = app.extensions["knowledge"].sessions, visit("ito")
    with sessions() as session:
        number = session.scalar(select(User.id).where(User.username == "tanaka"))
    admin.get("/admin/accounts")
    names = [f"former-{number}", "former-worker"]
    for name in names:
        new = {**LEAVER, "username": name, "email": "", "password": "a long enough secret"}
        assert admin.post("/admin/accounts", new).status_code == 303
        assert admin.post(f"/admin/accounts/{name}", {**LEAVER, "email": ""}).status_code == 303
    assert admin.post("/admin/accounts/tanaka", LEAVER).status_code == 303
    clock.advance(366 * DAY)
    assert clean(app)["erased"] == 3
    with sessions() as session:
        assert session.scalars(select(User.username).where(User.username.in_(names))).all() == []


@pytest.mark.parametrize("name", ["MKS_LEAVERS_KEPT", "MKS_NOTICES_KEPT"])
def test_days_that_were_written_as_seconds_are_refused(name: str) -> None:
    needed = {"DATABASE_URL": "sqlite:///x.db", "MKS_ALLOWED_HOSTS": "localhost", "MKS_SECRET_KEYS": KEY}
    assert AppSettings.from_env(environ={**needed, name: "365d"})
    with pytest.raises(ConfigurationError, match=rf"{name}.*365"):
        AppSettings.from_env(environ={**needed, name: "365"})


def test_whoever_comes_back_in_time_keeps_everything(
    app: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    admin = visit("ito")
    admin.get("/admin/accounts")
    for active in ("", "on"):
        assert admin.post("/admin/accounts/tanaka", {**LEAVER, "active": active}).status_code == 303
    clock.advance(400 * DAY)
    assert clean(app)["erased"] == 0
    assert visit("tanaka")


def test_accounts_deactivated_before_are_given_their_time(
    app: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    with app.extensions["knowledge"].sessions.begin() as session:
        session.execute(update(User).where(User.username == "tanaka").values(active=False))
    assert clean(app)["erased"] == 0
    clock.advance(366 * DAY)
    assert clean(app)["erased"] == 1


def test_old_notices_go_when_they_were_read(app: Any, visit: Callable[..., Any], clock: FrozenClock) -> None:
    writer, reader = visit("tanaka"), visit("kobayashi")
    for article in (1, 2):
        writer.get(f"/articles/{article}")
        writer.post(f"/articles/{article}/comments", {"body": "@kobayashi"})
    reader.get("/articles/1")
    clock.advance(181 * DAY)
    assert clean(app)["notices"] == 1
    with app.extensions["knowledge"].sessions() as session:
        asked = select(Notice.article_id).where(Notice.kind == "mention")
        assert session.scalars(asked).all() == [2]


@pytest.mark.parametrize(
    ("status", "age", "kept", "expected"),
    [
        ("draft", 0.0, 10.0, False),
        ("review", 0.0, 10.0, False),
        ("published", 1e9, 10.0, True),
        ("retired", 9.9, 10.0, True),
        ("retired", 10.0, 10.0, False),
        ("published", 0.0, 0.0, False),
    ],
)
def test_what_must_be_kept(status: str, age: float, kept: float, expected: bool) -> None:  # noqa: FBT001 - a table
    assert permissions.is_kept(status=status, age=age, kept=kept) is expected


def test_nobody_deletes_an_article_before_its_time(
    app: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    services = app.extensions["knowledge"]
    app.extensions["knowledge"] = replace(
        services, settings=replace(services.settings, articles_kept=10.0 * DAY)
    )

    def delete() -> int:
        admin = visit("ito")
        admin.get("/articles/1")
        headers = {"X-CSRF-Token": admin.token, "If-Match": "*"}
        return int(admin.api("DELETE", "/api/knowledge/1", **headers).status_code)

    assert delete() == 409
    admin = visit("ito")
    admin.get("/articles/1")
    retired = {"step": "retire", "revision": "1", "comment": "古い", "files": ""}
    assert admin.post("/articles/1/steps", retired).status_code == 303
    assert delete() == 409
    clock.advance(10 * DAY)
    assert delete() == 204
