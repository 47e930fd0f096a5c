"""Comments: answered, changed for a quarter of an hour, removed with a trace, and whom they are about."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from knowledge_system.domain.markdown import comment
from knowledge_system.domain.permissions import Actor, may_change_comment, may_remove_comment
from knowledge_system.models import Comment, Notice, User
from knowledge_system.services.knowledge.comments import in_threads
from mks_hardening.testing import FrozenClock

PLACE = "/articles/1"


def say(person: Any, body: str, **more: str) -> int:
    """Write a comment, as the form does; return its number."""
    person.get(PLACE)
    answer = person.post(f"{PLACE}/comments", {"body": body, **more})
    assert answer.status_code == 303, answer.get_data(as_text=True)
    numbers = re.findall(r'id="comment-(\d+)"', person.get(PLACE).get_data(as_text=True))
    return max(map(int, numbers))


def page(person: Any) -> str:
    return str(person.get(PLACE).get_data(as_text=True))


def told(app: Any) -> set[tuple[str, str]]:
    with app.extensions["knowledge"].sessions() as session:
        asked = select(User.username, Notice.kind).join(Notice, Notice.user_id == User.id)
        return {(row.username, row.kind) for row in session.execute(asked)}


def test_an_answer_stands_below_and_tells_whom_it_answers(app: Any, visit: Callable[..., Any]) -> None:
    asker, helper, other = visit("kobayashi"), visit("suzuki"), visit("yamamoto")
    first = say(asker, "どの規格ですか")
    second = say(helper, "JIS です", parent=str(first))
    third = say(other, "助かりました", parent=str(second))  # an answer to an answer stays in the same thread
    text = page(asker)
    thread = text[text.index(f'id="comment-{first}"') :]
    assert (
        thread.index('<ol class="answers">')
        < thread.index(f'id="comment-{second}"')
        < thread.index(f'id="comment-{third}"')
    )
    assert ("kobayashi", "reply") in told(app)
    assert ("suzuki", "reply") not in told(app)
    with app.extensions["knowledge"].sessions() as session:
        assert {session.get(Comment, number).parent_id for number in (second, third)} == {first}
    for wrong in ("999999", "2147483647"):
        assert asker.post(f"{PLACE}/comments", {"body": "x", "parent": wrong}).status_code == 404
    assert asker.post("/articles/2/comments", {"body": "x", "parent": str(first)}).status_code == 404
    assert asker.post(f"{PLACE}/comments", {"body": "x", "parent": "-1"}).status_code == 422


def test_people_are_mentioned_once_and_only_if_they_may_see_it(app: Any, visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    say(writer, "@suzuki @suzuki さん、(@yamamoto)も見てください。@tanaka @nobody mail@sato.example")
    mentions = {name for name, kind in told(app) if kind == "mention"}
    assert mentions == {"suzuki", "yamamoto"}
    text = page(visit("suzuki"))
    assert (
        '<strong class="mention">@鈴木 美咲</strong> <strong class="mention">@鈴木 美咲</strong> さん' in text
    )
    assert "@nobody mail@sato.example" in text
    notices = visit("suzuki").get("/notices").get_data(as_text=True)
    assert "田中 健一 さんがコメントであなたに呼びかけました" in notices
    # A draft, which the person who is mentioned may not see.
    made = {"title": "秘密", "category": "土工", "summary": "", "body": "x", "tags": "", "status": "draft"}
    place = writer.post("/articles/new", made).headers["Location"].partition("?")[0]
    assert writer.post(f"{place}/comments", {"body": "@kobayashi"}).status_code == 303
    assert "kobayashi" not in {name for name, _ in told(app)}


def test_one_changes_ones_own_for_a_quarter_of_an_hour(visit: Callable[..., Any], clock: FrozenClock) -> None:
    writer, reviewer = visit("kobayashi"), visit("sato")
    number = say(writer, "まちがい")
    assert f'action="{PLACE}/comments/{number}"' in page(writer)
    assert f'action="{PLACE}/comments/{number}"' not in page(reviewer)
    assert reviewer.post(f"{PLACE}/comments/{number}", {"body": "x"}).status_code == 403
    assert writer.post(f"{PLACE}/comments/{number}", {"body": " "}).status_code == 422
    assert writer.post(f"{PLACE}/comments/{number}", {"body": "正しい<b>"}).status_code == 303
    text = page(reviewer)
    assert "正しい&lt;b&gt;" in text
    assert "まちがい" not in text
    assert "編集済み" in text
    assert writer.post(f"/articles/2/comments/{number}", {"body": "x"}).status_code == 404
    clock.advance(901)
    assert f'action="{PLACE}/comments/{number}"' not in page(writer)
    assert writer.post(f"{PLACE}/comments/{number}", {"body": "x"}).status_code == 403


def test_what_is_removed_leaves_a_trace_where_it_was_answered(app: Any, visit: Callable[..., Any]) -> None:
    writer, other, reviewer = visit("kobayashi"), visit("suzuki"), visit("sato")
    first = say(writer, "消したい言葉")
    second = say(other, "返事です", parent=str(first))
    third = say(writer, "これも消す")
    assert other.post(f"{PLACE}/comments/{first}/delete", {}).status_code == 403
    before = int(re.search(r"コメント <small>(\d+)", page(writer))[1])  # type: ignore[index]
    assert writer.post(f"{PLACE}/comments/{first}/delete", {}).status_code == 303
    assert reviewer.post(f"{PLACE}/comments/{third}/delete", {}).status_code == 303
    text = page(writer)
    assert "消したい言葉" not in text
    assert "返事です" in text
    assert text.count("このコメントは削除されました。") == 1  # nothing is left of the one nobody answered
    assert f"コメント <small>{before - 2}" in text
    with app.extensions["knowledge"].sessions() as session:
        assert session.get(Comment, first).body == ""
    assert writer.post(f"{PLACE}/comments/{first}/delete", {}).status_code == 404
    assert writer.post(f"{PLACE}/comments", {"body": "x", "parent": str(first)}).status_code == 404
    listed = writer.api("GET", "/api/knowledge/1/comments").json["items"]
    assert {first, third}.isdisjoint(item["id"] for item in listed)
    assert second in {item["id"] for item in listed}
    administrator = visit("ito")
    assert "コメントを削除" in administrator.get("/admin/audit").get_data(as_text=True)


@pytest.mark.parametrize(
    ("role", "own", "age", "change", "remove"),
    [
        ("viewer", True, 900.0, True, True),
        ("viewer", True, 900.1, False, True),
        ("viewer", False, 0.0, False, False),
        ("writer", False, 0.0, False, False),
        ("reviewer", False, 0.0, False, True),
        ("admin", False, 9e9, False, True),
    ],
)
def test_who_may_change_and_remove(role: str, own: bool, age: float, change: bool, remove: bool) -> None:  # noqa: FBT001 - a table
    actor, author = Actor(1, "x", "", role), 1 if own else 2
    assert may_change_comment(actor, author_id=author, age=age) is change
    assert may_remove_comment(actor, author_id=author) is remove


def test_threads_of_entries_that_the_release_before_has_cached() -> None:
    old = {"id": 1, "author": "x", "body": "y", "created_at": "2026-11-25T00:00:00+00:00"}
    assert in_threads([old]) == [(old, [])]


@pytest.mark.parametrize(
    ("body", "html"),
    [
        ("**大事** @sato", '<p><strong>大事</strong> <strong class="mention">@佐藤 &lt;b&gt;</strong></p>\n'),
        ("`@sato` @sato.x", "<p><code>@sato</code> @sato.x</p>\n"),
        ("# 題\n- [x] 済み", None),
        ("<script>@sato</script>", None),
        ("[@sato](javascript:x) a@sato", None),
    ],
)
def test_a_comment_has_the_markup_of_articles_and_names_of_people(body: str, html: str | None) -> None:
    written = str(comment(body, {"sato": "佐藤 <b>"}))
    if html is not None:
        assert written == html
    assert "<b>" not in written
    assert not re.search(r"<h\d|<script|href=.javascript", written)


def test_an_opened_article_has_no_unread_notice_any_more(visit: Callable[..., Any]) -> None:
    writer, reader = visit("tanaka"), visit("kobayashi")
    for place in ("/articles/1", "/articles/2"):
        writer.get(place)
        writer.post(f"{place}/comments", {"body": "@kobayashi"})
    badge = '<span class="visually-hidden">未読 </span>'
    assert f"{badge}2</span>" in reader.get("/articles").get_data(as_text=True)
    reader.send("HEAD", "/articles/1")  # by a program that looks for changes
    assert f"{badge}2</span>" in reader.get("/articles").get_data(as_text=True)
    assert f"{badge}1</span>" in reader.get("/articles/1").get_data(as_text=True)
    assert reader.get("/articles/999999").status_code == 404
    assert badge not in reader.get("/articles/2").get_data(as_text=True)
