"""Messages with their arguments, templates without secret arguments, and limits of plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mks_hardening._core.redaction.message_templates import render_message, without_secret_placeholders
from mks_hardening._core.redaction.plain_data import Bounds, cut, to_plain
from mks_hardening._core.redaction.redactor import default_redactor

# --- messages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "clean", "kept"),
    [
        ("password %s", "password [REDACTED]", ()),
        ("password %s of %s", "password [REDACTED] of %s", (1,)),
        ("user %s password: '%s' %d", "user %s password: '[REDACTED]' %d", (0, 2)),
        ("token=%r", "token=[REDACTED]", ()),
        ("%(user)s %(api_key)s", "%(user)s [REDACTED]", (0,)),
        ("%5.*f pin %s 100%%", "%5.*f pin [REDACTED] 100%%", (0, 1)),
        ("パスワードは%s", "パスワードは[REDACTED]", ()),
        ("session id %s", "session id [REDACTED]", ()),
    ],
)
def test_secret_placeholders_are_taken_out(template: str, clean: str, kept: tuple[int, ...]) -> None:
    plan = without_secret_placeholders(template, default_redactor().is_secret_key)
    assert plan is not None
    assert plan[:2] == (clean, kept)


@pytest.mark.parametrize(
    "template", ["user %s", "token_count=%d", "100%% of %s", "password policy %s", "%(count)d", ""]
)
def test_harmless_templates_stay(template: str) -> None:
    assert without_secret_placeholders(template, default_redactor().is_secret_key) is None


@pytest.mark.parametrize(
    ("message", "args", "expected"),
    [
        ("%s", ("a",), "a"),
        ("%(a)s", {"a": 1}, "1"),
        ("no args", (), "no args"),
        (5, (), "5"),
        ("%d", ("x",), "%d [arguments do not fit: ('x',)]"),
        ("%s %s", ("x",), "%s %s [arguments do not fit: ('x',)]"),
        ("%(b)s", {"a": 1}, "%(b)s [arguments do not fit: {'a': 1}]"),
    ],
)
def test_messages_survive_their_arguments(message: object, args: object, expected: str) -> None:
    assert render_message(message, args) == expected


# --- plain data ------------------------------------------------------------------------------


def test_cutting_marks_the_place() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"


def test_members_and_levels_beyond_the_bounds_are_marked() -> None:
    bounds = Bounds(characters=10, members=2, depth=2)
    assert to_plain([1, 2, 3], bounds) == [1, 2, "… 1 more"]
    assert to_plain({"a": 1, "b": 2, "c": 3}, bounds) == {"a": 1, "b": 2, "…": "1 more"}
    assert to_plain({"a": {"b": {"c": 1}}}, bounds) == {"a": {"b": "…"}}
    assert to_plain("x" * 20, bounds) == "x" * 9 + "…"


def test_long_keys_keep_their_end_which_tells_whether_they_are_secret() -> None:
    (key,) = to_plain({"x" * 1000 + "_password": 1}, Bounds())
    assert len(key) <= 260
    assert key.endswith("_password")


def test_keys_that_become_alike_stay_apart() -> None:
    assert to_plain({1: "a", "1": "b", b"1": "c"}, Bounds()) == {"1": "a", "1_2": "b", "1_3": "c"}


def test_dataclass_fields_left_out_of_the_repr_stay_out() -> None:
    @dataclass
    class Account:
        name: str
        key_material: str = field(repr=False, default="hidden")

    assert to_plain(Account("bob"), Bounds()) == {"name": "bob"}
