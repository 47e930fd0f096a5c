from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening._core.environment import parsers
from mks_hardening._core.environment import variables as env

integer = parsers.parse_integer(-5, 100)
number = parsers.parse_float(0, 10)
duration = parsers.parse_duration(maximum=86_400)
minutes = parsers.parse_duration(bare="m")
size = parsers.parse_size(maximum=1024**3)
choice = parsers.parse_choice("JSON", "ecs")
url = parsers.parse_url("redis", "rediss")

GOOD: list[tuple[Callable[[str], Any], str, Any]] = [
    *((parsers.parse_bool, text, True) for text in ("1", "true", "TRUE", "yes", "On", " on ")),
    *((parsers.parse_bool, text, False) for text in ("0", "false", "False", "no", "OFF")),
    (integer, "0", 0),
    (integer, "-5", -5),
    (integer, " 100 ", 100),
    (integer, "007", 7),
    (number, "0.5", 0.5),
    (number, "10", 10.0),
    (duration, "250ms", 0.25),
    (duration, "30s", 30.0),
    (duration, "1.5m", 90.0),
    (duration, "8 h", 28_800.0),
    (duration, "1d", 86_400.0),
    (duration, "0s", 0.0),
    (minutes, "30", 1800.0),
    (minutes, "30s", 30.0),
    (size, "65536", 65_536),
    (size, "64KiB", 65_536),
    (size, "1.5 MiB", 1_572_864),
    (size, "100MB", 100_000_000),
    (parsers.parse_list, "", ()),
    (parsers.parse_list, " ", ()),
    (parsers.parse_list, "a", ("a",)),
    (parsers.parse_list, " a , b ", ("a", "b")),
    (choice, "json", "JSON"),
    (choice, " ECS ", "ecs"),
    (url, "redis://localhost/0", "redis://localhost/0"),
    (parsers.parse_text, "x", "x"),
]

BAD: list[tuple[Callable[[str], Any], str]] = [
    *((parsers.parse_bool, text) for text in ("", "ture", "2", "y", "enabled", "1 0")),
    *((integer, text) for text in ("", "101", "-6", "1.0", "1e2", "0x1", "1_0", "８", "²", "--1", "9" * 30)),
    *((number, text) for text in ("", "nan", "inf", "1e3", "10.1", "-1", ".5")),
    *((duration, text) for text in ("", "30", "2d", "-1s", "1w", "s", "1h30m", "１s", "nan s", "1s\n2s")),
    *((minutes, text) for text in ("", "x", "30 min", "30,5")),
    *((size, text) for text in ("", "1TB", "-1", "64 kibibytes", "2GiB")),
    *((parsers.parse_list, text) for text in (",", "a,", ",a", "a,,b")),
    *((choice, text) for text in ("", "xml", "json,ecs")),
    *((url, text) for text in ("", "localhost", "http://x", "redis:", "redis://x\ny", "redis://[::1")),
    *((parsers.parse_text, text) for text in ("", "  ")),
]


@pytest.mark.parametrize(("parse", "text", "value"), GOOD)
def test_accepted_forms(parse: Callable[[str], Any], text: str, value: Any) -> None:
    result = parse(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(("parse", "text"), BAD)
def test_everything_else_is_refused_without_repeating_the_value(
    parse: Callable[[str], Any], text: str
) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse(text)
    if len(text) > 6:
        assert text not in str(caught.value)


PARSERS = [parsers.parse_bool, integer, number, duration, minutes, size, parsers.parse_list, choice, url]


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text(max_size=30))
def test_any_text_gives_a_value_or_a_value_error(parse: Callable[[str], Any], text: str) -> None:
    try:
        parse(text)
    except ValueError:
        return


def test_faults_are_collected_and_unset_is_none() -> None:
    source = env.Environment({"A": "1", "B": "x", "C": ""})
    assert source.read("A", parsers.parse_bool) is True
    assert source.read("B", parsers.parse_bool) is None
    assert source.read("C", integer) is None
    assert source.read("D", integer) is None
    assert source.errors == [
        "B must be 1/0, true/false, yes/no or on/off",
    ]


@pytest.mark.parametrize("text", ["", " ", "\t", "\n"])
def test_an_empty_variable_is_not_set(tmp_path: Path, text: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret value", encoding="utf-8")
    source = env.Environment({"A": text, "A_FILE": str(secret), "B": text, "B_FILE": text})
    assert source.read("A", parsers.parse_text, file=True) == "s3cret value"
    assert source.read("B", integer, file=True) is None
    assert source.errors == []


def test_a_value_that_is_no_text_is_a_fault() -> None:
    odd: Any = {"A": 5, 7: "b"}
    source = env.Environment(odd)
    assert source.read("A", integer) is None
    assert source.errors == ["A must be text, not int"]
    assert source.names("A") == ["A"]


@pytest.mark.parametrize("written", ["s3cret value\n", "\ufeffs3cret value", "s3cret value\n\r\n"])
def test_a_secret_may_come_from_a_file(tmp_path: Path, written: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(written, encoding="utf-8")
    source = env.Environment({"KEY_FILE": str(secret)})
    assert source.read("KEY", parsers.parse_text, file=True) == "s3cret value"
    assert source.read("KEY", parsers.parse_text) is None
    assert source.errors == []


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * 70_000, b"", b" \n"])
def test_an_unusable_file_is_a_fault(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    source = env.Environment({"KEY_FILE": str(path)})
    assert source.read("KEY", parsers.parse_text, file=True) is None
    assert len(source.errors) == 1
    assert "KEY_FILE" in source.errors[0]


def test_value_and_file_together_are_a_fault(tmp_path: Path) -> None:
    source = env.Environment({"KEY": "topsecret", "KEY_FILE": str(tmp_path)})
    assert source.read("KEY", parsers.parse_text, file=True) is None
    assert "topsecret" not in source.errors[0]


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKS_TEST_ONLY", "1")
    source = env.Environment()
    assert source.read("MKS_TEST_ONLY", integer) == 1
    assert "MKS_TEST_ONLY" in source.names("MKS_TEST")
