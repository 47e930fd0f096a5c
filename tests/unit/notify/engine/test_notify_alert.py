from __future__ import annotations

import logging
from typing import Any

import pytest

from mks_hardening._core.redaction.redactor import SecretRedactor
from mks_hardening.logging import bound
from mks_hardening.notify.engine._alert import Alert, AlertReader, AlertSnapshot, fingerprint_of

READER = AlertReader(SecretRedactor(), host="web1", environment="production")


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def record(
    msg: Any = "failed", *args: Any, extra: dict[str, Any] | None = None, **more: Any
) -> logging.LogRecord:
    made = logging.LogRecord(
        more.pop("name", "app"), logging.ERROR, "/srv/app.py", 7, msg, args, more.pop("exc_info", None), "run"
    )
    made.__dict__.update(extra or {})
    made.__dict__.update(more)
    return made


def alert(made: logging.LogRecord, *, reader: AlertReader = READER) -> Alert:
    return reader.alert(taken(made, reader), alert_id="id")


def taken(made: logging.LogRecord, reader: AlertReader = READER) -> AlertSnapshot:
    message = reader.message(made)
    return reader.snapshot(made, message, kind=fingerprint_of(made, message), repeats=0)


def raised(error: Exception) -> Any:
    try:
        raise error
    except type(error) as caught:
        return type(caught), caught, caught.__traceback__


def test_everything_that_people_ask_for_is_there() -> None:
    with bound(request_id="req-1", user_id="u7"):
        made = alert(record("order %d failed", 4711, extra={"site": "B棟"}))
    assert made._asdict() == {
        "id": "id",
        "fingerprint": fingerprint_of(record(), "order 4711 failed").digest(),
        "created": made.created,
        "level": "ERROR",
        "logger": "app",
        "message": "order 4711 failed",
        "place": "/srv/app.py:7 run",
        "exception": "",
        "request_id": "req-1",
        "fields": {"user_id": "u7", "site": "B棟"},
        "host": "web1",
        "environment": "production",
        "repeats": 0,
        "since": 0.0,
        "digest": False,
    }


def test_the_context_is_that_of_the_log_call() -> None:
    with bound(request_id="first"):
        first = taken(record())
    with bound(request_id="second"):
        made = READER.alert(first, alert_id="x")
    assert made.request_id == "first"


def test_a_request_id_may_come_with_the_record() -> None:
    assert alert(record(extra={"request_id": "req-9"})).request_id == "req-9"


def test_values_that_change_later_are_copied_at_the_log_call() -> None:
    basket = {"items": ["nail"]}
    copied = taken(record(extra={"basket": basket}))
    basket["items"].append("hammer")
    assert copied.record.fields == {"basket": {"items": ["nail"]}}


@pytest.mark.parametrize(
    ("msg", "args", "message"),
    [
        ("plain", (), "plain"),
        ("%s and %s", ("a", "b"), "a and b"),
        ("%d items", ("many",), "%d items [arguments do not fit: ('many',)]"),
        ("%s %s", ("one",), "%s %s [arguments do not fit: ('one',)]"),
        ("too few", ("one", 2), "too few [arguments do not fit: ('one', 2)]"),
        ("100 % Vollständigkeit", ("x",), "100 % Vollständigkeit [arguments do not fit: ('x',)]"),
        ("%(name)s", ({"other": 1},), "%(name)s [arguments do not fit: {'other': 1}]"),
        ({"a": 1}, (), "{'a': 1}"),
        (None, (), "None"),
        ("%s", (Broken(),), "<Broken whose text raises RuntimeError>"),
        (Broken(), (), "<Broken whose text raises RuntimeError>"),
    ],
)
def test_no_record_is_too_odd_for_a_message(msg: Any, args: tuple[Any, ...], message: str) -> None:
    assert READER.message(record(msg, *args)) == message


def test_secrets_in_the_context_do_not_come_out() -> None:
    with bound(session_id="hunter22", request_id="r"):
        assert "hunter22" not in repr(alert(record()))


def test_a_redactor_of_ones_own_is_used() -> None:
    reader = AlertReader(SecretRedactor(keys=["employee_number"]), host="", environment="")
    assert alert(record(extra={"employee_number": "4711"}), reader=reader).fields == {
        "employee_number": "[REDACTED]"
    }


@pytest.mark.parametrize("created", [1e300, -1.0, float("nan"), float("inf")])
def test_impossible_times_become_the_beginning_of_time(created: float) -> None:
    assert alert(record(created=created)).created == 0.0


def test_exception_and_stack_are_both_told() -> None:
    made = alert(record(exc_info=raised(ValueError("bad")), stack_info="Stack (most recent call last):\n  x"))
    assert "ValueError: bad" in made.exception
    assert made.exception.endswith("Stack (most recent call last):\n  x")


def test_an_exc_info_of_nothing_is_no_exception() -> None:
    assert alert(record(exc_info=(None, None, None))).exception == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a\\x00b"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\x7f\x85b", "a\\x7f\\x85b"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("a\u2066b\u200fc", "a\\u2066b\\u200fc"),
        ("a\ud800b", "a\\ud800b"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("a\rb", "a\\x0db"),
        ("𠮷野家 👷‍♀️", "𠮷野家 👷‍♀️"),
    ],
)
def test_what_cannot_be_seen_is_shown(text: str, shown: str) -> None:
    assert alert(record(text)).message == shown
    assert alert(record(extra={"note": text})).fields == {"note": shown}


def test_everything_is_bounded() -> None:
    made = alert(
        record(
            "x" * 1_000_000,
            name="n" * 10_000,
            extra={f"field{number}": "y" * 10_000 for number in range(500)},
            exc_info=raised(ValueError("z" * 1_000_000)),
        )
    )
    assert len(made.message) == 8192
    assert made.message.endswith("…")
    assert len(made.logger) == 200
    assert len(made.fields) == 40
    assert {len(value) for value in made.fields.values()} == {1000}
    assert len(made.exception) <= 4 * 8192


def test_extras_that_raise_do_not_lose_the_alert() -> None:
    made = alert(record(extra={"thing": Broken(), "good": 1}))
    assert made.fields["good"] == "1"
    assert "Broken" in made.fields["thing"]
