"""The JSON formatter on single records."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from mks_hardening._core.redaction.step_limit import StepLimit
from mks_hardening.logging import JsonFormatter, RedactionFilter, bound


def record(
    message: Any, *args: Any, exc_info: Any = None, name: str = "app", **extra: Any
) -> logging.LogRecord:
    return logging.getLogger(name).makeRecord(
        name, logging.INFO, "/p.py", 1, message, args, exc_info, extra=extra
    )


def fields(entry: logging.LogRecord, **options: Any) -> dict[str, Any]:
    line = JsonFormatter(**options).format(entry)
    assert len(line.splitlines()) == 1
    result: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
    return result


def test_a_plain_record_has_the_canonical_fields() -> None:
    entry = record("hello %s", "world", answer=42)
    entry.created = 1_700_000_000.25
    assert fields(entry, environment="test") == {
        "timestamp": "2023-11-14T22:13:20.250Z",
        "level": "INFO",
        "logger": "app",
        "environment": "test",
        "message": "hello world",
        "answer": 42,
    }


def test_canonical_fields_cannot_be_forged_and_the_extra_is_kept() -> None:
    shown = fields(record("x", level="forged", timestamp="forged"), static_fields={"service": "s"})
    assert (shown["level"], shown["extra_level"], shown["extra_timestamp"]) == ("INFO", "forged", "forged")


def test_context_is_shown_and_wins_over_an_extra_of_the_same_name() -> None:
    with bound(request_id="r1"):
        assert fields(record("x"))["request_id"] == "r1"
        assert fields(record("x", request_id="r1")).keys().isdisjoint({"extra_request_id"})
        assert fields(record("x", request_id="r2"))["extra_request_id"] == "r2"


@pytest.mark.parametrize(
    ("created", "stamp"),
    [
        (-1.5, "1969-12-31T23:59:58.500Z"),
        (-0.5, "1969-12-31T23:59:59.500Z"),
        (0.5, "1970-01-01T00:00:00.500Z"),
        (1.25, "1970-01-01T00:00:01.250Z"),
    ],
)
def test_the_first_record_has_its_date_whenever_it_was(created: float, stamp: str) -> None:
    record = logging.LogRecord("app", 20, "", 1, "hello", None, None)
    record.created = created
    assert json.loads(JsonFormatter().format(record))["timestamp"] == stamp


class _SpokenError(ValueError):
    def __str__(self) -> str:
        return f"crane {self.args[1]}"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("wrong password %s", "hunter2"), "('wrong password [REDACTED]',)"),
        (
            ValueError("wrong password %s for %s", "hunter2", "tanaka"),
            "('wrong password [REDACTED] for %s', 'tanaka')",
        ),
        (ValueError("wrong password %s"), "wrong password %s"),
        (ValueError("%d of %d", 1, 2), "('%d of %d', 1, 2)"),
        (OSError(2, "No such file", "a.txt"), "[Errno 2] No such file: 'a.txt'"),
        (_SpokenError("wrong password %s", "7"), "crane 7"),
    ],
    ids=repr,
)
def test_an_exception_that_was_raised_like_a_log_call_tells_no_secret_argument(
    error: Exception, shown: str
) -> None:
    record = logging.LogRecord("app", logging.ERROR, "app.py", 1, "failed", (), (type(error), error, None))
    assert json.loads(JsonFormatter().format(record))["exception"]["message"] == shown


def _with_notes(number: int) -> ValueError:
    error = ValueError("crane")
    for _ in range(number):
        error.add_note("password=hunter2 " * 200)
    return error


def _with_causes(number: int) -> ValueError:
    error = ValueError("crane")
    for _ in range(number):
        outer = ValueError("password=hunter2 " * 200)
        outer.__cause__, error = error, outer
    return error


@pytest.mark.parametrize(
    "parts",
    [
        {"exc_info": (ValueError, _with_notes(25), None)},
        {"exc_info": (ValueError, _with_causes(9), None)},
        {"exc_info": (ExceptionGroup, ExceptionGroup("g", [_with_notes(1) for _ in range(25)]), None)},
        {f"field_{number}": "password=hunter2 " * 60 for number in range(100)},
    ],
    ids=["notes", "causes", "group", "extras"],
)
@pytest.mark.parametrize("filtered", [False, True])
def test_the_parts_of_one_record_take_as_much_work_as_one_text(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], filtered: bool
) -> None:
    asked = 0

    def count(effort: StepLimit, steps: int, spend: Any = StepLimit.spend) -> bool:
        nonlocal asked
        asked += 1
        shown: bool = spend(effort, steps)
        return shown

    monkeypatch.setattr(StepLimit, "spend", count)
    entry = record("x", **parts)
    assert not filtered or RedactionFilter().filter(entry)
    line = JsonFormatter().format(entry)
    assert "hunter2" not in line
    assert "crane" in line or "exc_info" not in parts
    # One text takes some 1,200 at most; a record is read twice where its first way proves too long.
    assert asked < 6_000
