"""Japanese search finds the same on SQLite and PostgreSQL."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text

from db_engines import engine  # noqa: F401 - a fixture
from mks_hardening.db import SearchHit, SearchIndex, SearchQueryError, hardened_engine
from mks_hardening.exceptions import ConfigurationError

ARTICLES = {
    1: ("杭打ち工事の安全管理", "既製コンクリート杭の建込みと、技術者の配置について。"),
    2: ("技術資料の整理", None),
    3: ("ｺﾝｸﾘｰﾄの打設とPC工法", "溶射による防食。100%の養生。"),
    4: (None, "足場の点検 (2023年) がい数"),
    5: ("", ""),
    6: ("技術 術資", "空白で分かれた語"),
    7: ("Ｃ＋＋とC#の規約", "髙橋と山﨑が JIS A 5308-2019 でローラー転圧。R&D部、a_b、霞ヶ関"),
    8: ("JIS A", "5308"),
}


@pytest.fixture
def search(engine: Engine) -> SearchIndex:  # noqa: F811 - the fixture
    made = SearchIndex("article_search")
    with engine.begin() as connection:
        made.create(connection)
        made.create(connection)
        for number, (title, body) in ARTICLES.items():
            made.index(connection, number, title=title, body=body)
    return made


QUERIES: dict[str, set[int]] = {
    "技術": {1, 2, 6},
    "杭": {1},
    "溶射": {3},
    "術資": {2, 6},
    "技術資料": {2},
    "技術資": {2},
    "技術 資料": {2},
    "資料　技術": {2},
    "コンクリート": {1, 3},
    "ｺﾝｸﾘｰﾄ": {1, 3},
    "コンクリート 溶射": {3},
    "pc": {3},
    "ＰＣ": {3},
    "c": {3, 7},
    "理": {1, 2},
    "ち工": {1},
    "2023年": {4},
    "がい": {4},
    "かい": set(),
    "カイ": set(),
    "ガイ": {4},
    "鉄骨": set(),
    "100%": {3},
    "１００％": {3},
    "10%": set(),
    "00%の養生": {3},
    "C++": {7},
    "c+": {7},
    "c++ C#": {7},
    "C#の": {7},
    "r&d": {7},
    "a_b": {7},
    "ab": set(),
    "jis a 5308": {7, 8},
    '"JIS A 5308"': {7},
    "“ＪＩＳ　Ａ　５３０８”": {7},
    '"a 5308 2019"': {7},
    '"5308 a"': set(),
    '"JIS A 5308" 転圧': {7},
    '"s a"': {7, 8},
    '"jis a': {7, 8},
    '"資料" "技術"': {2},
    '""': set(),
    "高橋": {7},
    "髙橋": {7},
    "山崎": {7},
    "山嵜": {7},
    "ろーらー": {7},
    "ﾛｰﾗｰ転圧": {7},
    "霞ケ関": {7},
    "こんくりーと": {1, 3},
    "技じゅつ": set(),
    "": set(),
    "%": {3},
    "_": {7},
    '"': set(),
    "* OR 技術": set(),
    "技術*": {1, 2, 6},
    '"技術" NOT "資料"': set(),
    "title:技術": set(),
    "'; DROP TABLE article_search; --": set(),
    "␞": set(),
    "技術\x00資料": {2},
    "\ud800技術": {1, 2, 6},
    "技" * 200: set(),
}


def test_words_are_found(engine: Engine, search: SearchIndex) -> None:  # noqa: F811
    with engine.connect() as connection:
        for query, found in QUERIES.items():
            assert {hit.document_id for hit in search.search(connection, query)} == found, query


SYNONYMS = {
    "杭打ち": ["杭 打込み", "杭うち", "建込み"],
    "整理": ["整頓"],
    "養生": ["技術 資料", "溶射"],
    "足場": [f"足場{number}" for number in range(100)],
    "鉄骨": ["!", "", '"'],
}


def test_synonyms_are_found_and_ranked_like_the_word(engine: Engine, search: SearchIndex) -> None:  # noqa: F811
    del search  # which filled the table
    alike = SearchIndex("article_search", synonyms=lambda term: SYNONYMS.get(term, ()))
    found = {
        "杭打ち": [(1, 1)],
        "養生": [(2, 1), (3, 0)],
        "養生 整理": [(2, 1)],
        "足場": [(4, 0)],
        "鉄骨": [],
        " ".join(["養生", "足場"] * 5): [],
    }
    with engine.connect() as connection:
        for query, hits in found.items():
            result = [(hit.document_id, hit.score) for hit in alike.search(connection, query)]
            assert result == hits, query


def test_no_word_of_a_query_and_no_synonym_is_ignored(engine: Engine, search: SearchIndex) -> None:  # noqa: F811
    spelled = [*(f"無い{number}" for number in range(300)), "溶射"]
    alike = SearchIndex("article_search", synonyms=lambda _: spelled)
    with engine.connect() as connection:
        assert [hit.document_id for hit in alike.search(connection, "鉄骨")] == [3]
        assert search.search(connection, " ".join([*"杭打ち工事の安全管理既製コンクリと技", "無い"])) == []
        for query in ("技" * 201, " ".join(map(str, range(33)))):
            with pytest.raises(SearchQueryError, match=r"at most (200 characters|32 words), this one has"):
                search.search(connection, query)


@pytest.mark.parametrize("query", [None, 5, b"x"])
def test_a_query_that_is_no_text_is_an_error(search: SearchIndex, engine: Engine, query: Any) -> None:  # noqa: F811 - the fixture
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="query must be a string"):
        search.search(connection, query)


def test_the_index_is_rebuilt_in_the_callers_transaction(engine: Engine, search: SearchIndex) -> None:  # noqa: F811
    documents = [(number, f"足場 {number}", None if number % 2 else "養生") for number in range(2100)]
    with engine.connect() as connection:
        assert search.rebuild(connection, iter(documents)) == 2100
        connection.rollback()
        assert [hit.document_id for hit in search.search(connection, "整理")] == [2]
        connection.rollback()
        for _ in range(2):
            assert search.rebuild(connection, documents) == 2100
            connection.commit()
        assert search.search(connection, "整理") == []
        assert [hit.document_id for hit in search.search(connection, "養生", limit=2)] == [2098, 2096]
        search.create(connection)
        search.index(connection, 7, title="養生")
        assert search.search(connection, "養生", limit=1) == [SearchHit(document_id=7, score=1)]
        connection.rollback()


def test_the_order_does_not_depend_on_how_frequent_a_word_is(engine: Engine, search: SearchIndex) -> None:  # noqa: F811
    """On PostgreSQL, frequent words are found by reading from the newest document."""
    words = {"毎回": 1, "半分": 2, "時々": 15, "稀": 500}

    def title_of(number: int) -> str:
        return f"第{number}回" + ("時々" if number % 30 == 0 else "") + ("昔" if number < 60 else "")

    documents = [
        (number, title_of(number), "。".join(word for word, every in words.items() if number % every == 0))
        for number in range(1200)
    ]
    with engine.connect() as connection:
        search.rebuild(connection, documents)
        for query in (*words, "回", "昔", "時々 毎回", "昔 半分", "毎回 稀", "第1", '"回"'):
            terms = [term.strip('"') for term in query.split()]
            expected = sorted(
                (
                    (number, int(all(term in title for term in terms)))
                    for number, title, body in documents
                    if all(term in f"{title} {body}" for term in terms)
                ),
                key=lambda hit: (-hit[1], -hit[0]),
            )
            for limit in (1, 30, 70, 2000):
                hits = search.search(connection, query, limit=limit)
                assert [(hit.document_id, hit.score) for hit in hits] == expected[:limit], (query, limit)
        connection.rollback()


def test_titles_come_first_and_then_the_newest(engine: Engine, search: SearchIndex) -> None:  # noqa: F811
    with engine.connect() as connection:
        hits = search.search(connection, "技術")
        assert [(hit.document_id, hit.score) for hit in hits] == [(6, 1), (2, 1), (1, 0)]
        assert [hit.document_id for hit in search.search(connection, "技術", limit=1)] == [6]


def test_a_document_is_replaced_and_removed_in_the_callers_transaction(
    engine: Engine,  # noqa: F811
    search: SearchIndex,
) -> None:
    with engine.connect() as connection:
        search.index(connection, 2, title="足場", body=None)
        assert [hit.document_id for hit in search.search(connection, "足場")] == [2, 4]
        assert 2 not in {hit.document_id for hit in search.search(connection, "技術")}
        connection.rollback()
        assert 2 in {hit.document_id for hit in search.search(connection, "技術")}
        search.remove(connection, 2)
        search.remove(connection, 4711)
        assert search.search(connection, "整理") == []
        connection.rollback()


def test_matches_in_the_title_only(engine: Engine, search: SearchIndex) -> None:  # noqa: F811
    alike = SearchIndex("article_search", synonyms=lambda word: ["整理"] if word == "整頓" else [])
    with engine.connect() as connection:
        for query, found in {"技術": {2, 6}, "養生": set(), "整頓": {2}, "c++": {7}, '"jis a"': {8}}.items():
            rows = connection.execute(alike.matching(connection, query, title_only=True))
            assert {row.document_id for row in rows} == found, query


def test_matches_can_be_joined_to_the_callers_select(engine: Engine, search: SearchIndex) -> None:  # noqa: F811
    with engine.connect() as connection:
        matches = search.matching(connection, "技術").subquery()
        assert connection.execute(select(func.count()).select_from(matches)).scalar() == 3


@pytest.mark.postgres
def test_a_rare_word_uses_the_index(postgres_url: str) -> None:
    search = SearchIndex("article_search")
    engine = hardened_engine(postgres_url)  # noqa: F811 - not the fixture
    with engine.begin() as connection:
        search.create(connection)
        for number in range(300):
            search.index(connection, number, title="土工事", body="盛土と切土")
        search.index(connection, 999, title="溶射", body="")
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        statement = search.matching(connection, "溶射").compile(connection)
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", statement.params).scalars().all()
    assert "article_search_grams" in "\n".join(plan)
    engine.dispose()


@pytest.mark.postgres
def test_no_word_is_so_frequent_that_workers_read_the_whole_table(postgres_url: str) -> None:
    search = SearchIndex("article_search")
    engine = hardened_engine(postgres_url)  # noqa: F811 - not the fixture
    with engine.begin() as connection:
        search.create(connection)
        connection.execute(text("ALTER TABLE article_search RESET (parallel_workers)"))
        search.create(connection)  # a table that an earlier release made
        for number in range(300):
            search.index(connection, number, title=f"養生 {number}")
        for setting in ("parallel_setup_cost = 0", "parallel_tuple_cost = 0", "enable_bitmapscan = off"):
            connection.execute(text(f"SET LOCAL {setting}"))
        connection.execute(text("SET LOCAL min_parallel_table_scan_size = 0"))
        statement = search.matching(connection, "養生").compile(connection)
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", statement.params).scalars().all()
    assert "Parallel" not in "\n".join(plan)
    engine.dispose()


@pytest.mark.postgres
def test_however_frequent_a_word_is_the_index_is_read(postgres_url: str) -> None:
    """Also in a table of which an earlier release let ANALYZE learn how frequent words are."""
    search = SearchIndex("article_search")
    engine = hardened_engine(postgres_url)  # noqa: F811 - not the fixture
    with engine.begin() as connection:
        search.create(connection)
        connection.execute(text("ALTER TABLE article_search ALTER COLUMN grams SET STATISTICS -1"))
        body = "打設後の温度を測り、記録に残す。" * 8
        for number in range(400):
            search.index(
                connection, number, title=f"作業 {number}", body=body if number % 2 else "養生" + body
            )
        connection.execute(text("ANALYZE article_search"))
        plans = []
        for _ in range(2):
            statement = search.matching(connection, "養生").compile(connection)
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", statement.params).scalars()
            plans.append("article_search_grams" in "\n".join(rows))
            search.create(connection)
            connection.execute(text("ANALYZE article_search"))
    assert plans == [False, True]
    engine.dispose()


@pytest.mark.postgres
@pytest.mark.parametrize(("limit", "is_read"), [("", True), ("SET (gin_pending_list_limit = 4096)", False)])
def test_after_many_changes_the_index_is_read_as_well(postgres_url: str, limit: str, is_read: bool) -> None:
    """Before autovacuum has sorted them in; with the default length of PostgreSQL's list, it was not."""
    search, chance = SearchIndex("article_search"), random.Random(7)
    engine = hardened_engine(postgres_url)  # noqa: F811 - not the fixture
    with engine.begin() as connection:
        search.create(connection)
        connection.execute(text("ALTER TABLE article_search SET (autovacuum_enabled = off)"))
        if limit:
            connection.execute(text(f"ALTER INDEX article_search_grams {limit}"))
        for number in range(300):
            body = "".join(chr(chance.randrange(0x4E00, 0x9000)) for _ in range(500))
            search.index(connection, number, title=f"作業 {number}", body=body)
        connection.execute(text("ANALYZE article_search"))
        statement = search.matching(connection, "養生").compile(connection)
        rows = connection.exec_driver_sql(f"EXPLAIN {statement}", statement.params).scalars()
        assert ("article_search_grams" in "\n".join(rows)) is is_read
    engine.dispose()


@pytest.mark.postgres
def test_workers_that_start_or_edit_together_do_not_fail(postgres_url: str) -> None:
    engine = hardened_engine(postgres_url, threads=8)  # noqa: F811 - not the fixture
    search = SearchIndex("article_search")
    errors: list[BaseException] = []
    together = threading.Barrier(8)

    def work(number: int) -> None:
        try:
            together.wait()
            with engine.begin() as connection:
                search.create(connection)
            for _ in range(10):
                with engine.begin() as connection:
                    search.index(connection, 1, title=f"足場 {number}", body=None)
        except BaseException as error:  # noqa: BLE001 - is looked at below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with engine.connect() as connection:
        assert [hit.document_id for hit in search.search(connection, "足場")] == [1]
    engine.dispose()


@pytest.mark.parametrize("name", ["", "Articles", "a;b", "a" * 41, "1a", "a-b", None])
def test_a_name_that_could_be_sql_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        SearchIndex(name)
