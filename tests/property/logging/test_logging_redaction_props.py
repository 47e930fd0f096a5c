"""Redaction: secrets go, harmless text stays, the gate misses nothing, and the work is linear."""

from __future__ import annotations

import re
import re._parser as sre  # type: ignore[import-not-found]  # private, but the only way to look at a pattern
import sys
from collections.abc import Callable
from operator import itemgetter
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mks_hardening._core.redaction import (
    card_numbers,
    japanese_text,
    labelled_text,
    named_values,
    pattern_redaction,
    prefilter,
    value_end,
)
from mks_hardening._core.redaction.card_numbers import redact_cards
from mks_hardening._core.redaction.redactor import SecretRedactor, default_redactor
from mks_hardening._core.redaction.secret_names import STEMS
from mks_hardening._core.redaction.secret_patterns import NOUNS, SECRET_PATTERNS, SecretPattern
from mks_hardening._core.redaction.step_limit import REDACTED, StepLimit
from tables import faulty_rows

REDACTOR = default_redactor()
NAMES = [
    "password",
    "db_password",
    "apiKey",
    "X-Api-Key",
    "token",
    "session id",
    "パスワード",
    "secret_key",
    "otp",
]
PIECES = st.sampled_from(
    [
        *NAMES, "=", ":", "：", " ", "'", '"', "\\", "[", "]", "(", ")", "{", "}", ",", ";", "&", "?", "@", "://",
        "https",
        "postgres", "--", "->", "=>", "は", " is ", "Bearer ", "bearer ", "Basic ", "dXNlcjpwYXNz",
        "eyJhbGci.eyJzdWIi.x",
        "AKIAIOSFODNN7EXAMPLE", "ghp_0123456789abcdefABCD", "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "4111111111111111", "4111 1111 1111 1111", "４１１１", "hunter2", "code",
        "hooks.slack.com/services/T0001/B0001/x",
        "\n", "%3D", "%22", "&#34;", "<", ">", "xoxb-12345678", "sk_live_0123456789", "abc", "1", "ー", "コード",
        "x",
        "npm_0123456789abcdef01", "glpat-0123456789abcdef01", "AIza0123456789012345678901234567890123",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=60)


def without_gate(text: str) -> str:
    return REDACTOR._careful_text(text, prefilter.everything(), StepLimit())


ASSIGNED = st.tuples(
    st.sampled_from(["password", "db-password", "auth", "tokens", "PWD", "Unexpected token", "パスワード"]),
    st.sampled_from(["=", "==", "= ", "=bearer ", "=Basic ", "=='", ": "]),
    st.sampled_from([
        "hunter2", "basic", "none", "xxxx", "ldap", "512", "/home", "ABC1-DEF2-GHI3", "a" * 200, "a_b", "é", "x)",
        "",
    ]),
    st.sampled_from([" ", "\n", "", ",", ";", "&", " refused", "\u3000", "ABC1-DEF2, GHI3-JKL4"]),
).map("".join)  # fmt: skip


@given(st.lists(ASSIGNED | PIECES, min_size=1, max_size=6).map("".join))
def test_a_plain_assignment_has_the_same_value_without_the_shortcut(text: str) -> None:
    with mock.patch.object(named_values, "PLAIN_ASSIGNMENT", re.compile("(?!)")):
        expected = REDACTOR.redact_text(text)
    assert REDACTOR.redact_text(text) == expected


@given(
    TEXTS
    | st.lists(PIECES | st.sampled_from([form.example for form in SECRET_PATTERNS]), max_size=6).map(" ".join)
)
@example("password is hunter2")
@example("パスワードは hunter2")
@example("--password hunter2")
@example("auth_token HunterTwo rejected")
@example("hooks.slack.com/services/T0/B0/x")
@example("card ٤١١١ ١١١١ ١١١١ ١١١١")
@example("recovery code ABCD-EFGH")
@example("ＰＷ：hunter2")
@example("ﾊﾟｽﾜｰﾄﾞは「hunter2」")
@example("カード４１１１－１１１１－１１１１－１１１１で")
def test_the_gate_misses_nothing(text: str) -> None:
    assert REDACTOR.redact_text(text) == without_gate(text)


@pytest.mark.parametrize("form", SECRET_PATTERNS, ids=[form.literals[0] for form in SECRET_PATTERNS])
@settings(max_examples=30)
@given(data=st.data())
def test_no_form_can_fire_where_the_gate_says_no(form: SecretPattern, data: st.DataObject) -> None:
    flags = re.IGNORECASE | re.ASCII if form.folded else 0
    text = data.draw(st.from_regex(re.compile(form.pattern, flags))) + form.needs
    suspects = REDACTOR._gate.suspects(text)
    assert suspects is not None
    assert form in suspects.forms


@pytest.mark.parametrize("form", SECRET_PATTERNS, ids=[form.literals[0] for form in SECRET_PATTERNS])
def test_each_form_of_the_table_is_hidden(form: SecretPattern) -> None:
    clean = REDACTOR.redact_text(f"got {form.example} today")
    assert REDACTED in clean
    assert form.example not in clean
    starts = [form.example.find(literal) for literal in form.literals]
    assert re.compile(form.pattern).match(form.example, max(starts))


def test_each_noun_of_the_table_is_found_by_its_stem() -> None:
    def look(noun: str) -> None:
        assert any(stem in noun for stem in STEMS)
        assert REDACTOR.is_secret_key(noun)
        assert "hunter2x" not in REDACTOR.redact_text(f"{noun}=hunter2x")

    assert faulty_rows((noun.lstrip("…~^") for nouns in NOUNS.values() for noun in nouns.split()), look) == {}


@given(TEXTS)
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = REDACTOR.redact_text(text)
    assert REDACTOR.redact_text(once) == once


@given(
    name=st.sampled_from(NAMES),
    value=st.from_regex(r"[A-Za-z][A-Za-z0-9!#$%^*+._/~-]{5,30}[A-Za-z0-9]", fullmatch=True),
    form=st.sampled_from(
        [
            "{n}={v}",
            "{n}: {v}",
            "'{n}': '{v}'",
            '"{n}":"{v}"',
            '{{\\"{n}\\": \\"{v}\\"}}',
            "a=1&{n}={v}&b=2",
            "({n!r}, {v!r})",
        ]
    ),
    before=st.sampled_from(["", "login ", "x; ", "{'a': 1, ", "エラー "]),
)
def test_values_behind_secret_names_go(name: str, value: str, form: str, before: str) -> None:
    text = before + form.format(n=name, v=value)
    clean = REDACTOR.redact_text(text)
    assert value not in clean
    assert REDACTED in clean
    assert clean.startswith(before.rstrip())


HARMLESS = "the user has changed a page at noon and left count policy 7 12 5.5 - , ."


@given(st.lists(st.sampled_from(HARMLESS.split()), max_size=30))
def test_harmless_words_stay(words: list[str]) -> None:
    text = " ".join(words)
    assert REDACTOR.redact_text(text) == text


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["hunter2hunter2", "plain"])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["password", "a", "token", "b_c"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(TREES)
def test_structures_keep_their_shape_and_lose_what_secret_names_hold(tree: Any) -> None:
    clean = REDACTOR.redact(tree)

    def check(before: Any, after: Any) -> None:
        if isinstance(before, dict):
            assert list(before) == list(after)
            for key, member in before.items():
                if REDACTOR.is_secret_key(key) and not (
                    member is None or isinstance(member, bool) or member == ""
                ):
                    assert after[key] == REDACTED
                else:
                    check(member, after[key])
        elif isinstance(before, list):
            assert len(before) == len(after)
            for one, other in zip(before, after, strict=True):
                check(one, other)

    check(tree, clean)


@given(st.text(alphabet="0123456789", min_size=12, max_size=20))
def test_card_numbers_are_told_by_their_check_digit(digits: str) -> None:
    changed = redact_cards(digits, StepLimit()) != digits
    doubled = [sum(divmod(int(digit) * (1 + place % 2), 10)) for place, digit in enumerate(reversed(digits))]
    assert not changed or (sum(doubled) % 10 == 0 and 14 <= len(digits) <= 19)


@given(st.text(max_size=40), st.text(max_size=40))
def test_queries_keep_their_parameters(name: str, value: str) -> None:
    clean = REDACTOR.redact_query(f"a=1&{name}={value}")
    assert clean.startswith("a=1&")
    assert clean.count("&") == f"a=1&{name}={value}".count("&")


@given(TEXTS)
def test_urls_and_queries_never_raise(text: str) -> None:
    REDACTOR.redact_url(text)
    REDACTOR.redact_query(text)


# --- linear work -----------------------------------------------------------------------------


def _patterns() -> list[tuple[str, re.Pattern[Any]]]:
    found: list[tuple[str, re.Pattern[Any]]] = []
    for module in (
        card_numbers,
        pattern_redaction,
        prefilter,
        japanese_text,
        labelled_text,
        named_values,
        value_end,
    ):
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                found.append((name, value))
    found += [(form.literals[0], pattern) for form, pattern in pattern_redaction.PATTERNS.items()]
    return [*found, ("stems", REDACTOR._stems)]


def _repeats(parsed: Any) -> list[str]:
    faults = []
    for op, argument in parsed:
        if str(op) in ("MAX_REPEAT", "MIN_REPEAT"):
            _, most, inner = argument
            if most == sre.MAXREPEAT:
                faults.append(f"{op} without bound")
            faults += _repeats(inner)
        elif str(op) == "POSSESSIVE_REPEAT":
            faults += _repeats(argument[2])
        elif str(op) == "SUBPATTERN":
            faults += _repeats(argument[-1])
        elif str(op) == "BRANCH":
            for branch in argument[1]:
                faults += _repeats(branch)
    return faults


def test_patterns_never_go_back_without_bound() -> None:
    def repeats(row: tuple[str, re.Pattern[Any]]) -> list[str]:
        return _repeats(sre.parse(row[1].pattern, row[1].flags & ~re.UNICODE))

    assert faulty_rows(_patterns(), repeats, name=itemgetter(0)) == {}


def _calls(function: Callable[[str], object], text: str) -> int:
    """How many calls, of Python and of C functions, the work takes."""
    count = 0

    def tally(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(tally)
    try:
        function(text)
    finally:
        sys.setprofile(before)
    return count


@given(st.lists(PIECES, min_size=1, max_size=6).map("".join))
@example("password='")
@example("token=[")
@example("'password', \"")
@example("-----BEGIN PRIVATE KEY-----")
@example("https://user:")
@example("passpass")
@example("eyJ")
def test_ten_times_the_text_takes_ten_times_the_steps(piece: str) -> None:
    repeats = max(1, 2_000 // len(piece))
    few, many = (_calls(REDACTOR.redact_text, piece * number) for number in (repeats, repeats * 10))
    assert many <= 12 * few + 300


@given(TEXTS)
def test_added_names_are_found_in_text_and_in_structures(text: str) -> None:
    redactor = SecretRedactor(keys=("badgeNumber",))
    assert redactor.redact({"badge_number": "7x7x7x"}) == {"badge_number": REDACTED}
    assert "7x7x7x" not in redactor.redact_text(f"{text}\nbadge-number=7x7x7x")
