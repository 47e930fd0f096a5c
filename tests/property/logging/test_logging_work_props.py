"""Whatever is logged, the work is bounded: counted in calls, over JSON of any shape, in log lines and in alerts."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mks_hardening.logging import JsonFormatter, RedactionFilter, SecretRedactor
from mks_hardening.notify.engine._alert import AlertReader, fingerprint_of

#: Calls of Python and of C functions; some five milliseconds.
MOST_CALLS = 75_000  # the step limit, and what a text costs until it is reached
SIZE = 100_000


class Kit:
    """Everything new, so that nothing is remembered from the last example."""

    def __init__(self) -> None:
        self.redactor = SecretRedactor()
        self.format = JsonFormatter(redactor=self.redactor).format
        self.filter = RedactionFilter(redactor=self.redactor).filter
        self.reader = AlertReader(self.redactor, host="", environment="")

    def alert(self, made: logging.LogRecord) -> object:
        message = self.reader.message(made)
        taken = self.reader.snapshot(made, message, kind=fingerprint_of(made, message), repeats=0)
        return self.reader.alert(taken, alert_id="id")


def record(message: str = "x", **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("app", logging.ERROR, "/srv/app.py", 7, message, None, None)
    made.__dict__.update(extra)
    return made


def fields(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def text(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)


PATHS: dict[str, Callable[[Kit, Any], object]] = {
    "redact": lambda kit, data: kit.redactor.redact(data),
    "text": lambda kit, data: kit.redactor.redact_text(text(data)),
    "query": lambda kit, data: kit.redactor.redact_query(text(data).replace(",", "&").replace(":", "=")),
    "formatter, a field": lambda kit, data: kit.format(record(body=data)),
    "formatter, all fields": lambda kit, data: kit.format(record(**fields(data))),
    "formatter, the message": lambda kit, data: kit.format(record(text(data))),
    "filter": lambda kit, data: kit.filter(record(text(data), body=data)),
    "alert, a field": lambda kit, data: kit.alert(record(body=data)),
    "alert, all fields": lambda kit, data: kit.alert(record(**fields(data))),
    "alert, the message": lambda kit, data: kit.alert(record(text(data))),
}


def calls(function: Callable[[Kit, Any], object], data: Any) -> int:
    kit = Kit()
    count = 0

    def tally(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(tally)
    try:
        function(kit, data)
    finally:
        sys.setprofile(before)
    return count


def repeated(text: str) -> str:
    return text * (SIZE // max(1, len(text)))


def many(number: int = 4_000) -> range:
    return range(number)


TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        "token=", "password='", "auth_token x ", "4111 ", "4111111111111111 ", "https://u:p@h/ ", "eyJ", "AKIA",
        "パスワードは", "'password', \"", 'name="password"\r\n', "[", "-----BEGIN ", "://@", "key", "a=1&",
        "\ud800",
    ]
)  # fmt: skip
SHAPES: dict[str, Callable[[str, str], Any]] = {
    "keys that become alike": lambda key, value: {f"token={key}{number}": value for number in many()},
    "keys that are secret": lambda key, value: {f"{key}{number}_password": value for number in many()},
    "keys alone": lambda key, value: {f"{key}{number}": value for number in many()},
    "a list": lambda key, value: [f"{key}{value}{number}" for number in many()],
    "records": lambda key, value: [
        {key: value, "name": key, "value": value, "n": number} for number in many(2_000)
    ],
    "one text": lambda key, value: {"a": repeated(key + value)},
    "long keys": lambda key, value: {repeated(key)[:5_000] + str(number): value for number in many(20)},
}


def shared(leaves: int) -> Any:
    """Small in memory, ten to the power of ``leaves`` to whoever walks it."""
    data: Any = ["token=x"] * 10
    for _ in range(leaves - 1):
        data = [data] * 10
    return data


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=6)
@given(key=TEXTS, value=TEXTS)
@example(key="x", value="y")
@example(key="", value="--")
@example(key="token=", value="password='")
@example(key="0\x80", value="")
@example(key="0-----------------", value="")
@example(key="%", value="%\x80")
@example(key="", value="00000000%\x80")
@example(key="", value="kEY")
def test_work_is_bounded_for_any_json(path: str, shape: str, key: str, value: str) -> None:
    assert calls(PATHS[path], SHAPES[shape](key, value)) <= MOST_CALLS


@pytest.mark.parametrize("path", ["redact", "formatter, a field", "alert, a field"])
def test_shared_structures_do_not_multiply(path: str) -> None:
    assert calls(PATHS[path], shared(9)) <= MOST_CALLS


@pytest.mark.parametrize("path", ["formatter, all fields", "alert, all fields"])
def test_a_hundred_thousand_fields_cost_no_more_than_a_few_hundred(path: str) -> None:
    wide = {f"field{number}": number for number in range(100_000)}
    assert calls(PATHS[path], wide) <= MOST_CALLS


def test_what_is_left_out_is_marked_and_still_hides() -> None:
    body = {f"token=hunter2x{number}": "v" for number in range(8_000)}
    line = Kit().format(record(body=body))
    assert "hunter2x" not in line
    assert "…" in line
    clean = SecretRedactor().redact_text(repeated("auth_token=hunter2x "))
    assert "hunter2x" not in clean
    assert clean.endswith("…")
