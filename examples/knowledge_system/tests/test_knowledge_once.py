"""Forms that are sent twice: by a double click, a reload, or a phone that lost the answer."""

from __future__ import annotations

import io
import re
import threading
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError

from knowledge_system.domain.problems import Problem
from knowledge_system.models import Article, Comment
from knowledge_system.services.knowledge import article_queries
from knowledge_system.services.knowledge.article_reader import ArticleReader
from knowledge_system.web import article_changes, forms

if TYPE_CHECKING:
    from conftest import Browser

TEXT = {"title": "足場の点検", "category": "足場", "summary": "", "body": "朝に。", "tags": "", "site": ""}
NOTE = '---\ntitle: "足場"\ncategory: "足場"\n---\n\n本文。\n'


def once(page: Any) -> str:
    (found,) = set(re.findall(r'name="once" value="([\w-]{16,64})"', page.text))
    return str(found)


def number_of(app: Any, model: type[Article | Comment]) -> int:
    with app.extensions["knowledge"].sessions() as session:
        return session.scalar(select(func.count(model.id))) or 0


def test_an_article_is_made_once(app: Any, visit: Callable[..., Browser]) -> None:
    writer = visit("tanaka")
    form = {**TEXT, "status": "draft", "once": once(writer.get("/articles/new"))}
    before = number_of(app, Article)
    first, second = writer.post("/articles/new", form), writer.post("/articles/new", form)
    assert first.status_code == second.status_code == 303
    assert first.location == second.location
    assert number_of(app, Article) == before + 1


def test_what_was_changed_in_between_is_another_one(app: Any, visit: Callable[..., Browser]) -> None:
    writer = visit("tanaka")
    form = {**TEXT, "status": "draft", "once": once(writer.get("/articles/new"))}
    first = writer.post("/articles/new", form)
    assert first.location != writer.post("/articles/new", {**form, "title": "別の題"}).location
    # Of another person too, who has the same field.
    other = visit("sato")
    other.get("/articles/new")
    assert other.post("/articles/new", form).location not in {first.location, None}


def test_what_was_refused_can_be_mended_and_sent_again(app: Any, visit: Callable[..., Browser]) -> None:
    writer = visit("tanaka")
    form = {**TEXT, "status": "draft", "title": "", "once": once(writer.get("/articles/new"))}
    refused = writer.post("/articles/new", form)
    assert refused.status_code == 422
    again = {**form, "title": "足場", "once": once(refused)}
    assert writer.post("/articles/new", again).status_code == 303


REMARK = '/comments" method="post" data-draft="comment-1'
"""The form below the comments; each comment has one for answers, too."""


def test_a_remark_is_made_once(app: Any, visit: Callable[..., Browser]) -> None:
    reader = visit("sato")
    form = {"body": "確認しました。", "once": field(reader.get("/articles/1"), REMARK)}
    before = number_of(app, Comment)
    assert {reader.post("/articles/1/comments", form).location for _ in range(3)} == {
        "/articles/1?done=commented#comments-title"
    }
    assert number_of(app, Comment) == before + 1
    # The same words once more, from a page that was read again.
    reader.post("/articles/1/comments", {**form, "once": field(reader.get("/articles/1"), REMARK)})
    assert number_of(app, Comment) == before + 2


def field(page: Any, form: str) -> str:
    """The field of one form of a page, by what its action ends with."""
    (found,) = re.findall(rf'action="[^"]*{form}"[^>]*>.*?name="once" value="([\w-]+)"', page.text, re.DOTALL)
    return str(found)


def test_what_is_saved_is_confirmed_although_articles_cannot_be_read_any_more(
    visit: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, save = visit("tanaka"), article_changes.save_article
    made = writer.api("POST", "/api/knowledge", {**TEXT, "tags": [], "status": "draft"})
    path = f"/articles/{made.json['id']}"

    def locked(*_: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("canceling statement due to statement timeout"))

    def save_then_lock(*arguments: Any, **named: Any) -> int | None:
        done = save(*arguments, **named)
        monkeypatch.setattr(article_queries, "read", locked)
        return done

    monkeypatch.setattr(article_changes, "save_article", save_then_lock)
    answer = writer.post(f"{path}/edit", {**TEXT, "body": "夕に。", "status": "draft", "revision": "1"})
    assert (answer.status_code, answer.location) == (303, f"{path}?done=saved")


def test_the_api_answers_with_what_is_saved_although_the_database_goes_away_at_the_commit(
    visit: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reviewer = visit("tanaka"), visit("sato")
    forget, read = ArticleReader.forget, article_queries.read

    def locked(*_: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("canceling statement due to statement timeout"))

    def forget_then_lock(reader: ArticleReader, article_id: int) -> bool:  # the first thing after a commit
        monkeypatch.setattr(article_queries, "read", locked)
        return forget(reader, article_id)

    monkeypatch.setattr(ArticleReader, "forget", forget_then_lock)

    def sent(who: Browser, method: str, path: str, body: dict[str, Any]) -> tuple[int, int, str]:
        answer = who.api(method, path, body)
        monkeypatch.setattr(article_queries, "read", read)
        shown = who.api("GET", f"/api/knowledge/{answer.json['id']}").json
        assert answer.json == shown
        return answer.status_code, shown["revision"], shown["status"]

    values = {**TEXT, "tags": []}
    assert sent(writer, "POST", "/api/knowledge", {**values, "status": "draft"}) == (201, 1, "draft")
    number = writer.api("GET", "/api/knowledge?status=draft").json["items"][0]["id"]
    path = f"/api/knowledge/{number}"
    assert sent(writer, "PUT", path, {**values, "status": "review", "revision": 1}) == (200, 2, "review")
    approval = {"step": "approve", "revision": 2}
    assert sent(reviewer, "POST", f"{path}/steps", approval) == (200, 2, "published")


def test_who_saves_twice_has_no_conflict_with_himself(visit: Callable[..., Browser]) -> None:
    writer, reviewer = visit("tanaka"), visit("sato")
    made = writer.api("POST", "/api/knowledge", {**TEXT, "tags": [], "status": "draft"})
    path = f"/articles/{made.json['id']}"

    def twice(person: Browser, page: str, form: str, values: dict[str, str]) -> Any:
        values = {**values, "once": field(person.get(page), form)}
        answers = [person.post(f"{path}{form}", values) for _ in range(2)]
        assert {answer.status_code for answer in answers} == {303}
        assert answers[0].location == answers[1].location
        return answers[0].location

    edited = {**TEXT, "body": "夕に。", "status": "draft", "revision": "1"}
    assert twice(writer, f"{path}/edit", "/edit", edited) == f"{path}?done=saved"
    step = {"revision": "2", "comment": "", "files": "0"}
    twice(writer, path, "/steps", {**step, "step": "submit"})
    twice(reviewer, path, "/steps", {**step, "step": "approve"})
    assert [
        entry["revision"]
        for entry in writer.api("GET", f"/api{path.replace('articles', 'knowledge')}").json["history"]
    ] == [2, 1]
    restored = twice(writer, f"{path}/history/1", "/history/1/restore", {"revision": "2"})
    assert restored == f"{path}/edit?done=restored"


def test_an_account_is_added_and_changed_once(visit: Callable[..., Browser]) -> None:
    admin = visit("ito")
    values = {"display_name": "阿部 学", "department": "", "role": "writer", "email": "abe@knowledge.example"}
    password = {"password": "足場-養生-配筋-2026"}
    new = {**values, **password, "username": "abe", "once": field(admin.get("/admin/accounts"), "/accounts")}
    assert {admin.post("/admin/accounts", new).status_code for _ in range(2)} == {303}
    page = admin.get("/admin/accounts/abe")
    seen = re.search(r'name="seen" value="(\w+)"', page.text)
    assert seen
    changed = {**values, "role": "reviewer", "active": "on", "seen": seen[1], "once": field(page, "/abe")}
    assert {admin.post("/admin/accounts/abe", changed).status_code for _ in range(2)} == {303}


def test_a_bundle_is_taken_in_once(app: Any, visit: Callable[..., Browser]) -> None:
    writer = visit("sato")
    page = writer.get("/exchange/import")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as bundle:
        bundle.writestr("article-1/article.md", NOTE)
    before = number_of(app, Article)
    for _ in range(2):
        answer = writer.post(
            "/exchange/import", {"once": once(page), "file": (io.BytesIO(content.getvalue()), "a.zip")}
        )
        assert answer.status_code == 303, answer.text
    assert number_of(app, Article) == before + 1


def test_files_are_attached_once(app: Any, visit: Callable[..., Browser]) -> None:
    writer = visit("tanaka")
    number = writer.api("POST", "/api/knowledge", {**TEXT, "tags": [], "status": "draft"}).json["id"]
    key = field(writer.get(f"/articles/{number}/edit"), "/attachments")
    pdf = b"%PDF-1.7\n1 0 obj<<>>endobj\nxref\n0 1\ntrailer<<>>\nstartxref\n28\n%%EOF\n"
    places = set()
    for name in ("図面.pdf", "図面.pdf", "詳細.pdf"):
        form = {"once": key, "file": (io.BytesIO(pdf), name)}
        places.add(writer.post(f"/articles/{number}/attachments", form).location)
    assert places == {f"/articles/{number}/edit?done=attached#attachments-title"}
    files = writer.api("GET", f"/api/knowledge/{number}/attachments").json["items"]
    assert [file["name"] for file in files] == ["図面.pdf", "詳細.pdf"]
    away = f"/attachments/{files[0]['id']}/delete"
    form = {"once": field(writer.get(f"/articles/{number}/edit"), away)}
    assert {writer.post(f"/articles/{number}{away}", form).status_code for _ in range(2)} == {303}


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_the_second_of_two_at_once_waits_for_the_first(
    request: pytest.FixtureRequest, make_app: Callable[..., Any], visit: Callable[..., Browser], database: str
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else ""
    app = make_app(database_url=url)
    other = make_app(database_url=url) if url else app  # as another worker would be
    writer, same = visit("tanaka", at=app), visit("tanaka", at=other)
    form = {**TEXT, "status": "draft", "once": once(writer.get("/articles/new"))}
    same.get("/articles/new")
    before, engine = number_of(app, Article), app.extensions["knowledge"].engine
    here, answers = threading.current_thread(), []
    second = threading.Thread(target=lambda: answers.append(same.post("/articles/new", form).location))

    def started(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if threading.current_thread() is here and second.ident is None and "INSERT INTO revisions" in text:
            second.start()

    event.listen(engine, "before_cursor_execute", started)
    try:
        first = writer.post("/articles/new", form).location
    finally:
        event.remove(engine, "before_cursor_execute", started)
        second.join(30)
    assert answers == [first]
    assert number_of(app, Article) == before + 1


def test_a_first_one_that_never_ends_is_told(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def claimed(*_arguments: object) -> None:
        asked.append(1)
        raise Problem("call-in-flight", headers={"Retry-After": "1"})

    monkeypatch.setattr(forms.article_changes, "once", claimed)
    monkeypatch.setattr(forms.time, "sleep", lambda _seconds: None)
    asking = app.test_request_context("/articles/new", method="POST", data={"once": "x" * 22})
    with asking, pytest.raises(Problem) as result:
        forms.once(lambda: "/")
    assert result.value.code == "call-in-flight"
    assert len(asked) == 40
