"""What needs no application: validation, Markdown, rules, the catalogue of problems."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_system import fields, markdown, rules
from knowledge_system.problems import FieldFault, Problem, code_for_status, describe
from knowledge_system.rules import Actor
from knowledge_system.validation import Integer, Tags, Text, form_values, parse_json_object, take
from knowledge_system.web.forms import safe_next

TAG = re.compile(r"<[^>]*>")
ALLOWED = re.compile(
    r'</?(?:p|ul|ol|li|strong|table|thead|tbody|tr|th|td|div|h[23])>|<br>|<div class="table">|<h2 id="s\d+">'
)


@given(
    st.text()
    | st.lists(st.sampled_from(["<b>", "**", "|", "\n", "- ", "## ", "1. ", "&", '"', "x"])).map("".join)
)
def test_markdown_makes_only_known_tags(text: str) -> None:
    for tag in TAG.findall(markdown.render(text)):
        assert ALLOWED.fullmatch(tag), tag


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("養生は**5日**以上", "<p>養生は<strong>5日</strong>以上</p>"),
        ("一行目\n二行目", "<p>一行目<br>二行目</p>"),
        ("- 砂\n- 砂利", "<ul><li>砂</li><li>砂利</li></ul>"),
        ("1. 掘る\n2. 埋める", "<ol><li>掘る</li><li>埋める</li></ol>"),
        ("1.5m以上", "<p>1.5m以上</p>"),
        ("-5℃以下", "<p>-5℃以下</p>"),
        ("#### 深い", "<p>#### 深い</p>"),
        ("### 小見出し", "<h3>小見出し</h3>"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        (
            "| 項目 | 値 |\n|---|---|\n| W/C | 55% |",
            (
                '<div class="table"><table><thead><tr><th>項目</th><th>値</th></tr></thead>'
                "<tbody><tr><td>W/C</td><td>55%</td></tr></tbody></table></div>"
            ),
        ),
    ],
)
def test_markdown_table_of_cases(text: str, html: str) -> None:
    assert markdown.render(text) == html


def test_headings_have_the_anchors_that_are_rendered() -> None:
    text = "## 一\n\n### 間\n\n## **二**\n"
    assert markdown.headings(text) == [("s1", "一"), ("s2", "二")]
    assert markdown.render(text).count('<h2 id="s') == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from([*fields.ARTICLE_EDIT, "author_id", "id", "__class__"]), json_values))
def test_whatever_comes_in_is_taken_clean_or_refused_with_known_faults(values: dict[str, Any]) -> None:
    refused = None
    try:
        taken = take(values, fields.ARTICLE_EDIT)
    except Problem as problem:
        refused = problem
    if refused is not None:
        document = describe(refused, language="ja")
        assert refused.status == 422
        assert all(error["message"] for error in document["errors"])
        json.dumps(document)
    else:
        assert taken.keys() == fields.ARTICLE_EDIT.keys()
        assert taken["title"] == taken["title"].strip() != ""
        assert taken["category"] in rules.CATEGORIES
        assert "\x00" not in taken["body"]


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        (Text(5), "あいうえお", ""),
        (Text(5), "あいうえおか", "too-long"),
        (Text(5), "   ", "missing"),
        (Text(5, min_length=3), "ab", "too-short"),
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
        (Integer(1, 9), 1.0, "type"),
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
def test_fields(field: Any, value: Any, fault: str) -> None:
    assert field.read(value)[1] == fault


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
    assert caught.value.faults == (FieldFault("a", "duplicate"),)
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
    assert rules.may_see(person(role), author_id=author, status=status) is sees
    assert rules.may_edit(person(role), author_id=author, status=status) is edits


def test_only_reviewers_publish() -> None:
    assert rules.statuses_for(person("viewer")) == ()
    assert rules.statuses_for(person("writer")) == ("draft", "review")
    assert (
        rules.statuses_for(person("reviewer")) == rules.statuses_for(person("admin")) == tuple(rules.STATUSES)
    )


def test_every_problem_speaks_both_languages() -> None:
    for status in range(400, 600):
        problem = Problem(code_for_status(status))
        japanese, english = (describe(problem, language=language) for language in ("ja", "en"))
        assert japanese["title"] != english["title"]
        assert english["detail"].isascii()
        assert japanese["type"] == english["type"]
