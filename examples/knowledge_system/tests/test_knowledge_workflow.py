"""The way of a version from draft to publication: who may take which step, what readers see, what is kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest
from sqlalchemy import select, update

from knowledge_system.background import mail_texts
from knowledge_system.domain import workflow
from knowledge_system.domain.permissions import ROLES, STATUSES, Actor
from knowledge_system.domain.workflow import STEPS, Subject
from knowledge_system.models import Notice, Revision

# For each step: who may take it in the status before it, of a version written by the author (1) alone.
ALLOWED = {
    "submit": {"writer 1", "reviewer 1", "reviewer 2", "admin 1", "admin 2"},
    "withdraw": {"writer 1", "reviewer 1", "reviewer 2", "admin 1", "admin 2"},
    "return": {"reviewer 1", "reviewer 2", "admin 1", "admin 2"},
    "approve": {"reviewer 2", "admin 2"},
    "confirm": {"writer 1", "reviewer 1", "reviewer 2", "admin 1", "admin 2"},
    "retire": {"reviewer 1", "reviewer 2", "admin 1", "admin 2"},
}


@pytest.mark.parametrize(("step", "status"), list(product(STEPS, STATUSES)))
def test_who_may_take_which_step(step: str, status: str) -> None:
    able = {
        f"{role} {identity}"
        for role, identity in product(ROLES, (1, 2))
        if not workflow.refusal(step, Actor(identity, "", "", role), Subject(status, 1, {1}))
    }
    assert able == (ALLOWED[step] if status == STEPS[step].before else set())


@pytest.mark.parametrize(
    ("writers", "four_eyes", "code"),
    [({1}, True, ""), ({1, 2}, True, "own-work"), ({2}, True, "own-work"), ({2}, False, "")],
)
def test_nobody_approves_what_he_wrote(writers: set[int], code: str, *, four_eyes: bool) -> None:
    reviewer = Actor(2, "", "", "reviewer")
    assert workflow.refusal("approve", reviewer, Subject("review", 1, writers), four_eyes=four_eyes) == code


def test_only_the_exception_lets_a_reviewer_save_as_published() -> None:
    for role, four_eyes in product(ROLES, (True, False)):
        statuses = workflow.statuses_to_save(Actor(1, "", "", role), four_eyes=four_eyes)
        assert ("published" in statuses) is (role in {"reviewer", "admin"} and not four_eyes)
        assert bool(statuses) is (role != "viewer")
        assert "retired" not in statuses


def test_every_step_has_words() -> None:
    for step in STEPS:
        letter = mail_texts.step_taken(
            step, "題名", by="佐藤", said="一行目\n二行目", link="https://x"
        ).written("ja")
        assert "題名" in letter.subject
        assert "  二行目\n" in letter.text


def form(**changed: str) -> dict[str, str]:
    return {
        "title": "盛土の締固め管理",
        "category": "土工",
        "summary": "締固め度の測り方",
        "body": "締固め度 90% 以上",
        "tags": "盛土、締固め",
        "site": "",
        "status": "draft",
        **changed,
    }


def step(person: Any, article: str, name: str, revision: int, comment: str = "", **headers: str) -> Any:
    return person.post(
        f"{article}/steps", {"step": name, "revision": str(revision), "comment": comment}, **headers
    )


def made_by(person: Any, **changed: str) -> str:
    return str(person.post("/articles", form(**changed)).headers["Location"]).partition("?")[0]


def heading(page: Any) -> str:
    return re.search(r"<h1>(.*?)</h1>", page.get_data(as_text=True))[1]  # type: ignore[index]


def test_from_draft_to_publication_with_a_request_for_changes(visit: Callable[..., Any], app: Any) -> None:
    writer, reviewer, reader = visit("tanaka"), visit("sato"), visit("kobayashi")
    article = made_by(writer)
    assert step(writer, article, "approve", 1).status_code == 403
    assert step(reviewer, article, "approve", 1).status_code == 409
    assert step(writer, article, "submit", 1).status_code == 303
    assert "盛土の締固め管理" in reviewer.get("/reviews").get_data(as_text=True)
    assert "盛土の締固め管理" not in visit("suzuki").get("/reviews").get_data(as_text=True)
    silent = step(reviewer, article, "return", 1)
    assert silent.status_code == 422
    assert "入力してください" in silent.get_data(as_text=True)
    assert step(reviewer, article, "return", 1, "試験の頻度も書いてください").status_code == 303
    notices = writer.get("/notices").get_data(as_text=True)
    assert "試験の頻度も書いてください" in notices
    assert "佐藤 誠 さんが修正を依頼しました" in notices
    assert "未読" in notices
    assert writer.post("/notices/read").status_code == 303
    assert "未読" not in writer.get("/notices").get_data(as_text=True)
    assert writer.post(
        f"{article}/edit", form(body="締固め度 90% 以上、1 日 1 回", status="review", revision="1")
    )
    assert reader.get(article).status_code == 404
    assert step(reviewer, article, "approve", 1).status_code == 409  # what he has not seen
    page = reviewer.get(f"{article}/history/2").get_data(as_text=True)
    assert "<ins>、1 日 1 回</ins>" in page
    assert "承認して公開する" in page
    assert step(reviewer, article, "approve", 2).status_code == 303
    assert "1 日 1 回" in reader.get(article).get_data(as_text=True)
    history = writer.get(f"{article}/history").get_data(as_text=True)
    assert "修正を依頼する" in history
    assert "承認して公開する" in history
    with app.extensions["knowledge"].sessions() as session:
        kinds = session.scalars(select(Notice.kind).order_by(Notice.id)).all()
    assert kinds.count("approve") == 1


def test_a_published_article_stays_published_while_its_next_version_is_written(
    visit: Callable[..., Any],
) -> None:
    writer, reviewer, reader = visit("tanaka"), visit("sato"), visit("kobayashi")
    article = made_by(writer, status="review")
    assert step(reviewer, article, "approve", 1).status_code == 303
    fixed = writer.post(f"{article}/edit", form(title="盛土の締固め", site="北工区", revision="1"))
    assert fixed.headers["Location"] == f"{article}/history/2?done=next-saved"
    assert heading(writer.get(f"{article}/history/2")) == "盛土の締固め"
    for person in (writer, reviewer, reader):
        assert heading(person.get(article)) == "盛土の締固め管理"
    assert "盛土の締固め管理" in reader.get("/articles").get_data(as_text=True)
    for hidden in (f"{article}/history/2", f"{article}/edit"):
        assert reader.get(hidden).status_code in {403, 404}
    assert "次の版" not in reader.get(article).get_data(as_text=True)
    assert 'value="盛土の締固め"' in writer.get(f"{article}/edit").get_data(as_text=True)
    assert article in writer.get("/articles?status=draft").get_data(as_text=True)
    assert step(writer, article, "submit", 2).status_code == 303
    assert "公開中の記事の次の版" in reviewer.get("/reviews").get_data(as_text=True)
    assert step(reviewer, article, "approve", 2).status_code == 303
    assert heading(reader.get(article)) == "盛土の締固め"
    assert article in reader.get("/articles?site=北工区").get_data(as_text=True)
    assert article in reader.get("/articles?q=北工区+締固め").get_data(as_text=True)
    assert "<del>管理</del>" in reader.get(f"{article}/history/2").get_data(as_text=True)


def test_a_reviewer_needs_another_one_for_own_articles(
    visit: Callable[..., Any], make_app: Callable[..., Any]
) -> None:
    one, other = visit("sato"), visit("yamamoto")
    article = made_by(one, status="review")
    refused = step(one, article, "approve", 1)
    assert refused.status_code == 403
    assert "自分の書いた版は承認できません" in refused.get_data(as_text=True)
    assert "承認して公開する" not in one.get(article).get_data(as_text=True)
    assert one.post("/articles", form(status="published"), Accept="application/json").status_code == 422
    # Whoever has a hand in it writes it too.
    assert (
        other.post(f"{article}/edit", form(body="直した", status="review", revision="1")).status_code == 303
    )
    assert step(other, article, "approve", 2).status_code == 403
    assert step(visit("ito"), article, "approve", 2).status_code == 303
    alone = visit("sato", at=make_app(four_eyes=False))
    assert heading(alone.get(made_by(alone, status="published"))) == "盛土の締固め管理"


def test_an_older_text_can_be_had_back(visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    article = made_by(writer, body="最初の本文", tags="甲、乙")
    assert writer.post(f"{article}/edit", form(body="二番目の本文", revision="1")).status_code == 303
    assert "最初の本文" in writer.get(f"{article}/history/1").get_data(as_text=True)
    restored = writer.post(f"{article}/history/1/restore", {"revision": "2"})
    assert restored.headers["Location"] == f"{article}/edit?done=restored"
    page = writer.get(f"{article}/history/3").get_data(as_text=True)
    assert "<ins>最初</ins>" in page
    assert writer.post(f"{article}/history/1/restore", {"revision": "2"}).status_code == 409
    assert visit("suzuki").get(f"{article}/history/1").status_code == 404
    assert visit("suzuki").post(f"{article}/history/1/restore", {"revision": "3"}).status_code == 404
    assert visit("kobayashi").post("/articles/1/history/1/restore", {"revision": "1"}).status_code == 403
    for number in (0, 4, 99999):
        assert writer.get(f"{article}/history/{number}").status_code == 404


def test_a_text_that_was_not_kept_is_said(visit: Callable[..., Any], app: Any) -> None:
    with app.extensions["knowledge"].sessions.begin() as session:
        session.execute(update(Revision).where(Revision.article_id == 1).values(body=None))
    reviewer = visit("sato")
    assert "残っていません" in reviewer.get("/articles/1/history/1").get_data(as_text=True)
    assert reviewer.post("/articles/1/edit", form(revision="1", status="review")).status_code == 303
    assert reviewer.get("/articles/1/history/2").status_code == 200
    assert step(visit("yamamoto"), "/articles/1", "approve", 2).status_code == 303


def test_retired_and_confirmed(visit: Callable[..., Any]) -> None:
    reviewer, reader = visit("sato"), visit("kobayashi")
    assert step(reader, "/articles/1", "confirm", 1).status_code == 403
    assert step(reviewer, "/articles/1", "confirm", 1).status_code == 303
    assert "2026年11月25日 確認" in reader.get("/articles/1").get_data(as_text=True)
    assert step(reviewer, "/articles/1", "retire", 1).status_code == 422
    assert step(reviewer, "/articles/1", "retire", 1, "新しい指針に置き換えた").status_code == 303
    assert "廃止されています" in reader.get("/articles/1").get_data(as_text=True)
    assert step(reviewer, "/articles/1", "retire", 1, "もう一度").status_code == 409


def test_of_many_steps_at_once_one_is_taken(visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    article = made_by(writer, status="review")
    people = [visit(name) for name in ("sato", "yamamoto", "ito")]
    with ThreadPoolExecutor(3) as pool:
        seen = list(pool.map(lambda person: step(person, article, "approve", 1).status_code, people))
    assert sorted(seen) == [303, 409, 409]


@pytest.mark.parametrize(
    "fields",
    [
        {"step": "publish", "revision": "1"},
        {"step": "approve"},
        {"step": "approve", "revision": "1", "author_id": "1"},
        {"step": "approve", "revision": "１"},
        {"step": "retire", "revision": "1", "comment": "\u200b"},
    ],
)
def test_forged_steps_change_nothing(visit: Callable[..., Any], fields: dict[str, str]) -> None:
    answer = visit("sato").post("/articles/1/steps", fields, Accept="application/json")
    assert answer.status_code == 422
    assert "公開" in visit("sato").get("/articles/1/history").get_data(as_text=True)


def test_readers_see_who_approved_and_when(visit: Callable[..., Any]) -> None:
    reader = visit("kobayashi").get("/articles/1").get_data(as_text=True)
    assert len(re.findall(r"承認 [^<(]+\(20", reader)) == 2  # on the page, and at its end in print
    assert "https://localhost:8443/articles/1 /" in reader
    author = visit("tanaka")
    made = {"title": "未承認", "category": "土工", "summary": "", "body": "x", "tags": "", "status": "draft"}
    place = author.post("/articles/new", made).headers["Location"].partition("?")[0]
    assert 'class="approved"' not in author.get(place).get_data(as_text=True)


def test_any_two_versions_are_compared_as_text_and_as_readers_see_them(visit: Callable[..., Any]) -> None:
    author = visit("tanaka")
    made = {"title": "版の比較", "category": "土工", "summary": "", "tags": "", "status": "draft"}
    texts = ("# 一\n\n- 水を測る\n\n| 列 | 値 |\n|--|--|\n| 甲 | 1 |\n", "", "")
    texts = (texts[0], texts[0].replace("測る", "量る"), texts[0].replace("| 甲 | 1 |", "| 甲 | 2 |"))
    place = author.post("/articles/new", {**made, "body": texts[0]}).headers["Location"].partition("?")[0]
    for number, body in enumerate(texts[1:], 1):
        author.get(f"{place}/edit")
        saved = author.post(f"{place}/edit", {**made, "body": body, "revision": str(number)})
        assert saved.status_code == 303

    def compared(query: str) -> str:
        answer = author.get(f"{place}/compare?{query}")
        assert answer.status_code == 200
        return str(answer.get_data(as_text=True))

    page = compared("old=1&new=2")
    assert "<li>水を<del>測</del><ins>量</ins>る</li>" in page
    assert "block-added" not in page
    page = compared("old=1&new=3")
    assert page.count('<div class="block-') == 2  # the table as it was, and as it is
    assert page.count("<table>") == 2
    assert "<ins>量</ins>" not in page
    typed = compared("old=2&new=3&view=text")
    assert "| 甲 | <del>1</del><ins>2</ins> |" in typed
    assert "内容は同じです" in compared("old=3&new=3")
    assert "第 2 版と第 3 版の違い" in compared("")
    assert f'action="{place}/compare"' in author.get(f"{place}/history").get_data(as_text=True)
    assert author.get(f"{place}/compare?old=1&new=9").status_code == 404
    assert visit("kobayashi").get(f"{place}/compare?old=1&new=2").status_code == 404
