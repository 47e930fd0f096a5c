"""Searching: marks and excerpts, filters, order, numbered pages, one spelling for a tag, both databases alike."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from datetime import date
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_system.domain import page_numbers, permissions, search_variants, snippets
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.tags import key_of
from knowledge_system.services.knowledge.article_queries import ArticleFilter
from knowledge_system.services.knowledge.article_reader import ListQuery
from mks_hardening.db import SearchIndex
from mks_hardening.testing import FrozenClock


@pytest.mark.parametrize(
    ("query", "text", "found"),
    [
        ("養生", "初期養生と養生温度", ["養生", "養生"]),
        ("コンクリート", "ｺﾝｸﾘｰﾄの打設", ["ｺﾝｸﾘｰﾄ"]),
        ("ｶﾞｽ圧接", "ガス圧接、ｶﾞｽ圧接", ["ガス圧接", "ｶﾞｽ圧接"]),
        ("rc", "ＲＣ造とRc壁", ["ＲＣ", "Rc"]),
        ("50%", "湿度50%、湿度５０％", ["50%", "５０％"]),
        ("鉄筋 型枠", "型枠と鉄筋", ["型枠", "鉄筋"]),
        ("a.c", "xbz a.c", ["a", "c"]),  # never an expression
        ("鉄 鉄筋", "鉄筋", ["鉄筋"]),  # the longer word
        ("  ", "何もない", []),
        ("橋", "トンネル", []),
        ("こんくりーと", "コンクリート、ｺﾝｸﾘｰﾄ、こんくりーと", ["コンクリート", "ｺﾝｸﾘｰﾄ", "こんくりーと"]),
        ("コンクリート", "こんくりーとの打設", ["こんくりーと"]),
        ("がす圧接", "ｶﾞｽ圧接", ["ｶﾞｽ圧接"]),
        ("高橋", "髙橋工務店と高橋組", ["髙橋", "高橋"]),
        ("𠮷田", "吉田と𠮷田", ["吉田", "𠮷田"]),
        ("渡辺", "渡邉、渡邊、渡辺、渡部", ["渡邉", "渡邊", "渡辺"]),
        ("さび", "錆、サビ、さび", ["サビ", "さび"]),
        ("ひび割れ", "クラックとくらっく", ["クラック", "くらっく"]),
        ("鉄筋かぶり", "鉄筋のかぶり", ["鉄筋", "かぶり"]),
    ],
)
def test_words_are_marked_as_they_were_written(query: str, text: str, found: list[str]) -> None:
    pieces = snippets.marked(text, query)
    assert [piece["text"] for piece in pieces if piece["found"]] == found
    assert "".join(piece["text"] for piece in pieces) == text


def text_of(pieces: list[dict[str, Any]]) -> str:
    return "".join(piece["text"] for piece in pieces)


def test_an_excerpt_begins_a_little_before_and_reads_as_text() -> None:
    body = (
        "## はじめに\n\n"
        + "あ" * 100
        + "\n\n- [ ] **養生**の[手順](/articles/2)を確認\n| 温度 | 5 |"
        + "い" * 200
    )
    result = text_of(snippets.excerpt(body, "養生"))
    assert result.startswith("…あ")
    assert "養生の手順を確認 温度" in result
    assert result.endswith("い…")
    assert snippets.excerpt(body, "橋") == []


@pytest.mark.parametrize(
    ("total", "number", "shown"),
    [
        (0, 1, []),
        (20, 1, []),
        (21, 1, [1, 2]),
        (100, 1, [1, 2, 3, 4, 5]),  # a gap of one page is that page
        (200, 5, [1, 2, 3, 4, 5, 6, 7, 0, 10]),
        (200, 10, [1, 0, 8, 9, 10]),
        (10_000, 250, [1, 0, 248, 249, 250, 251, 252, 0, 500]),
        (99_999, 500, [1, 0, 498, 499, 500]),
        (100, 400, [1, 0, 5]),
    ],
)
def test_pages_have_numbers(total: int, number: int, shown: list[int]) -> None:
    assert page_numbers.pages(total, number, size=20, most=500) == shown


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ＲＣ", "rc", True),
        ("ｽﾗﾌﾞ", "スラブ", True),
        ("Straße", "STRASSE", True),
        ("①", "1", True),
        ("㍍", "メートル", True),
        ("İ", "i\u0307", True),
        ("かべ", "カベ", False),
        ("RC", "SRC", False),
    ],
)
def test_which_spellings_are_the_same_tag(one: str, other: str, *, same: bool) -> None:
    assert (key_of(one) == key_of(other)) is same


def shown(page: str) -> list[str]:
    return [
        html.unescape(re.sub("<[^>]+>", "", title)) for title in re.findall(r"<h2><a [^>]+>(.+?)</a>", page)
    ]


def ids(page: str) -> list[int]:
    return [int(number) for number in re.findall(r'<h2><a href="/articles/([0-9]+)"', page)]


def test_a_search_shows_number_marks_and_excerpt(visit: Callable[..., Any]) -> None:
    page = visit("sato").get("/articles?q=養生").get_data(as_text=True)
    (number,) = re.findall(r"<strong>([0-9,]+)</strong> 件", page)
    assert int(number) >= len(ids(page)) > 3
    assert page.count("<mark>養生</mark>") >= len(ids(page))
    assert 'class="excerpt"' in page


def test_what_is_marked_stays_text(visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    writer.get("/articles/new")
    values = {"category": "土工", "summary": "", "tags": "", "site": "", "status": "draft"}
    title = "<img src=x onerror=alert(1)>養生"
    writer.post("/articles/new", {**values, "title": title, "body": "<b>養生</b>"})
    page = writer.get("/articles?status=draft&q=養生").get_data(as_text=True)
    assert "&lt;img src=x onerror=alert(1)&gt;<mark>養生</mark>" in page
    assert "<img src=x" not in page
    assert "<b>" not in re.sub("建設土木<b>", "", page)


def test_pages_by_number_show_everything_once(visit: Callable[..., Any]) -> None:
    reader = visit("sato")
    seen, path = list[int](), "/articles?q=の"
    while path:
        page = reader.get(path).get_data(as_text=True)
        seen += ids(page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = html.unescape(following[1]) if following else ""
    (number,) = re.findall(r"<strong>([0-9,]+)</strong> 件", page)
    assert len(seen) == len(set(seen)) == int(number) > 20
    beyond = reader.get("/articles?q=の&page=400")
    assert beyond.status_code == 200
    assert ids(beyond.get_data(as_text=True)) == []
    for wrong in ("0", "501", "-1", "１", "x", "1.0", "99999999999"):
        assert reader.get(f"/articles?page={quote(wrong)}").status_code == 422


def test_filters_narrow_and_orders_order(visit: Callable[..., Any]) -> None:
    reader = visit("sato")

    def listed(**query: str) -> list[dict[str, Any]]:
        answer = reader.api("GET", "/api/knowledge?" + "&".join(f"{k}={quote(v)}" for k, v in query.items()))
        assert answer.status_code == 200
        assert answer.json["total"] >= len(answer.json["items"])
        return answer.json["items"]

    newest = listed(sort="newest")
    moments = [item["updated_at"] for item in newest]
    assert moments == sorted(moments, reverse=True)
    middle = date.fromisoformat(moments[5][:10])
    later = listed(since=middle.isoformat())
    assert {item["id"] for item in later} >= {item["id"] for item in newest[:5]}
    assert all(item["updated_at"][:10] >= middle.isoformat() for item in later)
    assert all(item["updated_at"][:10] <= middle.isoformat() for item in listed(until=middle.isoformat()))
    assert listed(since="2026-02-31", until="2026-02-01") == []
    assert {item["author_username"] for item in listed(author="tanaka")} == {"tanaka"}
    confirmed = listed(q="の", sort="confirmed")
    dates = [reader.api("GET", f"/api/knowledge/{item['id']}").json["confirmed_at"] for item in confirmed]
    assert dates == sorted(dates, reverse=True)
    found = listed(q="養生")
    assert any(piece["found"] for item in found for piece in item["excerpt_pieces"])
    assert all(item["title_pieces"] == [] for item in newest)
    for wrong in (
        "sort=oldest",
        "since=2026-13-01",
        "since=yesterday",
        "until=2026-1-1",
        "since=２０２６-01-01",
    ):
        assert reader.api("GET", f"/api/knowledge?{wrong}").status_code == 422


def test_a_search_that_is_too_long_is_refused_in_words(visit: Callable[..., Any]) -> None:
    reader = visit("sato")
    assert (
        reader.get("/articles?q=" + quote(" ".join(map(chr, range(0x4E00, 0x4E00 + 33))))).status_code == 422
    )
    assert (
        reader.get("/articles?q=" + quote(" ".join(map(chr, range(0x4E00, 0x4E00 + 32))))).status_code == 200
    )


def test_a_tag_has_one_spelling(visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    made = []
    for tags in (["ＲＣ", "rc", "ｽﾗﾌﾞ"], ["Rc", "スラブ"]):
        body = {"title": "壁の配筋", "category": "鉄筋", "body": "x", "tags": tags}
        made.append(writer.api("POST", "/api/knowledge", body, **{"X-CSRF-Token": writer.token}))
    assert [answer.status_code for answer in made] == [201, 201]
    assert made[0].json["tags"] == made[1].json["tags"]
    assert len(made[0].json["tags"]) == 2
    for tag in ("ＲＣ", "rc", "ｒｃ"):
        page = writer.get(f"/articles?status=draft&tag={quote(tag)}").get_data(as_text=True)
        assert set(ids(page)) == {answer.json["id"] for answer in made}


QUERIES = (
    "養生",
    "ｺﾝｸﾘｰﾄ",
    "の",
    "鉄筋 型枠",
    "90%",
    "a_b",
    "100%'; --",
    "存在しない言葉",
    "+",
    "rc",
    "安全",
    "法面",
    "コンクリート打設",
    "ローラー転圧",
    "こんくりーと",
    "渡邊 髙橋 齋藤",
    "たくさんの いろいろな ことばを ならべて みる けんさく と コンクリート",
    '"コンクリート の"',
    "R&D",
)


@pytest.mark.parametrize(
    ("query", "spelt", "apart"),
    [
        ("型わく", ("型わく", "型枠"), ()),
        ("型ワク", ("型ワク", "型枠"), ()),
        ("のり面 勾配", ("のり面 勾配", "法面 勾配"), ()),
        ("生コンクリート", ("生コンクリート", "生コン", "レディーミクストコンクリート"), ()),
        ("ろーらー", ("ろーらー", "ろーら"), ()),
        ("らー", ("らー",), ()),
        ("こんくりーと", ("こんくりーと",), ()),
        ("uav測量", ("uav測量", "無人航空機測量", "ドローン測量"), ("uav 測量", "ドローン 測量")),
        ("suav", ("suav",), ()),
        ("土工 10℃", ("土工 10°C",), ()),
        ("コンクリート打設", ("コンクリート打設",), ("コンクリート 打設",)),
        ("打込み", ("打込み", "打ち込み"), ()),
        ("締め", ("締め",), ()),
        (
            "床版被り",
            ("床版被り", "床版かぶり厚さ", "床版かぶり厚", "床版かぶり"),
            ("床版 かぶり",),
        ),
        ("くらっく", ("くらっく", "ひび割れ", "ひびわれ"), ()),
        ("はつり", ("はつり", "斫り"), ()),
        ("", ("",), ()),
    ],
)
def test_what_a_query_may_mean(query: str, spelt: tuple[str, ...], apart: tuple[str, ...]) -> None:
    assert search_variants.spelling_variants(query) == spelt
    assert search_variants.split_compounds(query) == apart


LETTERS = "高髙橋﨑崎𠮷吉渡邉邊辺齋斎田こんくりーとコンクリートｺﾝｸﾘｰﾄのひび割れヴゔ・ 鉄筋かぶり被ab%_"


@given(st.text(max_size=100) | st.text(LETTERS, max_size=30))
def test_a_query_has_a_bounded_number_of_spellings_and_itself_is_the_first(query: str) -> None:
    spelled = search_variants.spelling_variants(query)
    assert spelled[0] == unicodedata.normalize("NFKC", query)
    assert len(spelled) == len(set(spelled)) <= 9
    for apart in search_variants.split_compounds(query):
        assert SearchIndex("x").excerpt("", apart, length=None) == ()  # not too long for a search


def test_an_article_is_found_by_other_spellings_and_by_its_parts_last(visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    common = {"category": "土工", "status": "draft", "tags": []}
    for title, body in (
        ("吊足場の盛り土", "鉄筋かぶりを測る。"),
        ("ほか", "吊り足場の盛土。鉄筋のかぶり。"),
    ):
        made = writer.api("POST", "/api/knowledge", {**common, "title": title, "body": body})
        assert made.status_code == 201

    def found(query: str) -> list[str]:
        return shown(writer.get(f"/articles?status=draft&q={quote(query)}").get_data(as_text=True))

    assert found("つり足場 盛土") == found("吊足場") == ["吊足場の盛り土", "ほか"]
    assert found("鉄筋かぶり") == ["吊足場の盛り土", "ほか"]
    assert found("鉄筋かぶり") == found("鉄筋被り")
    assert "<mark>盛土</mark>" in writer.get("/articles?status=draft&q=盛り土").get_data(as_text=True)
    assert found("山止め") == []


@pytest.mark.parametrize(
    "database", ["sqlite", "plain", pytest.param("postgresql", marks=pytest.mark.postgres)]
)
def test_kana_and_old_forms_of_kanji_are_found(
    database: str,
    make_app: Callable[..., Any],
    visit: Callable[..., Any],
    request: pytest.FixtureRequest,
) -> None:
    options: dict[str, Any] = {}
    if database == "postgresql":
        options["database_url"] = request.getfixturevalue("postgres_url")
    if database == "plain":
        options["areas"] = frozenset()
    writer = visit("tanaka", at=make_app(**options))
    common = {"category": "土工", "status": "draft", "tags": []}
    for title, body in (
        ("渡邉組の受入検査", "コンクリートの打設。さび止め。"),
        ("渡辺組の受入検査", "ﾎﾞﾙﾄの本締めとネジ。こんくりーとの養生。"),
        ("髙﨑作業所", "𠮷田橋のサビ。"),
    ):
        made = writer.api("POST", "/api/knowledge", {**common, "title": title, "body": body})
        assert made.status_code == 201

    def found(query: str) -> set[str]:
        page = writer.get(f"/articles?status=draft&q={quote(query)}")
        assert page.status_code == 200
        return {title[:3] for title in shown(page.get_data(as_text=True))}

    assert found("コンクリート") == found("こんくりーと") == {"渡邉組", "渡辺組"}
    assert found("渡邊組") == found("渡辺組") == {"渡邉組", "渡辺組"}
    assert found("高崎") == found("髙崎") == found("高﨑作業所") == {"髙﨑作"}
    assert found("吉田橋") == found("𠮷田橋") == {"髙﨑作"}
    assert found("サビ") == found("さび") == {"渡邉組", "髙﨑作"}
    assert found("渡邊組 ねじ こんくりーと") == {"渡辺組"}
    assert found("渡邊組 ねじ 砂利") == set()
    page = writer.get("/articles?status=draft&q=高崎").get_data(as_text=True)
    assert "<mark>髙﨑</mark>作業所" in page


@pytest.mark.postgres
def test_each_page_of_a_search_knows_the_numbers_of_all_categories(
    make_app: Callable[..., Any], postgres_url: str
) -> None:
    reader = Actor(0, "", "", "viewer")
    for app in (make_app(), make_app(database_url=postgres_url)):
        catalogue = app.extensions["knowledge"].catalogue
        with catalogue._reads.sessions() as session:

            def page(number: int, query: str = "の", category: str = "") -> dict[str, Any]:
                asked = ListQuery(ArticleFilter(category=category), query)
                return catalogue.read_page(session, reader, asked, number=number)  # noqa: B023 - called in this round

            per_category = {name: page(1, category=name)["total"] for name in permissions.CATEGORIES}
            assert sum(map(bool, per_category.values())) > 3
            for number, category in ((1, ""), (2, ""), (400, ""), (1, "コンクリート"), (400, "コンクリート")):
                found = page(number, category=category)
                assert found["categories"] == per_category
                assert found["total"] == per_category.get(category, sum(per_category.values()))
            for category in ("", "コンクリート"):
                assert set(page(1, "どこにもない", category)["categories"].values()) == {0}


@pytest.mark.postgres
def test_both_databases_find_the_same(
    make_app: Callable[..., Any], postgres_url: str, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    readers = [visit("sato", at=make_app()), visit("sato", at=make_app(database_url=postgres_url))]
    for query in QUERIES:
        clock.advance(61)  # people search thirty times in a minute
        for options in ("", "&sort=newest", "&category=コンクリート", "&since=2026-01-01", "&page=2"):
            pages = [reader.get(f"/articles?q={quote(query)}{options}") for reader in readers]
            assert [page.status_code for page in pages] == [200, 200]
            texts = [page.get_data(as_text=True) for page in pages]
            assert shown(texts[0]) == shown(texts[1]), (query, options)
            counted = [re.findall(r"<strong>([0-9,]+)</strong> 件", text) for text in texts]
            assert counted[0] == counted[1]
