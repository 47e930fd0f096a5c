"""Highlighted excerpts of a search, and what a query and an index must not be."""

from __future__ import annotations

import pytest

from mks_hardening.db import SearchIndex, SearchQueryError
from mks_hardening.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("query", "text", "found"),
    [
        ("養生", "初期養生と養生温度", ["養生", "養生"]),
        ("コンクリート", "ｺﾝｸﾘｰﾄ、こんくりーと", ["ｺﾝｸﾘｰﾄ", "こんくりーと"]),
        ("ｶﾞｽ圧接", "ガス圧接、ｶﾞｽ圧接、がす圧接", ["ガス圧接", "ｶﾞｽ圧接", "がす圧接"]),
        ("rc", "ＲＣ造とRc壁", ["ＲＣ", "Rc"]),
        ("50%", "湿度50%、湿度５０％、150mm", ["50%", "５０％"]),
        ("c++", "C、C++、Ｃ＋＋", ["C++", "Ｃ＋＋"]),
        ('"JIS A 5308"', "JIS A 5308、JIS-A-5308、JIS A5308", ["JIS A 5308", "JIS-A-5308"]),
        ("鉄 鉄筋", "鉄筋と鉄", ["鉄筋", "鉄"]),
        ("高橋", "髙橋工務店と高槗組", ["髙橋", "高槗"]),
        ("𠮷田", "吉田と𠮷田", ["吉田", "𠮷田"]),
        ("霞ケ関", "霞ヶ関", ["霞ヶ関"]),
        ("クラック", "ひび割れとくらっく", ["ひび割れ", "くらっく"]),
        ("a.c", "abc a c", ["a", "c", "a", "c"]),
        ("  ", "何もない", []),
        ("[", "a[0]", []),
    ],
)
def test_matches_are_marked_as_they_were_written(query: str, text: str, found: list[str]) -> None:
    index = SearchIndex("s", synonyms=lambda word: ["ひび割れ"] if word == "くらっく" else [])
    pieces = index.excerpt(text, query, length=None)
    assert [piece.text for piece in pieces if piece.matches] == found
    assert "".join(piece.text for piece in pieces) == text


def test_an_excerpt_begins_a_little_before_the_first_match() -> None:
    index = SearchIndex("s")
    text = "あ" * 100 + "養生" + "い" * 200
    assert index.excerpt(text, "養生", length=10, before=3) == (
        ("…あああ", False),
        ("養生", True),
        ("いいいいい…", False),
    )
    assert index.excerpt(text, "橋") == ()
    assert index.excerpt("", "橋", length=None) == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"length": 0}, "length"), ({"length": 1.5}, "length"), ({"before": -1}, "before")],
)
def test_a_wrong_length_is_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SearchIndex("s").excerpt("養生", "養生", **wrong)


def test_a_query_that_is_too_long_is_refused() -> None:
    with pytest.raises(SearchQueryError, match="at most 200 characters, this one has 201"):
        SearchIndex("s").excerpt("養生", "養" * 201)
