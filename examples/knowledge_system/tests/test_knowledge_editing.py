"""Work that must not be lost: conflicts, forms after the end of a session, addresses and searches as typed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape, unescape
from typing import Any

import pytest

from knowledge_system.domain.permissions import Actor
from knowledge_system.models import Article
from knowledge_system.services.knowledge.article_queries import ArticleFilter


def form(**changed: str) -> dict[str, str]:
    return {
        "title": "盛土の締固め管理",
        "category": "土工",
        "summary": "締固め度の測り方",
        "body": "## 管理基準\n\n締固め度 **90%** 以上",
        "tags": "盛土、締固め",
        "status": "draft",
        **changed,
    }


@pytest.mark.parametrize(
    "path", ["/articles/１", "/articles/1٢", "/articles/01", "/articles/+1", "/articles/1/edit/１"]
)
def test_one_page_has_one_address(visit: Callable[..., Any], path: str) -> None:
    assert visit("tanaka").get(path).status_code == 404


SYMBOLS = {
    "100%": {"配合 100% 試験"},
    "%": {"配合 100% 試験"},
    "１００％": {"配合 100% 試験"},
    "a_b": {"係数 a_b の表"},
    "_": {"係数 a_b の表"},
    "A+B": {"工程 a+b の比較"},
    "＋": {"工程 a+b の比較"},
    "a%b": set[str](),
    "axb": {"係数 axb の表"},
}


def test_symbols_in_a_search_are_text(app: Any) -> None:
    parts = app.extensions["knowledge"]
    titles = ["配合 100% 試験", "配合 1000 試験", "係数 a_b の表", "係数 axb の表", "工程 a+b の比較"]
    now = datetime.now(UTC)
    with parts.sessions.begin() as session:
        for title in titles:
            article = Article(title=title, body="x", category="積算", status="retired", author_id=1)
            article.created_at = article.updated_at = now
            session.add(article)
            session.flush()
            parts.search.index(session, article.id, title=title, body="x")
    for query, found in SYMBOLS.items():
        wanted = ArticleFilter(category="積算", status="retired")
        page, _ = parts.catalogue.page(Actor(1, "", "", "viewer"), wanted, query=query)
        assert {item["title"] for item in page["items"]} & set(titles) == found, query


def test_a_conflict_shows_every_field_that_differs_as_a_difference(visit: Callable[..., Any]) -> None:
    one, two = visit("sato"), visit("yamamoto")
    shown = one.get("/articles/1/edit").get_data(as_text=True)
    body = unescape(re.search(r'name="body"[^>]*>(.*?)</textarea>', shown, re.DOTALL)[1])  # type: ignore[index]
    first = form(
        title="先の題名", summary="先の要約", body=body, category="安全", tags="甲、乙", revision="1"
    )
    assert one.post("/articles/1/edit", first).status_code == 303
    typed = form(
        title="後の題名",
        summary="後の要約",
        body=f"{body}\n追記",
        category="品質",
        tags="甲 丙",
        revision="1",
    )
    page = two.post("/articles/1/edit", typed).get_data(as_text=True)
    for name in ("題名", "分類", "要約", "本文", "タグ"):
        assert f"<h3>{name}</h3>" in page, name
    assert "<h3>状態</h3>" not in page
    assert "<del>先</del><ins>後</ins>の題名" in page
    assert "<ins>追記</ins>" in page
    assert "<del>乙</del><ins>丙</ins>" in page
    assert "佐藤 誠 さんが" in page


def test_after_the_end_of_a_session_a_form_is_come_back_to(browser: Any) -> None:
    away = "/sign-in?reason=idle&next=%2F"
    for path in ("/articles/new", "/articles/3/edit", "/articles?q=a%26b&status=draft"):
        page = browser.get(away, Referer=f"https://localhost:8443{path}").get_data(as_text=True)
        assert f'name="next" value="{escape(path)}"' in page
    for elsewhere in (
        "https://evil.example/articles/new",
        "http://localhost:8443/articles/new",
        "https://localhost:8443//evil.example",
        "https://[::1",
        "x",
    ):
        page = browser.get(away, Referer=elsewhere).get_data(as_text=True)
        assert 'name="next" value="/"' in page, elsewhere


def test_a_preview_shows_and_saves_nothing(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    fields = form(title="", body="- [ ] 手すり\n\n<b>", revision="1", site="北工区")
    page = person.post("/articles/preview", fields)
    assert page.status_code == 200
    assert "まだ保存されていません" in page.get_data(as_text=True)
    assert '<li class="check">' in page.get_data(as_text=True)
    assert "該当する記事はありません" in person.get("/articles?status=draft").get_data(as_text=True)
    assert person.post("/articles/preview", {**fields, "author_id": "1"}).status_code == 422
    assert visit("kobayashi").post("/articles/preview", fields).status_code == 403
