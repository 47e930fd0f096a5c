"""Notices by mail: one for each, one a day, or none."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, update

from knowledge_system.models import Article, User
from knowledge_system.services.knowledge import digests
from knowledge_system.settings import AREAS
from mks_hardening.tasks import TaskWorker
from mks_hardening.testing import FrozenClock

DAY = 86_400


@pytest.fixture
def app(make_app: Callable[..., Any], make_smtp: Callable[..., Any], clock: FrozenClock) -> Any:
    server = make_smtp()
    made = make_app(
        areas=AREAS - {"logging"},
        MKS_SMTP_HOST="localhost",
        MKS_SMTP_PORT=str(server.port),
        MKS_SMTP_SECURITY="plain",
        MKS_ALERT_FROM="system@knowledge.example",
        MKS_ALERT_TO="ops@knowledge.example",
    )
    made.server = server
    with made.extensions["knowledge"].sessions.begin() as session:  # nothing is overdue
        session.execute(update(Article).values(confirmed_at=datetime.fromtimestamp(clock.time(), UTC)))
    return made


def choose(person: Any, mails: str) -> None:
    person.get("/account")
    assert person.post("/account/mails", {"mails": mails}).status_code == 303


def comment(person: Any, article: int, body: str = "@kobayashi") -> None:
    person.get(f"/articles/{article}")
    assert person.post(f"/articles/{article}/comments", {"body": body}).status_code == 303


def work(app: Any, *, digest: bool = True) -> list[tuple[str, str]]:
    """Work the queue; return the subjects and texts of new mails to kobayashi."""
    tasks, before = app.extensions["knowledge"].background.tasks, len(app.server.received)
    if digest:
        with tasks.begin() as connection:
            tasks.known["notifying.digest"].enqueue(connection)
    list(TaskWorker(tasks, schedule=False).run_pending())
    return [
        (str(mail.message["Subject"]), mail.message.get_body(("plain",)).get_content())
        for mail in app.server.received[before:]
        if "kobayashi@knowledge.example" in mail.rcpt_tos
    ]


def test_what_is_unread_comes_in_one_mail_a_day(
    app: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    reader, writer, other = visit("kobayashi"), visit("tanaka"), visit("suzuki")
    choose(reader, "daily")
    for person, article in ((writer, 1), (writer, 1), (other, 1), (writer, 2), (writer, 3)):
        comment(person, article)
    reader.get("/articles/2")  # read in the browser
    assert work(app, digest=False) == []
    [(subject, text)] = work(app)
    assert subject == "お知らせ 2 件"
    assert re.findall(r"https://localhost:8443/articles/(\d+)", text) == ["3", "1"]
    assert text.count("鈴木 美咲, 田中 健一 さんがコメントであなたに呼びかけました") == 1
    # Neither at once again, nor with the next worker, nor the same notices the day after.
    clock.advance(1)
    comment(writer, 4)
    assert work(app) == []
    clock.advance(DAY)
    [(subject, text)] = work(app)
    assert "/articles/4" in text
    assert "/articles/1" not in text
    clock.advance(DAY)
    assert work(app) == []


def test_each_notice_and_none(app: Any, visit: Callable[..., Any]) -> None:
    reader, writer = visit("kobayashi"), visit("tanaka")
    comment(writer, 1)
    assert len(work(app)) == 1
    choose(reader, "none")
    comment(writer, 1)
    assert work(app) == []
    assert reader.post("/account/mails", {"mails": "weekly"}).status_code == 422


def test_a_worker_that_dies_leaves_no_second_mail(
    app: Any, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kobayashi", "yamamoto"):
        choose(visit(name), "daily")
    comment(visit("tanaka"), 1, "@kobayashi @yamamoto")
    take, taken = digests.take, []

    def dying(session: Any, user_id: int, **options: Any) -> Any:
        taken.append(user_id)
        if len(taken) == 2:
            raise KeyboardInterrupt  # after the first mail, within the transaction of the second
        return take(session, user_id, **options)

    monkeypatch.setattr(digests, "take", dying)
    tasks = app.extensions["knowledge"].background.tasks
    with pytest.raises(KeyboardInterrupt):
        tasks.known["notifying.digest"](None)
    monkeypatch.undo()
    work(app)
    work(app)
    received = sorted(address for mail in app.server.received for address in mail.rcpt_tos)
    received.remove("sato@knowledge.example")  # the author, who gets a mail for each notice
    assert received == ["kobayashi@knowledge.example", "yamamoto@knowledge.example"]


def test_overdue_articles_are_one_line(app: Any, visit: Callable[..., Any], clock: FrozenClock) -> None:
    choose(visit("tanaka"), "daily")
    clock.advance(366 * DAY)
    tasks = app.extensions["knowledge"].background.tasks
    with tasks.begin() as connection:
        tasks.known["reminding.overdue"].enqueue(connection)
    work(app)
    mails = [mail for mail in app.server.received if "tanaka@knowledge.example" in mail.rcpt_tos]
    [text] = [mail.message.get_body(("plain",)).get_content() for mail in mails]
    assert re.search(r"確認時期を過ぎた記事 \d\d? 件\r?\n", text)
    assert "/articles/" not in text


def test_mails_are_stopped_by_their_link_without_signing_in(
    app: Any, visit: Callable[..., Any], browser: Any
) -> None:
    choose(visit("kobayashi"), "daily")
    comment(visit("tanaka"), 1)
    [(_, text)] = work(app)
    [path] = re.findall(r"https://localhost:8443(/mails/stop\S+)", text)
    user, signature = re.findall(r"=(\w+)", path)
    page = browser.get(path)
    assert "メールを止める" in page.get_data(as_text=True)  # opening it, as scanners do, changes nothing

    def chosen() -> str:
        with app.extensions["knowledge"].sessions() as session:
            return str(session.scalar(select(User.mails).where(User.username == "kobayashi")))

    assert chosen() == "daily"
    for wrong in ({"user": "1", "signature": signature}, {"user": user, "signature": "0" * 64}):
        assert browser.post("/mails/stop", wrong).status_code == 403
    assert chosen() == "daily"
    assert browser.post("/mails/stop", {"user": user, "signature": signature}).status_code == 200
    assert chosen() == "none"


def test_a_mail_program_stops_the_mails_at_one_click(app: Any, visit: Callable[..., Any]) -> None:
    """RFC 8058: a POST request to the address in the header, without cookies, Origin or a sign-in."""
    reader = visit("kobayashi")
    choose(reader, "daily")
    comment(visit("tanaka"), 1)
    assert len(work(app)) == 1
    content = app.server.received[-1].content
    [path] = re.findall(
        rb"^List-Unsubscribe: <https://localhost:8443(/mails/stop\S+)>\r?$", content, re.MULTILINE
    )
    assert re.search(rb"^List-Unsubscribe-Post: List-Unsubscribe=One-Click\r?$", content, re.MULTILINE)
    program, sent = type(reader)(app), {"List-Unsubscribe": "One-Click"}
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": None}
    body = "&".join(f"{name}={value}" for name, value in sent.items())
    forged = path.decode()[:-1] + ("0" if path.decode()[-1] != "0" else "1")
    assert program.send("POST", forged, data=body, headers=form).status_code == 403
    assert program.send("POST", path.decode(), data=body, headers=form).status_code == 200
    with app.extensions["knowledge"].sessions() as session:
        assert session.scalars(select(User.mails).where(User.username == "kobayashi")).one() == "none"
