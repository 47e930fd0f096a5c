"""Exceptions as data and text: right, bounded, redacted, never raising."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from mks_hardening._core import exception_text
from mks_hardening._core.exception_text import describe_exception, safe_text


def raised(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def fail(error: BaseException) -> None:
    raise error


def chain() -> None:
    try:
        fail(KeyError("inner"))
    except KeyError as error:
        raise RuntimeError("outer") from error


def context() -> None:
    try:
        fail(KeyError("inner"))
    except KeyError:
        fail(RuntimeError("outer"))


def suppressed() -> None:
    try:
        fail(KeyError("inner"))
    except KeyError:
        raise RuntimeError("outer") from None


def recursive(depth: int = 30) -> None:
    if depth:
        recursive(depth - 1)
    fail(ValueError("deep"))


def noted() -> None:
    error = ValueError("with notes")
    error.add_note("first")
    error.add_note("second\nline")
    fail(error)


def empty() -> None:
    fail(ValueError())


def compiled() -> None:
    exec(compile("fail(ValueError('no source'))", "<generated>", "exec"), {"fail": fail})  # noqa: S102


class Odd(Exception):  # noqa: N818
    """Not a builtin, so its name carries its module."""


def odd() -> None:
    fail(Odd("odd"))


def without_carets(text: str) -> list[str]:
    return [line for line in text.splitlines() if not re.fullmatch(r"[ |]*[\^~ ]+", line) or not line.strip()]


@pytest.mark.parametrize("function", [chain, context, suppressed, recursive, noted, empty, compiled, odd])
def test_the_text_is_that_of_the_standard_library_without_carets(function: Callable[[], None]) -> None:
    error = raised(function)
    standard = "".join(traceback.format_exception(error))
    ours = describe_exception(error, max_frames=200).text
    if function is recursive:  # the standard library counts repeated frames
        assert ours.splitlines()[-1] == standard.splitlines()[-1]
        assert ours.count("in recursive") == 31
    else:
        assert without_carets(ours) == without_carets(standard)


def test_the_structure_names_type_message_stack_and_cause() -> None:
    structure = describe_exception(raised(chain)).structure
    assert (structure["type"], structure["message"]) == ("RuntimeError", "outer")
    frame = structure["stack"][-1]
    assert (frame["function"], frame["code"]) == ("chain", 'raise RuntimeError("outer") from error')
    assert frame["file"] == __file__
    assert structure["cause"]["type"] == "KeyError"
    assert "context" not in structure


def test_contexts_are_told_unless_they_are_suppressed() -> None:
    assert describe_exception(raised(context)).structure["context"]["message"] == "'inner'"
    assert "context" not in describe_exception(raised(suppressed)).structure


def test_groups_are_described_member_by_member() -> None:
    error = ExceptionGroup("many", [raised(chain), ExceptionGroup("inner", [ValueError("leaf")])])
    structure, text = describe_exception(error)
    assert [member["type"] for member in structure["exceptions"]] == ["RuntimeError", "ExceptionGroup"]
    assert structure["exceptions"][1]["exceptions"][0]["message"] == "leaf"
    assert "ValueError: leaf" in text
    assert "KeyError: 'inner'" in text


def test_notes_are_kept_whatever_they_are() -> None:
    error = ValueError("x")
    for notes, shown in ((["a", "b"], ["a", "b"]), ("text", ["text"]), ([5], ["5"]), (7, ["7"])):
        error.__notes__ = notes  # type: ignore[assignment]
        assert describe_exception(error).structure["notes"] == shown


def test_cycles_end() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    structure = describe_exception(one).structure
    assert structure["cause"]["cause"] == {"type": "ValueError", "message": "…"}


def test_the_middle_of_a_long_stack_is_left_out() -> None:
    structure, text = describe_exception(raised(lambda: recursive(80)), max_frames=10)
    assert len(structure["stack"]) == 11
    assert structure["stack"][5] == {
        "left_out": len([*traceback.walk_tb(raised(lambda: recursive(80)).__traceback__)]) - 10
    }
    assert "frames left out" in text


def test_long_chains_and_wide_groups_are_bounded() -> None:
    error: BaseException = ValueError("first")
    for number in range(100):
        later = ValueError(str(number))
        later.__cause__ = error
        error = later
    text = describe_exception(error, max_depth=5).text
    assert text.count("direct cause") == 4
    group = ExceptionGroup("wide", [ValueError(str(number)) for number in range(500)])
    assert len(describe_exception(group, max_frames=20).structure["exceptions"]) == 21
    nested = ExceptionGroup("n", [ExceptionGroup("m", [ValueError() for _ in range(40)]) for _ in range(40)])
    assert str(describe_exception(nested).structure).count("'type': 'ValueError'") <= 100


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    text = describe_exception(raised(lambda: recursive(40)), max_chars=500).text
    assert len(text) <= 500
    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith("ValueError: deep\n")
    assert "…" in text


def test_redaction_reaches_message_notes_and_source_lines() -> None:
    def login() -> None:
        error = ValueError("message s3cret")
        error.add_note("note s3cret")
        _s3cret = fail(error)  # type: ignore[func-returns-value]

    error = raised(login)
    structure, text = describe_exception(error, redact_text=lambda given: given.replace("s3cret", "*"))
    assert "s3cret" not in text
    assert "s3cret" not in str(structure)
    assert "s3cret" in describe_exception(error).text, (
        "what was rendered redacted is not handed out for another call"
    )


def test_texts_that_raise_are_named() -> None:
    class BadError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert "raises RuntimeError" in describe_exception(BadError()).structure["message"]
    assert safe_text("x" * 100, limit=10) == "x" * 10 + "…"


def test_missing_source_and_foreign_loaders_do_no_harm() -> None:
    class Loader:
        def get_source(self, name: str) -> str:
            raise OSError("gone")

    names: dict[str, Any] = {"fail": fail, "__loader__": Loader(), "__name__": "foreign"}
    error = raised(lambda: exec(compile("fail(ValueError('x'))", "/nowhere/foreign.py", "exec"), names))  # noqa: S102
    assert describe_exception(error).structure["stack"][-2]["code"] == ""


def test_the_kept_frames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exception_text, "_MAX_CACHED", 5)
    for _ in range(3):
        describe_exception(raised(lambda: recursive(3)))
        describe_exception(raised(chain))
    assert len(exception_text._frames) <= 5


def test_frames_of_code_whose_address_is_used_again_are_not_confused() -> None:
    texts = set()
    for number in range(200):
        source = f"def made_{number}():\n    fail(ValueError({number}))\nmade_{number}()"
        error = raised(lambda source=source: exec(compile(source, "<made>", "exec"), {"fail": fail}))  # type: ignore[misc]  # noqa: S102
        functions = [frame["function"] for frame in describe_exception(error).structure["stack"]]
        assert f"made_{number}" in functions
        texts.add(tuple(functions))
    assert len(texts) == 200


class _OddNotesError(ValueError):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes")


class _OddGroupError(ExceptionGroup[ValueError]):
    @property
    def exceptions(self) -> Any:
        raise RuntimeError("no members")


@pytest.mark.parametrize("error", [_OddNotesError("boom"), _OddGroupError("boom", [ValueError()])])
def test_attributes_that_raise_lose_no_exception(error: Exception) -> None:
    described = describe_exception(error)
    assert "boom" in described.text
    assert described.structure["type"].endswith(type(error).__name__)


class _HostileMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class _Hostile(Exception, metaclass=_HostileMeta):  # noqa: N818
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError


def test_an_exception_whose_every_attribute_raises_is_described_with_its_cause() -> None:
    hostile = _Hostile("x")
    BaseException.__cause__.__set__(hostile, KeyError("why"))  # type: ignore[attr-defined]  # a descriptor
    try:
        raise hostile
    except _Hostile:
        found = describe_exception(hostile)
    assert found.structure["type"] == "_Hostile"
    assert found.structure["message"] == "<_Hostile whose text raises RuntimeError>"
    assert found.structure["cause"]["type"] == "KeyError"
    assert "test_an_exception_whose_every_attribute_raises" in found.text


def test_an_exception_whose_text_cannot_be_given_does_not_end_the_description() -> None:
    def text_of(_: BaseException) -> str:
        raise RuntimeError

    assert describe_exception(ValueError("x"), text_of=text_of).structure["message"] == "x"
