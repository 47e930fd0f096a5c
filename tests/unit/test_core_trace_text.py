"""Exceptions as data and text."""

from __future__ import annotations

import traceback

from mks_hardening._core.trace_text import describe_exception


def _raised(function: object) -> BaseException:
    try:
        function()  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def _fail() -> None:
    raise KeyError("inner")


def _chain() -> None:
    try:
        _fail()
    except KeyError as error:
        raise RuntimeError("outer") from error


def test_the_text_is_that_of_the_standard_library_without_carets() -> None:
    error = _raised(_chain)
    standard = "".join(traceback.format_exception(error)).splitlines()
    assert describe_exception(error).text.splitlines() == [
        line for line in standard if set(line) - set(" ^~") or not line
    ]


def test_the_structure_names_type_message_stack_and_cause() -> None:
    structure = describe_exception(_raised(_chain)).structure
    assert (structure["type"], structure["message"]) == ("RuntimeError", "outer")
    assert structure["stack"][-1]["function"] == "_chain"
    assert structure["cause"]["type"] == "KeyError"


def test_redaction_reaches_message_and_notes() -> None:
    error = ValueError("password=hunter2")
    error.add_note("token: hunter2")
    assert "hunter2" not in str(
        describe_exception(error, redact_text=lambda text: text.replace("hunter2", "*"))
    )
