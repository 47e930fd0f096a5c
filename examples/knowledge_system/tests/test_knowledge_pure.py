"""What needs no application: validation, Markdown, rules, the catalogue of problems."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_system.domain import fields, markdown, permissions
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import FieldError, Problem, code_for_status, describe
from knowledge_system.domain.rendered_differences import rendered_differences
from knowledge_system.domain.text_differences import difference
from knowledge_system.domain.validation import Integer, Tags, Text, form_values, parse_json_object, take
from knowledge_system.services.reports import link_keys
from knowledge_system.web.forms import safe_next

TAG = re.compile(r"<[^>]*>")
PLAIN = "p|ul|ol|li|strong|em|s|table|thead|tbody|tr|th|td|h[234]|pre|code|blockquote|div|a"
ALLOWED = re.compile(
    rf'</?(?:{PLAIN})>|<(?:br|hr)>|<h[234] id="s\d+(?:-\d+)*">|<ol start="\d+">|<li class="check">'
    r'|<t[hd] class="align-\w+">'
    r'|<div class="table" tabindex="0" role="region" aria-label="表">'
    r'|<input type="checkbox" disabled="" aria-label="(?:未|済み)"(?: checked="")?>'
    r'|<a(?: href="(?:/|#|https?://|mailto:)[^"]*")?(?: title="[^"]*")? rel="noopener noreferrer">'
    r'|<a class="anchor" href="#s[\d-]+" aria-label="この見出しへのリンク" rel="noopener noreferrer">'
    r'|<img(?: src="/(?:files|static)/[^"]*")?(?: alt="[^"]*")?(?: title="[^"]*")?(?: loading="lazy")?[^>]*>'
)
PARTS = (
    "<b>", "**", "|", "|-|", "\n", "- ", "## ", "1. ", "&", '"', "x", "[", "](", ")", "![", "javascript:", "//e",
    "https://e", "/files/a", "<script>", "onerror=", "`", "> ", "~~", "[x] ", "・", "養", "\u2028", "\\",
)  # fmt: skip


@given(st.text() | st.lists(st.sampled_from(PARTS)).map("".join))
def test_markdown_makes_only_known_tags(text: str) -> None:
    html = markdown.render(text)
    for tag in TAG.findall(html):
        assert ALLOWED.fullmatch(tag), tag


LINK = '<a class="anchor" href="#{}" aria-label="この見出しへのリンク" rel="noopener noreferrer">#</a>'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("養生は**5日**以上", "<p>養生は<strong>5日</strong>以上</p>"),
        ("**養生(保温)**は続ける", "<p><strong>養生(保温)</strong>は続ける</p>"),
        ("5 * 3 * 2", "<p>5 * 3 * 2</p>"),
        ("snake_case_name", "<p>snake_case_name</p>"),
        ("一行目\n二行目", "<p>一行目<br>二行目</p>"),
        ("- 砂\n- 砂利", "<ul><li>砂</li><li>砂利</li></ul>"),
        ("・砂\n・砂利", "<ul><li>砂</li><li>砂利</li></ul>"),
        ("1. 掘る\n2. 埋める", "<ol><li>掘る</li><li>埋める</li></ol>"),
        ("1.5m以上", "<p>1.5m以上</p>"),
        ("-5℃以下", "<p>-5℃以下</p>"),
        ("# 大きい", f'<h2 id="s1">大きい{LINK.format("s1")}</h2>'),
        ("### 小見出し", f'<h3 id="s0-1">小見出し{LINK.format("s0-1")}</h3>'),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ("[図](javascript:alert(1))", "<p>[図](javascript:alert(1))</p>"),
        ("[図](//evil.example)", '<p><a rel="noopener noreferrer">図</a></p>'),
        ("[図](/articles/1)", '<p><a href="/articles/1" rel="noopener noreferrer">図</a></p>'),
        ("![図](https://evil.example/x.png)", '<p><img loading="lazy" alt="図"></p>'),
        ("![図](/files/1/a.png)", '<p><img src="/files/1/a.png" alt="図" loading="lazy"></p>'),
        ("![図](/files/../exchange/export)", '<p><img loading="lazy" alt="図"></p>'),
        ("![図](/static/.x)", '<p><img loading="lazy" alt="図"></p>'),
        (
            "- [x] 手すり",
            (
                '<ul><li class="check"><input type="checkbox" disabled="" aria-label="済み" checked=""> '
                "手すり</li></ul>"
            ),
        ),
        (
            "| 項目 | 値 |\n|---|--:|\n| W/C | 55% |",
            (
                '<div class="table" tabindex="0" role="region" aria-label="表"><table><thead><tr><th>項目</th>'
                '<th class="align-right">値</th></tr></thead><tbody><tr><td>W/C</td>'
                '<td class="align-right">55%</td></tr></tbody></table></div>'
            ),
        ),
        ("[" * 1001 + "](/x)", f"<p>{'[' * 1001}](/x)</p>"),
    ],
)
def test_markdown_table_of_cases(text: str, html: str) -> None:
    assert re.sub(r"\n", "", markdown.render(text)) == html


def test_every_heading_has_an_anchor_of_its_own() -> None:
    text = "### 前\n\n# 一\n\n### 甲\n\n#### 子\n\n### 乙\n\n## 二\n\n### 丙\n"
    html = str(markdown.render(text))
    assert re.findall(r'<h[234] id="([^"]+)"', html) == ["s0-1", "s1", "s1-1", "s1-1-1", "s1-2", "s2", "s2-1"]
    assert markdown.headings(text) == [("s1", "一"), ("s2", "二")]


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ("同じ\n", "同じ  \n", []),
        ("水を測る。", "水を量る。", ["changed"]),
        ("一\n\n二\n\n三\n\n四", "一\n\n二\n\n三\n\n四\n\n五", ["gap", "same", "added"]),
        (
            "1. 甲の手順\n2. 乙の手順",
            "1. 新しい手順を先に\n2. 甲の手順\n3. 乙の手順",
            ["added", "same", "gap"],
        ),
        ("- [ ] 点検", "- [x] 点検", ["removed", "added"]),
        ("**大事**な点", "大事な点", ["removed", "added"]),
        ("| a |\n|--|\n| 1 |", "| a |\n|--|\n| 2 |", ["removed", "added"]),
        ("![図](/files/1)", "![図](/files/2)", ["removed", "added"]),
        ("", "書き足し", ["added"]),
        ("> 引用\n\n続き", "続き", ["removed", "same"]),
    ],
)
def test_rendered_texts_are_compared_by_block(before: str, after: str, kinds: list[str]) -> None:
    assert [each.kind for each in rendered_differences(before, after)] == kinds


@given(*(st.lists(st.sampled_from((*PARTS, markdown.PLACE))).map("".join) for _ in range(2)))
def test_a_rendered_difference_is_as_safe_as_the_text(before: str, after: str) -> None:
    for each in rendered_differences(before, after):
        for tag in TAG.findall(each.html):
            assert tag in {"<ins>", "</ins>", "<del>", "</del>"} or ALLOWED.fullmatch(tag), tag
    assert rendered_differences(before, before) == ()


def test_headings_have_the_anchors_that_are_rendered() -> None:
    text = "## 一\n\n### 間\n\n## **二**\n"
    assert markdown.headings(text) == [("s1", "一"), ("s2", "二")]
    assert markdown.render(text).count('<h2 id="s') == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(
    st.dictionaries(st.sampled_from([*fields.ARTICLE_REPLACED, "author_id", "id", "__class__"]), json_values)
)
def test_whatever_comes_in_is_taken_clean_or_refused_with_known_errors(values: dict[str, Any]) -> None:
    refused = None
    try:
        taken = take(values, fields.ARTICLE_REPLACED)
    except Problem as problem:
        refused = problem
    if refused is not None:
        document = describe(refused, language="ja")
        assert refused.status == 422
        assert all(error["message"] for error in document["errors"])
        json.dumps(document)
    else:
        assert taken.keys() == fields.ARTICLE_REPLACED.keys()
        assert taken["title"] == taken["title"].strip() != ""
        assert taken["category"] in permissions.CATEGORIES
        assert "\x00" not in taken["body"]


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        (Text(5), "あいうえお", ""),
        (Text(5), "あいうえおか", "too-long"),
        (Text(5), "   ", "missing"),
        (Text(5, min_length=3), "ab", "too-short"),
        (Text(5), "\u3164\U0003ac00", "missing"),
        (Text(5, min_length=0), "\u3164\U0003ac00", ""),
        (Text(5), None, "type"),
        (Text(5), 1, "type"),
        (Text(5), ["a"], "type"),
        (Text(5), "a\x00b", "characters"),
        (Text(5), "a\nb", "characters"),
        (Text(5), "a\u2028b", "characters"),
        (Text(5), "\ud800", "characters"),
        (Text(5), "\u202eabc", "characters"),
        (Text(9, multiline=True), "a\r\nb\tc", ""),
        (Text(9, multiline=True), "a\x1bb", "characters"),
        (Text(9, choices=("x",)), "y", "choice"),
        (Text(9, pattern=re.compile("[a-z]+")), "A", "pattern"),
        (Integer(1, 9), 9, ""),
        (Integer(1, 9), 10, "range"),
        (Integer(1, 9), True, "type"),
        (Integer(1, 9), 1.0, ""),
        (Integer(1, 9), 1.5, "type"),
        (Integer(1, 9), 1e300, "range"),
        (Integer(1, 9), float("inf"), "type"),
        (Integer(1, 9), "3", "type"),
        (Integer(1, 9, from_text=True), "3", ""),
        (Integer(1, 9, from_text=True), "٣", "type"),
        (Integer(1, 9, from_text=True), "99999999999", "type"),
        (Integer(1, 9, from_text=True), "-1", "type"),
        (Tags(), ["杭", "杭"], ""),
        (Tags(2), ["a", "b", "c"], "too-many"),
        (Tags(), "杭", "type"),
        (Tags(), ["", "a"], "missing"),
        (Tags(), [1], "type"),
        (Tags(from_text=True), "杭、 養生,土工", ""),
    ],
)
def test_fields(field: Any, value: Any, error: str) -> None:
    assert field.read(value)[1] == error


def test_what_nobody_can_see_is_nothing_and_a_whole_number_is_one() -> None:
    assert Text(5, min_length=0).read("\u3164 \u0301")[0] == ""
    assert repr(Integer(1, 9).read(3.0)[0]) == "3"


def test_tags_are_split_and_unique() -> None:
    assert Tags(from_text=True).read("杭、養生 土工,杭")[0] == ["杭", "養生", "土工"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": "\xff"}',
        b"\xff\xfe{\x00}\x00",
        b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"9" * 5_000 + b"}",
    ],
)
def test_json_that_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        parse_json_object(body)
    assert caught.value.status == 400


def test_json_that_is_read() -> None:
    assert parse_json_object('{"題名": ["杭", {"深さ": 1.5}]}'.encode()) == {"題名": ["杭", {"深さ": 1.5}]}


def test_forms_take_each_field_once() -> None:
    assert form_values(b"a=%E6%9D%AD+1&csrf_token=x", ignore=("csrf_token",)) == {"a": "杭 1"}
    assert form_values("a=杭".encode()) == {"a": "杭"}
    with pytest.raises(Problem) as caught:
        form_values(b"a=1&a=2")
    assert caught.value.errors == (FieldError("a", "duplicate"),)
    for bad in (b"a=%ff", b"a=\xff", b"%ff=1", b"&".join(b"f%d=1" % n for n in range(60))):
        with pytest.raises(Problem):
            form_values(bad)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/articles?q=%E6%9D%AD", True),
        ("/", True),
        ("//evil.example", False),
        ("https://evil.example", False),
        ("/\\evil.example", False),
        ("\\\\evil.example", False),
        ("/a\r\nSet-Cookie: x", False),
        ("/a\tb", False),
        ("javascript:alert(1)", False),
        ("/" + "a" * 600, False),
        ("/杭", False),
        ("", False),
    ],
)
def test_where_a_sign_in_may_lead(path: str, *, kept: bool) -> None:
    assert safe_next(path) == (path if kept else "/")


def person(role: str, identity: int = 1) -> Actor:
    return Actor(identity, "x", "x", role)


@pytest.mark.parametrize(
    ("role", "own", "status", "sees", "edits"),
    [
        ("viewer", False, "published", True, False),
        ("viewer", False, "draft", False, False),
        ("viewer", False, "review", False, False),
        ("viewer", False, "retired", True, False),
        ("viewer", True, "draft", True, False),
        ("writer", True, "draft", True, True),
        ("writer", True, "published", True, True),
        ("writer", True, "retired", True, False),
        ("writer", False, "published", True, False),
        ("writer", False, "draft", False, False),
        ("reviewer", False, "draft", True, True),
        ("reviewer", False, "retired", True, True),
        ("admin", False, "review", True, True),
    ],
)
def test_who_sees_and_edits_what(role: str, status: str, *, own: bool, sees: bool, edits: bool) -> None:
    author = 1 if own else 2
    assert permissions.may_see(person(role), author_id=author, status=status, readers=()) is sees
    assert not permissions.may_see(person(role), author_id=author, status=status, readers=[{1}])
    member = person(role)._replace(groups=frozenset({1, 2}))
    assert permissions.may_see(member, author_id=author, status=status, readers=[{1}, {2, 3}]) is sees
    assert not permissions.may_see(member, author_id=author, status=status, readers=[{1}, {3}])
    assert permissions.may_edit(person(role), author_id=author, status=status) is edits


def test_every_problem_speaks_both_languages() -> None:
    for status in range(400, 600):
        problem = Problem(code_for_status(status))
        japanese, english = (describe(problem, language=language) for language in ("ja", "en"))
        assert japanese["title"] != english["title"]
        assert english["detail"].isascii()
        assert japanese["type"] == english["type"]


@given(st.text("ab\n", max_size=60), st.text("ab\n", max_size=60))
def test_a_difference_holds_both_texts(before: str, after: str) -> None:
    lines = difference(before, after, context=10_000)
    old, new = before.splitlines(), after.splitlines()
    if old == new:
        assert lines == ()
        return
    without = {"added": "removed", "removed": "added"}
    for text, kind in ((old, "removed"), (new, "added")):
        shown = [
            "".join(piece.text for piece in line.pieces if piece.kind != without[kind])
            for line in lines
            if line.kind != without[kind]
        ]
        assert shown == text


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ("養生は5日以上", "養生は7日以上", ["changed"]),
        ("一\n二\n三\n四\n五", "一\n二\n三\n四\n五\n六", ["gap", "same", "added"]),
        ("全部", "まったく別の文", ["removed", "added"]),
        ("一\n二", "二", ["removed", "same"]),
        ("x" * 601, "x" * 600 + "y", ["removed", "added"]),
    ],
)
def test_differences_are_readable(before: str, after: str, kinds: list[str]) -> None:
    assert [line.kind for line in difference(before, after)] == kinds


@given(st.binary(min_size=32, max_size=32))
def test_a_key_may_be_spelled_in_either_alphabet_with_or_without_padding(raw: bytes) -> None:
    spelled = (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode())
    assert len({link_keys([text]) for text in (*spelled, spelled[1].rstrip("="))}) == 1
