"""Reports: asked for on a page or by JSON, written by a task, read by their owner alone and for some days."""

from __future__ import annotations

import base64
import io
import os
import re
import zipfile
from collections.abc import Callable
from datetime import datetime
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from pypdf import PdfReader
from sqlalchemy import select

from knowledge_system import models
from knowledge_system.background import report_task
from knowledge_system.domain import translations
from knowledge_system.domain.translations import is_japanese
from knowledge_system.reports.document import write_document
from knowledge_system.reports.figures import CategoryRow, Figures, ListedArticle
from knowledge_system.reports.spreadsheet import write_sheet
from knowledge_system.services.reports import Link, link_keys, signature
from knowledge_system.settings import AREAS
from mks_hardening.tasks import TaskRun, Tasks, TaskWorker
from mks_hardening.testing import FrozenClock

SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
KEY = "0123456789abcdef"


@pytest.fixture
def background(app: Any) -> Any:
    return app.extensions["knowledge"].background


@pytest.fixture
def work(background: Any) -> Callable[[], list[str]]:
    """Run what is due; the outcomes."""
    return TaskWorker(background.tasks, schedule=False).run_pending


def ask(person: Any, *, key: str = KEY, **fields: str) -> str:
    values = {"kind": "monthly", "subject": "2025-11", "format": "pdf", "key": key, **fields}
    person.get("/reports")
    answer = person.post("/reports", values)
    assert answer.status_code == 303, answer.get_data(as_text=True)
    found = re.fullmatch(r"/reports/([0-9a-f]{32})", answer.headers["Location"])
    assert found
    return found[1]


def link_on(page: Any) -> str:
    found = re.search(r'href="(/reports/[0-9a-f]+/file\?[^"]+)"', page.get_data(as_text=True))
    assert found
    return unescape(found[1])


def text_of(pdf: bytes) -> str:
    return "".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def texts_of(xlsx: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(xlsx)) as archive:
        assert not [name for name in archive.namelist() if "link" in name.lower()]
        strings = ET.fromstring(archive.read("xl/sharedStrings.xml"))  # noqa: S314 - our own file
    return [text.text or "" for text in strings.iter(f"{SHEET}t")]


# --- the files

FIGURES = Figures(
    "月次ナレッジレポート 2025年11月",
    "2025年11月",
    datetime.fromisoformat("2026-11-26T15:00"),
    (CategoryRow("土工", 12, 3, 4, 5), CategoryRow("安全", 1, 0, 0, 0)),
    (
        ListedArticle(
            "=1+1 <b>養生</b> & 髙﨑 🚧",
            "土工",
            "山本 浩二",
            "安全環境部",
            datetime.fromisoformat("2025-11-03"),
            2,
        ),
        *(
            ListedArticle(
                f"場所打ち杭の杭頭処理 {number}",
                "基礎",
                "田中",
                "土木部",
                datetime.fromisoformat("2025-11-02"),
                0,
            )
            for number in range(60)
        ),
    ),
)


def test_the_document_carries_its_japanese_font_and_nothing_of_the_readers_machine() -> None:
    stages = list[str]()
    pdf = write_document(FIGURES, progress=lambda share, stage: stages.append(stage))
    reader = PdfReader(io.BytesIO(pdf))
    assert len(reader.pages) > 1
    assert len(stages) == 2
    fonts = [
        font.get_object()
        for page in reader.pages
        for font in page["/Resources"]["/Font"].values()  # type: ignore[index]  # a dictionary
    ]
    assert {font["/BaseFont"].split("+")[1] for font in fonts} == {"BIZUDPGothic-Regular"}
    assert all("/FontFile2" in font["/FontDescriptor"] for font in fonts)
    text = text_of(pdf)
    assert "月次ナレッジレポート" in text
    assert "=1+1 <b>養生</b> & 髙﨑 〓" in text  # no font has everything
    assert f"{len(reader.pages)} / {len(reader.pages)}" in text
    assert reader.metadata is not None
    assert reader.metadata.title == FIGURES.title


def test_the_workbook_holds_text_as_text() -> None:
    xlsx = write_sheet(FIGURES)
    assert "=1+1 <b>養生</b> & 髙﨑 🚧" in texts_of(xlsx)
    with zipfile.ZipFile(io.BytesIO(xlsx)) as archive:
        sheets = [archive.read(f"xl/worksheets/sheet{number}.xml").decode() for number in (1, 2)]
    assert "<f>" not in "".join(sheets)
    assert "<v>13</v>" in sheets[0]  # the sum


def test_files_are_in_the_language_of_the_report() -> None:
    """All but names and what people wrote."""
    listed = ListedArticle("Curing", "鉄筋", "Tanaka", "Site 1", datetime.fromisoformat("2025-11-03"), 0)
    english = FIGURES._replace(title="Report", scope="November 2025", articles=(listed,), language="en")
    pdf, words = write_document(english), texts_of(write_sheet(english))
    said = text_of(pdf)
    for word in ("Earthwork", "Published", "Total", "Comments", "26 Nov 2026"):
        assert word in said
        assert word in " ".join(words)
    assert not is_japanese(said + "".join(words))
    for name in ("Published", translations.say("鉄筋", "en")):  # no column is too narrow for a word
        assert name in map(str.strip, said.splitlines())
    reader = PdfReader(io.BytesIO(pdf))
    assert reader.trailer["/Root"]["/Lang"] == "en"  # type: ignore[index]  # a dictionary


@pytest.mark.parametrize("form", ["pdf", "xlsx"])
def test_a_report_is_in_the_language_of_who_asked(
    visit: Callable[..., Any], work: Callable[[], list[str]], form: str
) -> None:
    person = visit("kobayashi")
    switch = {"Referer": "https://localhost:8443/reports"}
    assert person.post("/language", {"language": "en"}, **switch).status_code == 303
    report_id = ask(person, format=form)
    assert person.post("/language", {"language": "ja"}, **switch).status_code == 303
    assert work() == ["done"]
    page = person.get(f"/reports/{report_id}")
    assert "Monthly knowledge report November 2025" in page.get_data(as_text=True)
    data = person.get(link_on(page)).data
    said = text_of(data) if form == "pdf" else " ".join(texts_of(data))
    assert "Monthly knowledge report" in said
    assert "公開中" not in said


def test_nothing_can_be_reported_as_well() -> None:
    empty = FIGURES._replace(rows=(), articles=())
    assert "合計" in text_of(write_document(empty))
    assert "合計" in texts_of(write_sheet(empty))


# --- asking, following, reading


@pytest.mark.parametrize(
    ("kind", "subject", "title"),
    [
        ("monthly", "2025-11", "月次ナレッジレポート 2025年11月"),
        ("site", "土木部 工事一課", "部署別ナレッジレポート 土木部 工事一課"),
    ],
)
@pytest.mark.parametrize("form", ["pdf", "xlsx"])
def test_a_report_from_the_form_to_the_file(
    visit: Callable[..., Any],
    work: Callable[[], list[str]],
    kind: str,
    subject: str,
    *,
    title: str,
    form: str,
) -> None:
    person = visit("kobayashi")
    report_id = ask(person, kind=kind, subject=subject, format=form)
    waiting = person.get(f"/reports/{report_id}").get_data(as_text=True)
    assert "順番を待っています" in waiting
    assert "メール" not in waiting  # none is configured here
    assert '<noscript><meta http-equiv="refresh"' in waiting
    assert work() == ["done"]
    page = person.get(f"/reports/{report_id}")
    assert title in page.get_data(as_text=True)
    assert "http-equiv" not in page.get_data(as_text=True)
    file = person.get(link_on(page))
    assert file.status_code == 200
    assert file.headers["Cache-Control"] == "no-store"
    assert file.headers["Content-Disposition"].startswith("attachment; filename=")
    assert file.headers["Content-Disposition"].isascii()  # servers refuse anything else
    said = text_of(file.data) if form == "pdf" else "".join(texts_of(file.data))
    assert title.replace(" ", "") in said.replace(" ", "")
    assert "田中健一" in said.replace(" ", "")
    assert f"{title.replace(' ', '_')}.{form}" in person.get("/reports").get_data(as_text=True)


def test_a_form_that_is_sent_twice_makes_one_report(
    visit: Callable[..., Any], work: Callable[[], list[str]]
) -> None:
    person = visit("kobayashi")
    assert ask(person) == ask(person)
    assert ask(person) != ask(person, key="f" * 16)
    assert ask(visit("tanaka")) != ask(person)
    assert ask(person, format="pdf") != ask(
        person, format="xlsx"
    )  # what is asked for comes, whatever the key
    assert work() == ["done"] * 4


ACCEPTED_BY_RELEASES = [
    ["monthly", "2025-11", "pdf", "https://localhost:8443/reports"],
    ["monthly", "2025-11", "pdf", "https://localhost:8443/reports", "en"],
]
"""What rows may hold that are still there: a row is added for a new parameter, the oldest go a release later."""


@pytest.mark.parametrize("arguments", ACCEPTED_BY_RELEASES)
def test_what_the_release_before_has_enqueued_is_done(
    background: Any, work: Callable[[], list[str]], arguments: list[str]
) -> None:
    queue = background.tasks
    with queue.begin() as connection:
        task_id = queue.known[report_task.NAME].using(user_id="1").enqueue(connection, *arguments)
    assert work() == ["done"]
    assert queue.status(task_id).state == "done"


def test_what_the_next_release_enqueues_waits_for_its_workers(
    app: Any, background: Any, work: Callable[[], list[str]], clock: FrozenClock
) -> None:
    """During a release a new web process and an old worker share the queue."""
    newer = Tasks(app.extensions["knowledge"].engine, table=models.tasks, clock=clock)

    @newer.task(report_task.NAME)
    def write(run: TaskRun, *arguments: str, paper: str) -> str:
        return paper

    with newer.begin() as connection:
        task_id = write.using(user_id="1").enqueue(connection, *ACCEPTED_BY_RELEASES[-1], paper="A3")
    assert work() == ["unknown"]
    assert background.tasks.status(task_id).state == "waiting"
    clock.advance(15)
    assert TaskWorker(newer, clock=clock, schedule=False).run_pending() == ["done"]
    assert background.tasks.status(task_id).result == "A3"


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": "2031-01"},
        {"subject": "2025-13"},
        {"subject": "../../etc"},
        {"kind": "site", "subject": "2025-11"},
        {"kind": "yearly"},
        {"format": "docx"},
        {"key": "short"},
        {"owner": "1"},
    ],
)
def test_what_cannot_be_reported_is_refused_and_nothing_is_enqueued(
    visit: Callable[..., Any], background: Any, wrong: dict[str, str]
) -> None:
    person = visit("kobayashi")
    person.get("/reports")
    values = {"kind": "monthly", "subject": "2025-11", "format": "pdf", "key": KEY, **wrong}
    assert person.post("/reports", values).status_code == 422
    assert person.api("POST", "/api/reports", values).status_code == 422
    assert background.tasks.counts() == {}


def test_a_report_is_for_its_owner_and_a_link_is_no_pass(
    visit: Callable[..., Any], work: Callable[[], list[str]]
) -> None:
    owner, other, admin = visit("kobayashi"), visit("tanaka"), visit("ito")
    report_id = ask(owner)
    work()
    link = link_on(owner.get(f"/reports/{report_id}"))
    unknown = "f" * 32
    for person in (other, admin):
        for path in (f"/reports/{report_id}", link, f"/api/tasks/{report_id}"):
            foreign, nothing = person.get(path), person.get(path.replace(report_id, unknown))
            assert (foreign.status_code, nothing.status_code) == (404, 404)
        assert person.post(f"/reports/{report_id}/cancel", {}).status_code == 404
        assert person.api("DELETE", f"/api/tasks/{report_id}").status_code == 404
    owner.post("/sign-out", {})
    assert owner.get(link).status_code == 303


@pytest.mark.parametrize(
    "change",
    [
        lambda link: link.replace("until=1", "until=2"),
        lambda link: link[:-1] + ("0" if link[-1] != "0" else "1"),
        lambda link: link.split("&")[0] + "&signature=" + "é" * 64,
        lambda link: link.split("?")[0],
        lambda link: link + "&signature=" + "0" * 64,
    ],
)
def test_a_link_that_was_changed_opens_nothing(
    visit: Callable[..., Any], work: Callable[[], list[str]], change: Callable[[str], str]
) -> None:
    person = visit("kobayashi")
    report_id = ask(person)
    work()
    link = link_on(person.get(f"/reports/{report_id}"))
    assert person.get(change(link)).status_code in {404, 422}


def test_links_of_the_former_key_open_until_they_expire() -> None:
    former, newer = base64.b64encode(b"a" * 32).decode(), base64.b64encode(b"b" * 32).decode()
    link = Link("0" * 32, 7, 1_790_000_000)
    signed = signature(link_keys([former])[0], link)
    assert link.is_signed(link_keys([newer, former]), signed)
    assert not link.is_signed(link_keys([newer]), signed)
    assert not link._replace(owner=8).is_signed(link_keys([former]), signed)
    assert not link.is_signed(link_keys([former]), "é")
    assert link_keys([]) != link_keys([])  # without a key of one's own, links end with the process


def test_links_and_reports_expire(
    visit: Callable[..., Any], work: Callable[[], list[str]], background: Any, app: Any, clock: FrozenClock
) -> None:
    person = visit("kobayashi")
    report_id = ask(person)
    work()
    link = link_on(person.get(f"/reports/{report_id}"))
    clock.advance(599)
    assert person.get(link).status_code == 200
    clock.advance(2)
    assert person.get(link).status_code == 410
    assert person.get(link_on(person.get(f"/reports/{report_id}"))).status_code == 200
    clock.advance(7 * 86_400)
    person = visit("kobayashi")
    assert "保存期間が過ぎました" in person.get(f"/reports/{report_id}").get_data(as_text=True)
    assert "保存期間が過ぎました" in person.get("/reports").get_data(as_text=True)
    sessions = app.extensions["knowledge"].sessions
    with sessions() as session:
        assert len(session.scalars(select(models.Report.id)).all()) == 1
    with background.tasks.begin() as connection:
        cleaning = background.tasks.known["cleaning.results"].enqueue(connection)
    assert work() == ["done"]
    assert background.tasks.status(cleaning).result == {
        **dict.fromkeys(("sign_ins", "answers", "drafts", "tasks"), 0),
        "reports": 1,
    }
    with sessions() as session:
        assert session.scalars(select(models.Report.id)).all() == []


def test_a_report_can_be_cancelled_while_it_waits_and_while_it_is_written(
    visit: Callable[..., Any], background: Any, monkeypatch: pytest.MonkeyPatch, work: Callable[[], list[str]]
) -> None:
    person = visit("kobayashi")
    waiting = ask(person)
    assert person.post(f"/reports/{waiting}/cancel", {}).status_code == 303
    assert "中止しました" in person.get(f"/reports/{waiting}").get_data(as_text=True)
    running = ask(person, key="f" * 16)
    figures = background.tasks.known["reports.write"].work.__globals__["reports"].figures

    def cancelled_meanwhile(*args: Any, **options: Any) -> Any:
        assert person.api("DELETE", f"/api/tasks/{running}").status_code == 204
        return figures(*args, **options)

    monkeypatch.setattr("knowledge_system.services.reports.figures", cancelled_meanwhile)
    monkeypatch.setattr("mks_hardening.tasks.task_run._BETWEEN_REPORTS", 0.0)
    assert work() == ["cancelled"]
    assert person.api("GET", f"/api/tasks/{running}").json["state"] == "cancelled"


def test_programs_get_202_and_follow_the_status(
    visit: Callable[..., Any], work: Callable[[], list[str]]
) -> None:
    person = visit("kobayashi")
    body = {"kind": "monthly", "subject": "2025-11", "format": "xlsx", "key": KEY}
    made = person.api("POST", "/api/reports", body)
    assert made.status_code == 202
    url = made.json["status_url"]
    assert made.headers["Location"] == url
    waiting = person.api("GET", url)
    assert (waiting.status_code, waiting.json["state"], waiting.headers["Retry-After"]) == (
        202,
        "waiting",
        "1",
    )
    work()
    done = person.api("GET", url)
    assert (done.status_code, done.json["state"]) == (200, "done")
    assert done.json["result"]["file"] == "月次ナレッジレポート_2025年11月.xlsx"
    events = person.send("GET", url, headers={"Accept": "text/event-stream"})
    assert events.mimetype == "text/event-stream"
    assert '"state": "done"' in events.get_data(as_text=True)
    assert person.api("GET", "/api/tasks/nothing").status_code == 404


def test_following_a_report_does_not_keep_a_session_alive(
    visit: Callable[..., Any], clock: FrozenClock
) -> None:
    person = visit("kobayashi")
    report_id = ask(person)
    for _ in range(2):
        clock.advance(850)
        assert person.api("GET", f"/api/tasks/{report_id}").status_code == 202
    clock.advance(200)
    assert person.get("/reports").status_code == 303


def test_streams_that_readers_leave_are_given_back(
    visit: Callable[..., Any], app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = visit("kobayashi")
    report_id = ask(person)
    for _ in range(6):  # two may last at a time
        answer = person.client.open(
            f"/api/tasks/{report_id}",
            base_url="https://localhost:8443",
            headers={"Accept": "text/event-stream"},
            environ_base={"REMOTE_ADDR": "127.0.0.1"},
        )
        events = iter(answer.response)
        assert next(events).startswith(b"retry: ")
        assert b'"waiting"' in next(events)
        assert app.extensions["task_status"]._streams._value == 1
        answer.close()
        assert app.extensions["task_status"]._streams._value == 2


def test_no_error_text_is_told_to_the_one_who_asked(
    visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, work: Callable[[], list[str]]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the plan of the customer")

    monkeypatch.setattr("knowledge_system.services.reports.figures", broken)
    person = visit("kobayashi")
    report_id = ask(person)
    assert work() == ["dead"]
    for path in (f"/reports/{report_id}", "/reports", f"/api/tasks/{report_id}"):
        page = person.get(path).get_data(as_text=True)
        assert "customer" not in page
        assert "RuntimeError" not in page
    assert "作成できませんでした" in person.get(f"/reports/{report_id}").get_data(as_text=True)
    assert "the plan of the customer" in visit("ito").get("/admin/tasks").get_data(as_text=True)


# --- administration


def test_administrators_see_the_queue_and_steer_it(
    visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, work: Callable[[], list[str]], background: Any
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    person, admin = visit("kobayashi"), visit("ito")
    monkeypatch.setattr("knowledge_system.services.reports.figures", broken)
    report_id = ask(person)
    work()
    monkeypatch.undo()
    page = admin.get("/admin/tasks?state=dead").get_data(as_text=True)
    assert report_id in page
    assert "RuntimeError: broken" in page
    assert admin.get("/admin/tasks?state=odd").status_code == 422

    def step(name: str, task: str = report_id) -> str:
        answer = admin.post("/admin/tasks", {"task": task, "step": name})
        assert answer.status_code == 303
        return str(answer.headers["Location"])

    assert step("retry") == "/admin/tasks?done=task-retry"
    assert step("cancel") == "/admin/tasks?done=task-cancel"
    assert step("retry") == "/admin/tasks?done=task-retry"
    assert work() == ["done"]
    assert step("retry") == "/admin/tasks?done=nothing-done"
    assert step("discard") == "/admin/tasks?done=task-discard"
    assert step("discard") == "/admin/tasks?done=nothing-done"
    assert background.tasks.counts() == {}
    assert admin.post("/admin/tasks", {"task": "x", "step": "retry"}).status_code == 422
    for nobody in (person, visit("sato")):
        assert nobody.get("/admin/tasks").status_code == 403
        assert nobody.post("/admin/tasks", {"task": report_id, "step": "discard"}).status_code == 403


def test_without_the_area_there_are_no_reports(
    make_app: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    person = visit("ito", at=make_app(areas=AREAS - {"logging", "notify", "tasks"}))
    assert "/reports" not in person.get("/articles").get_data(as_text=True)
    for path in ("/reports", f"/reports/{'f' * 32}", "/admin/tasks", f"/api/tasks/{'f' * 32}"):
        assert person.get(path).status_code == 404
    assert person.post("/articles/1/comments", {"body": "確認"}).status_code == 303


# --- mail and cleaning up


@pytest.fixture
def with_mail(make_app: Callable[..., Any], make_smtp: Callable[..., Any]) -> tuple[Any, Any]:
    """An application that sends its mail to a server of this test, and that server."""
    server = make_smtp()
    app = make_app(
        areas=AREAS - {"logging"},
        MKS_SMTP_HOST="localhost",
        MKS_SMTP_PORT=str(server.port),
        MKS_SMTP_SECURITY="plain",
        MKS_ALERT_FROM="system@knowledge.example",
        MKS_ALERT_TO="ops@knowledge.example",
    )
    return app, server


def run_all(app: Any) -> list[str]:
    tasks = app.extensions["knowledge"].background.tasks
    return list(TaskWorker(tasks, schedule=False).run_pending())


def test_the_owner_gets_a_mail_with_the_way_to_the_report(
    visit: Callable[..., Any], with_mail: tuple[Any, Any]
) -> None:
    app, server = with_mail
    person = visit("kobayashi", at=app)
    report_id = ask(person)
    assert "メールでお知らせします" in person.get(f"/reports/{report_id}").get_data(as_text=True)
    assert run_all(app) == ["done", "done"]
    (mail,) = server.received
    assert mail.rcpt_tos == ("kobayashi@knowledge.example",)
    assert mail.message["Subject"] == "レポートができました: 月次ナレッジレポート 2025年11月"
    text = mail.message.get_body(("plain",)).get_content()
    assert f"https://localhost:8443/reports/{report_id}" in text
    assert "signature" not in text  # the mail may be forwarded; the page asks who is there


def test_an_author_hears_of_comments_of_others(visit: Callable[..., Any], with_mail: tuple[Any, Any]) -> None:
    app, server = with_mail
    with app.extensions["knowledge"].sessions() as session:
        article = session.scalars(
            select(models.Article).join(models.User).where(models.User.username == "tanaka")
        ).first()
    for name in ("tanaka", "suzuki"):
        person = visit(name, at=app)
        person.get(f"/articles/{article.id}")
        assert person.post(f"/articles/{article.id}/comments", {"body": "養生は?\n.\n"}).status_code == 303
    assert run_all(app) == ["done"]
    (mail,) = server.received
    assert mail.rcpt_tos == ("tanaka@knowledge.example",)
    assert article.title in mail.message["Subject"]
    assert "鈴木 美咲 さん" in mail.message.get_body(("plain",)).get_content()


def test_a_comment_that_is_refused_tells_nobody(
    visit: Callable[..., Any], with_mail: tuple[Any, Any]
) -> None:
    app, _ = with_mail
    person = visit("suzuki", at=app)
    assert person.post("/articles/999999/comments", {"body": "x"}).status_code == 404
    assert run_all(app) == []


def test_old_logs_and_stale_alerts_go_and_the_live_log_stays(
    make_app: Callable[..., Any], tmp_path: Path, clock: FrozenClock
) -> None:
    logs, spool = tmp_path / "logs", tmp_path / "spool"
    for name, age in {
        "app.log": 90,
        "app.log.1": 1,
        "app.log.2.gz": 31,
        "app.log-20261001-1790812800.gz": 31,
        "app.logbook": 90,
    }.items():
        write_old(logs / name, age=age, clock=clock)
    for name, age in {"email/1.json": 31, "email/2.json": 1, "slack/1.json": 40}.items():
        write_old(spool / name, age=age, clock=clock)
    app = make_app(MKS_LOG_FILE=str(logs / "app.log"), MKS_ALERT_SPOOL=str(spool))
    tasks = app.extensions["knowledge"].background.tasks
    ids = {}
    with tasks.begin() as connection:
        for name in ("cleaning.logs", "cleaning.spool"):
            ids[name] = tasks.known[name].enqueue(connection)
    assert run_all(app) == ["done", "done"]
    assert tasks.status(ids["cleaning.logs"]).result["names"] == [
        "app.log-20261001-1790812800.gz",
        "app.log.2.gz",
    ]
    assert sorted(file.name for file in logs.iterdir()) == ["app.log", "app.log.1", "app.logbook"]
    assert {name: found["names"] for name, found in tasks.status(ids["cleaning.spool"]).result.items()} == {
        "email": ["1.json"],
        "slack": ["1.json"],
    }


def write_old(file: Path, *, age: int, clock: FrozenClock) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("line")
    moment = clock.time() - age * 86_400
    os.utime(file, (moment, moment))


def test_each_night_is_cleaned_once_however_many_processes_serve(app: Any, clock: FrozenClock) -> None:
    tasks = app.extensions["knowledge"].background.tasks
    clock.advance(86_400)
    for _ in range(3):
        TaskWorker(tasks).enqueue_scheduled()
    assert sorted(status.name for status, _ in tasks.listed()) == [
        "attachments.missing_texts",
        "auditing.head",
        "cleaning.logs",
        "cleaning.people",
        "cleaning.results",
        "cleaning.spool",
        "cleaning.uploads",
        "notifying.digest",
        "reminding.overdue",
    ]
