"""Leaked passwords in a local file: both formats against a set, and files that are not what they should be."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import BreachedPasswords, PasswordPolicy, build_breach_filter

LEAKED = [f"password{number}" for number in range(500)] + ["足場の点検", "correct horse battery staple", "x"]


def sha1(password: str) -> str:
    return hashlib.sha1(password.encode()).hexdigest().upper()  # noqa: S324 - the format of the lists


def listed(passwords: list[str], *, end: str = "\r\n", counts: bool = True) -> bytes:
    """As "Have I Been Pwned" publishes it."""
    numbers = random.Random(7)
    lines = sorted(sha1(password) for password in passwords)
    return "".join(
        f"{line}:{numbers.randrange(1, 10**6)}{end}" if counts else f"{line}{end}" for line in lines
    ).encode()


@pytest.fixture(params=["text", "text without counts", "text in lower case", "compact", "from passwords"])
def leaked(request: Any, tmp_path: Path) -> Any:
    text, compact, plain = tmp_path / "pwned.txt", tmp_path / "pwned.mks", tmp_path / "plain.txt"
    text.write_bytes(listed(LEAKED))
    if request.param == "text without counts":
        text.write_bytes(listed(LEAKED, counts=False, end="\n").rstrip())  # the last line has no end
    if request.param == "text in lower case":
        text.write_bytes(listed(LEAKED).lower())
    if request.param.startswith("text"):
        return text
    if request.param == "compact":
        assert build_breach_filter(text, compact) == len(LEAKED)
    else:
        plain.write_text("\n".join([*LEAKED, "", LEAKED[0]]))
        assert build_breach_filter(plain, compact, kind="passwords") == len(LEAKED)
    return compact


def test_what_is_listed_is_known_and_nothing_else(leaked: Path) -> None:
    with BreachedPasswords(leaked) as breached:
        assert all(breached(password) for password in LEAKED)
        assert not any(breached(f"other{number}") for number in range(2000))
        for strange in ("", "\ud800", "x" * 10_000, "\0"):
            assert not breached(strange)
        assert PasswordPolicy(breached=breached).check("correct horse battery staple").errors == ("breached",)
        assert str(leaked) in repr(breached)


def test_a_password_is_known_in_either_form_of_unicode(tmp_path: Path) -> None:
    path = tmp_path / "pwned.txt"
    path.write_bytes(listed(["がぎぐげご"]))
    with BreachedPasswords(path) as breached:
        assert breached("がぎぐげご")
        assert breached("か\u3099き\u3099く\u3099け\u3099こ\u3099")


@given(st.sets(st.integers(0, 2000), min_size=1, max_size=60), st.integers(0, 2000), st.booleans())
def test_both_formats_agree_with_a_set(numbers: set[int], asked: int, counts: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        text, compact = Path(folder) / "t", Path(folder) / "c"
        text.write_bytes(listed([str(number) for number in numbers], counts=counts))
        build_breach_filter(text, compact)
        for path in (text, compact):
            with BreachedPasswords(path) as breached:
                assert breached(str(asked)) == (asked in numbers)
                assert all(breached(str(number)) for number in numbers)


def test_seldom_leaked_passwords_can_be_left_out(tmp_path: Path) -> None:
    lines = sorted((sha1(f"p{number}"), number) for number in range(1, 21))
    (tmp_path / "t").write_text("".join(f"{digest}:{count}\n" for digest, count in lines))
    assert build_breach_filter(tmp_path / "t", tmp_path / "c", min_count=15) == 6
    with BreachedPasswords(tmp_path / "c") as breached:
        assert [number for number in range(1, 21) if breached(f"p{number}")] == list(range(15, 21))


def test_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(listed(LEAKED))
    calls: list[int] = []
    build_breach_filter(tmp_path / "t", tmp_path / "c", progress=calls.append)
    assert calls == sorted(calls)
    assert calls[-1] == (tmp_path / "t").stat().st_size


@pytest.mark.parametrize(("size", "length"), [(4, 4), (6, 6), (20, 20)])
def test_the_filter_is_as_small_as_it_says(tmp_path: Path, size: int, length: int) -> None:
    (tmp_path / "t").write_bytes(listed(LEAKED))
    build_breach_filter(tmp_path / "t", tmp_path / "c", digest_bytes=size)
    assert (tmp_path / "c").stat().st_size == 16 + length * len(LEAKED)
    with BreachedPasswords(tmp_path / "c") as breached:
        assert breached("x")
        assert not breached("y")


BY_COUNT = b"".join(f"{sha1(str(n))}:{1000 - n}\n".encode() for n in range(1000))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"password\n",
        b"<!doctype html>\n" * 100,
        BY_COUNT,
        b"mks-breached-1\n",
        b"mks-breached-1\n\x06",
        b"mks-breached-1\n\x06abcde",
        b"mks-breached-1\n\x02abab",
        b"mks-breached-1\n\xff" + b"x" * 255,
        b"mks-breached-1\n\x06" + b"zzzzzz" + b"aaaaaa",
    ],
)
def test_a_file_that_would_answer_wrongly_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        BreachedPasswords(tmp_path / "f")
    assert caught.value.parameter == "path"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigurationError) as caught:
            BreachedPasswords(path)
        assert caught.value.parameter == "path"


@pytest.mark.parametrize(
    ("content", "clue"),
    [
        (BY_COUNT, "not in order"),
        (b"password\n", "not SHA-1"),
        (f"{sha1('a')}:x\n".encode(), "not SHA-1"),
        (f"{sha1('a')}{'0' * 10}\n".encode(), "not SHA-1"),
        (b"", "at least one"),
    ],
)
def test_a_source_that_is_not_as_it_should_be_leaves_the_target_alone(
    tmp_path: Path, content: bytes, clue: str
) -> None:
    (tmp_path / "t").write_bytes(content)
    (tmp_path / "c").write_bytes(b"old")
    with pytest.raises(ConfigurationError, match=clue) as caught:
        build_breach_filter(tmp_path / "t", tmp_path / "c")
    assert caught.value.parameter == "source"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "t"]
    assert (tmp_path / "c").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("kind", "md5"), ("min_count", 0), ("digest_bytes", 3), ("digest_bytes", 21)],
)
def test_impossible_parameters(tmp_path: Path, parameter: str, value: Any) -> None:
    given_: Any = {parameter: value}
    with pytest.raises(ConfigurationError) as caught:
        build_breach_filter(tmp_path / "t", tmp_path / "c", **given_)
    assert caught.value.parameter == parameter
