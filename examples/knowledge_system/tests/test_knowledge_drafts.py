"""What the editor holds and nobody has saved: kept for its writer, shown again, and gone once it is saved."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest

from knowledge_system.domain import article_templates, markdown, permissions
from knowledge_system.domain.permissions import Actor
from knowledge_system.services.knowledge import drafts

TYPED = {"title": "打ちかけ", "category": "安全", "status": "draft", "site": "", "summary": "", "tags": "甲"}
FORM = {"title": "打ちかけ", "category": "安全", "summary": "", "body": "全文", "tags": "", "status": "draft"}


def keep(person: Any, form: str, **changed: Any) -> Any:
    return person.api("PUT", f"/api/drafts/{form}", {**TYPED, **changed}, **{"X-CSRF-Token": person.token})


def field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}"[^>]*?(?: value="([^"]*)"[^>]*>|>([^<]*)</textarea>)', page)
    assert found
    return unescape(found[1] if found[1] is not None else found[2])


def editor(person: Any, path: str) -> str:
    return str(person.get(path).get_data(as_text=True))


def test_a_new_article_goes_on_where_it_was_left_on_any_device(visit: Callable[..., Any]) -> None:
    office, site, other = visit("tanaka"), visit("tanaka"), visit("sato")
    editor(office, "/articles/new")
    assert keep(office, "article-new", body="本文の途中  ").status_code == 204
    assert keep(office, "article-new", body="本文の途中です").status_code == 204
    page = editor(site, "/articles/new")
    assert (field(page, "title"), field(page, "body")) == ("打ちかけ", "本文の途中です")
    assert "の下書きを表示しています" in page
    assert field(editor(other, "/articles/new"), "title") == ""
    assert other.api("GET", "/api/drafts/article-new").status_code == 404
    assert site.api("GET", "/api/drafts/article-new").json["body"] == "本文の途中です"
    assert site.post("/articles/new", FORM).status_code == 303
    assert field(editor(office, "/articles/new"), "title") == ""


def test_it_is_discarded_without_a_script(visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    editor(writer, "/articles/new")
    keep(writer, "article-new", body="捨てる")
    editor(writer, "/articles/new")
    answer = writer.post("/articles/new/discard", {})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/articles/new")
    assert field(editor(writer, "/articles/new"), "body") == ""
    keep(writer, "article-1", body="捨てる", revision=1)
    assert writer.post("/articles/1/discard", {}).headers["Location"] == "/articles/1/edit"


def test_an_edit_says_which_revision_it_began_with(visit: Callable[..., Any]) -> None:
    one, two = visit("sato"), visit("ito")
    before = field(editor(one, "/articles/1/edit"), "body")
    keep(one, "article-1", title="一人目", body=f"{before}追記", revision=1)
    page = editor(two, "/articles/1/edit")
    assert field(page, "title") != "一人目"
    assert two.post("/articles/1/edit", {**FORM, "revision": "1"}).status_code == 303
    page = editor(one, "/articles/1/edit")
    assert (field(page, "title"), field(page, "revision")) == ("一人目", "1")
    assert "この下書きは第 1 版をもとにしています。いまは第 2 版です。" in page
    saved = one.post("/articles/1/edit", {**FORM, "title": "一人目", "revision": "1"})
    assert saved.status_code == 409  # nothing of the other is lost, and the draft stays
    assert one.api("GET", "/api/drafts/article-1").status_code == 200
    assert one.post("/articles/1/edit", {**FORM, "title": "一人目", "revision": "2"}).status_code == 303
    assert one.api("GET", "/api/drafts/article-1").status_code == 404


def test_what_equals_the_saved_text_is_no_draft(visit: Callable[..., Any]) -> None:
    writer = visit("sato")
    page = editor(writer, "/articles/1/edit")
    same = {name: field(page, name) for name in ("title", "site", "summary", "body", "tags")}
    category = re.search(r'<option value="([^"]+)" selected>', page)
    assert category
    keep(writer, "article-1", **same, category=category[1], revision=1)
    assert "の下書きを表示しています" not in editor(writer, "/articles/1/edit")


@pytest.mark.parametrize(
    ("form", "changed", "status"),
    [
        ("article-01", {}, 404),
        ("comment-new", {}, 404),
        ("article-new", {"body": "x" * 50_001}, 422),
        ("article-new", {"body": "\x00"}, 422),
        ("article-new", {"owner": "sato"}, 422),
        ("article-new", {"revision": -1}, 422),
        ("article-new", {"category": "<script>", "title": ""}, 204),
    ],
)
def test_drafts_take_any_text_and_nothing_else(
    visit: Callable[..., Any], form: str, changed: dict[str, Any], status: int
) -> None:
    writer = visit("tanaka")
    editor(writer, "/articles/new")
    assert keep(writer, form, **changed).status_code == status
    assert "<script>" not in editor(writer, "/articles/new").replace('<script src="', "")


def test_readers_keep_none_and_writers_a_hundred(app: Any, visit: Callable[..., Any]) -> None:
    reader, writer = visit("kobayashi"), visit("tanaka")
    reader.get("/articles")
    assert keep(reader, "article-new").status_code == 403
    editor(writer, "/articles/new")
    parts = app.extensions["knowledge"]
    actor = Actor(writer.api("GET", "/api/auth/me").json["id"], "tanaka", "", "writer")
    for number in range(1, 101):
        with parts.sessions.begin() as session:
            drafts.store(session, actor, f"article-{number}", 1, TYPED, now=datetime.now(UTC))
    assert keep(writer, "article-7").status_code == 204
    assert keep(writer, "article-101").status_code == 422


def test_a_month_later_they_are_gone(app: Any) -> None:
    now, actor = datetime.now(UTC), Actor(1, "tanaka", "", "writer")
    with app.extensions["knowledge"].sessions.begin() as session:
        drafts.store(session, actor, "article-1", 1, TYPED, now=now - drafts.KEPT_FOR - timedelta(seconds=1))
        drafts.store(session, actor, "article-2", 1, TYPED, now=now)
        assert drafts.remove_expired(session, now=now) == 1
        assert drafts.load(session, actor, "article-1") is None
        assert drafts.load(session, actor, "article-2") is not None


@pytest.mark.parametrize("language", ["ja", "en"])
def test_templates_are_whole_in_both_languages(visit: Callable[..., Any], language: str) -> None:
    assert [each.key for each in article_templates.listed(language)] == [
        "procedure",
        "corrective",
        "checklist",
    ]
    writer = visit("tanaka")
    page = str(writer.get("/articles/new", **{"Accept-Language": language}).get_data(as_text=True))
    for each in article_templates.listed(language):
        assert each.category in permissions.CATEGORIES
        assert len(markdown.headings(each.body)) >= 5
        assert f'href="/articles/new?template={each.key}">{each.name}</a>' in page
        filled = str(
            writer.get(f"/articles/new?template={each.key}", **{"Accept-Language": language}).get_data(
                as_text=True
            )
        )
        assert field(filled, "body").strip() == each.body.strip()
        assert f'<option value="{each.category}" selected>' in filled


def test_a_template_never_replaces_what_was_typed(visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    editor(writer, "/articles/new")
    keep(writer, "article-new", body="")
    page = editor(writer, "/articles/new?template=checklist")
    assert field(page, "title") == "打ちかけ"
    assert "点検項目" in field(page, "body")
    keep(writer, "article-new", body="書いたもの")
    assert field(editor(writer, "/articles/new?template=checklist"), "body") == "書いたもの"
    assert field(editor(writer, "/articles/new?template=nothing"), "body") == "書いたもの"
