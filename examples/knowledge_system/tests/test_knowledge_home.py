"""The start page, what was read last, titles suggested while typing, and counts of what a search finds."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from knowledge_system.models import Article

FORM = {
    "title": "書きかけの試し",
    "category": "土工",
    "summary": "",
    "body": "x",
    "tags": "",
    "status": "draft",
}


def section(page: str, name: str) -> str:
    found = re.search(rf'<section class="card" aria-labelledby="{name}">.*?</section>', page, re.DOTALL)
    return found[0] if found else ""


def home(person: Any) -> str:
    answer = person.get("/")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    return str(answer.get_data(as_text=True))


def test_the_start_page_has_what_concerns_the_user(visit: Callable[..., Any]) -> None:
    writer, reviewer, reader = visit("tanaka"), visit("ito"), visit("kobayashi")
    writer.get("/articles/new")
    place = writer.post("/articles/new", FORM).headers["Location"].partition("?")[0]
    assert "書きかけの試し" in section(home(writer), "unfinished")
    assert "書きかけの試し" not in home(reviewer)  # nothing for reviewers yet
    writer.get(place)
    submitted = {"step": "submit", "revision": "1", "comment": "", "files": "0"}
    assert writer.post(f"{place}/steps", submitted).status_code == 303
    waiting = section(home(reviewer), "waiting")
    assert f'<a href="{place}/history/1">書きかけの試し</a>' in waiting
    assert "未読のお知らせ 1 件" in waiting
    assert "確認時期を過ぎた記事" in waiting
    assert "書きかけの試し" not in section(home(writer), "waiting")  # not what one waits for oneself
    assert section(home(reader), "waiting") == section(home(reader), "unfinished") == ""
    assert "強風・大雨のあとの足場点検" in section(home(reader), "newest")


def test_what_was_read_last_is_first_and_of_this_user_only(visit: Callable[..., Any]) -> None:
    reader = visit("kobayashi")
    assert section(home(reader), "recent") == ""
    for number in (1, 2, 3, 1):
        reader.get(f"/articles/{number}")
    assert re.findall(r'href="/articles/(\d+)"', section(home(reader), "recent")) == ["1", "3", "2"]
    for number in range(4, 14):
        reader.get(f"/articles/{number}")
    assert len(re.findall(r"<li", section(home(reader), "recent"))) == 8
    cookie = reader.client.get_cookie("__Host-knowledge_recent", domain="localhost")
    assert cookie.http_only
    assert cookie.secure
    other = visit("sato")
    for value in (cookie.value, "x", "3:1.2.x", "3:" + "1." * 400, f"{cookie.value.partition(':')[0]}:99999"):
        other.client.set_cookie(cookie.key, value, domain="localhost", path="/", secure=True)
        assert section(home(other), "recent") == ""


def test_articles_of_watched_tags_and_favourites_are_there(visit: Callable[..., Any]) -> None:
    reader = visit("kobayashi")
    reader.get("/articles/1")
    reader.post("/watches", {"kind": "tag", "subject": "養生", "on": "on"})
    reader.post("/articles/5/favourite", {"on": "on"})
    page = home(reader)
    assert "寒中コンクリートの初期養生と温度管理" in section(page, "watched")
    assert 'href="/articles/5"' in section(page, "favourites")


def article(title: str, status: str = "published") -> Article:
    now = datetime.now(UTC)
    made = Article(title=title, body="x", category="積算", status=status, author_id=1)
    made.created_at = made.updated_at = now
    return made


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("髙橋", "高橋建設との打合せ"),
        ("高橋", "高橋建設との打合せ"),
        ("ろーらー", "ローラーの点検"),
        ("ローラー", "ローラーの点検"),
        ("建設と", "高橋建設との打合せ"),
        ("100%", "100% 検査"),
        ("下書きの", None),
        ("%", "100% 検査"),
        (" ", None),
    ],
)
def test_titles_are_suggested_in_any_spelling(
    app: Any, visit: Callable[..., Any], typed: str, first: str | None
) -> None:
    with app.extensions["knowledge"].sessions.begin() as session:
        made = [
            *map(article, ("高橋建設との打合せ", "ローラーの点検", "100% 検査")),
            article("下書きの題名", "draft"),
        ]
        session.add_all(made)
        session.flush()
        for each in made:
            app.extensions["knowledge"].search.index(session, each.id, title=each.title)
    answer = visit("kobayashi").api("GET", f"/api/titles?q={typed.replace('%', '%25')}")
    assert answer.status_code == 200
    titles = [item["title"] for item in answer.json["items"]]
    assert titles[:1] == ([first] if first else [])
    assert len(titles) <= 8


def test_a_search_counts_what_it_finds_in_each_category(visit: Callable[..., Any]) -> None:
    reader = visit("kobayashi")

    def counted(query: str) -> dict[str, int]:
        page = reader.get(f"/articles?{query}").get_data(as_text=True)
        options = re.findall(r'<option value="([^"]+)"[^>]*>[^<(]+ \((\d+)\)</option>', page)
        return {category: int(number) for category, number in options}

    found = counted("q=養生")
    total = int(
        re.search(r"<strong>(\d+)</strong> 件", reader.get("/articles?q=養生").get_data(as_text=True))[1]
    )  # type: ignore[index]
    assert sum(found.values()) == total
    assert found == counted("q=養生&category=安全")  # what another category would give is still there
    assert found != counted("")
    assert sum(counted("q=養生&tag=養生").values()) < total
