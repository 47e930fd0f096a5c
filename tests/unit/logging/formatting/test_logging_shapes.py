"""What a line looks like: schemas, names, hooks of python-json-logger, foreign redactors."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from pythonjsonlogger.core import BaseJsonFormatter

from mks_hardening.exceptions import ConfigurationError, MissingDependencyError
from mks_hardening.logging import JsonFormatter, SecretRedactor, bound


def record(message: Any = "hello", *args: Any, level: int = 20, **attributes: Any) -> logging.LogRecord:
    made = logging.LogRecord("app", level, "/app/x.py", 7, message, args, attributes.pop("exc_info", None))
    made.created = 1_700_000_000.0
    made.__dict__.update(attributes)
    return made


def shown(formatter: logging.Formatter, entry: logging.LogRecord) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(formatter.format(entry))
    return decoded


def failed() -> Any:
    try:
        int("x")
    except ValueError:
        return sys.exc_info()
    raise AssertionError


# --- schemas ---------------------------------------------------------------------------------


def test_the_elastic_schema() -> None:
    formatter = JsonFormatter(schema="ecs", environment="prod", static_fields={"service.name": "s"})
    with bound(request_id="r", trace_id="t", user_id="u"):
        entry = shown(formatter, record(exc_info=failed(), client_ip="192.0.2.1", level=40))
    assert entry["@timestamp"] == "2023-11-14T22:13:20.000Z"
    assert (entry["log.level"], entry["log.logger"], entry["ecs.version"]) == ("error", "app", "8.11.0")
    assert (entry["http.request.id"], entry["trace.id"], entry["user.id"]) == ("r", "t", "u")
    assert (entry["service.environment"], entry["service.name"], entry["client.ip"]) == (
        "prod",
        "s",
        "192.0.2.1",
    )
    assert entry["error.type"] == "ValueError"
    assert entry["error.stack_trace"].endswith(f"ValueError: {entry['error.message']}\n")


@pytest.mark.parametrize(
    ("level", "severity"),
    [(10, "DEBUG"), (20, "INFO"), (30, "WARNING"), (40, "ERROR"), (50, "CRITICAL"), (26, "NOTICE"), (5, "DEBUG"),
     (0, "DEFAULT")],
)  # fmt: skip
def test_severities_of_google_cloud(level: int, severity: str) -> None:
    assert shown(JsonFormatter(schema="gcp"), record(level=level))["severity"] == severity


def test_google_cloud_finds_trace_and_stack() -> None:
    with bound(trace_id="t"):
        entry = shown(JsonFormatter(schema="gcp"), record(exc_info=failed()))
    assert entry["logging.googleapis.com/trace"] == "t"
    assert "ValueError" in entry["stack_trace"]
    assert entry["time"].endswith("Z")


def test_unknown_schemas_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="default, ecs, gcp"):
        JsonFormatter(schema="xml")


# --- switching from python-json-logger -------------------------------------------------------


def test_it_is_one_of_its_formatters() -> None:
    assert isinstance(JsonFormatter(), BaseJsonFormatter)


def test_attributes_named_by_the_format_are_shown() -> None:
    entry = shown(JsonFormatter("%(levelname)s %(lineno)d %(asctime)s %(message)s", "%Y"), record())
    assert (entry["levelname"], entry["lineno"], entry["message"]) == ("INFO", 7, "hello")
    assert len(entry["asctime"]) == 4


@pytest.mark.parametrize(
    ("fmt", "style"), [("{lineno} {message}", "{"), ("$lineno ${message}", "$"), ("lineno,message", ",")]
)
def test_all_styles_name_attributes(fmt: str, style: str) -> None:
    assert shown(JsonFormatter(fmt, None, style), record())["lineno"] == 7


def test_a_format_that_does_not_fit_its_style_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="style"):
        JsonFormatter("%(message)s", None, "!")


def test_renaming_covers_canonical_and_extra_fields() -> None:
    formatter = JsonFormatter(rename_fields={"level": "lvl", "message": "msg", "duration_ms": "took"})
    entry = shown(formatter, record(duration_ms=5, lvl="forged"))
    assert (entry["lvl"], entry["msg"], entry["took"], entry["extra_lvl"]) == ("INFO", "hello", 5, "forged")


def test_defaults_give_way_and_reserved_attributes_stay_away() -> None:
    formatter = JsonFormatter(defaults={"team": "platform", "zone": "a"}, reserved_attrs=("internal",))
    entry = shown(formatter, record(team="web", internal="x"))
    assert (entry["team"], entry["zone"]) == ("web", "a")
    assert "internal" not in entry


def test_a_prefix_stands_in_front() -> None:
    for formatter in (JsonFormatter(prefix="@cee: "), JsonFormatter(prefix="@cee: ", defaults={"a": 1})):
        assert formatter.format(record()).startswith("@cee: {")


def test_a_dictionary_as_message_gives_fields() -> None:
    entry = shown(JsonFormatter(), record({"message": "m", "count": 2, "password": "hunter2"}))
    assert (entry["message"], entry["count"], entry["password"]) == ("m", 2, "[REDACTED]")


def test_overridden_hooks_are_called_and_what_they_add_is_cleaned() -> None:
    class Own(JsonFormatter):
        def add_fields(
            self, log_data: dict[str, Any], entry: logging.LogRecord, message_dict: dict[str, Any]
        ) -> None:
            super().add_fields(log_data, entry, message_dict)
            log_data["added"] = {"token": "hunter2", "line": entry.lineno}

    assert shown(Own(), record())["added"] == {"token": "[REDACTED]", "line": 7}


def test_a_hook_that_raises_loses_neither_the_line_nor_a_secret() -> None:
    class Broken(JsonFormatter):
        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            raise RuntimeError("hunter2")

    entry = shown(Broken(), record("password=hunter2"))
    assert entry["level"] == "INFO"
    assert "RuntimeError" in entry["message"]
    assert "hunter2" not in str(entry)


# --- redactors and encoders ------------------------------------------------------------------


def test_a_redactor_of_ones_own_is_asked_for_everything() -> None:
    class Shout:
        def redact(self, value: object) -> object:
            return json.loads(json.dumps(value).replace("quiet", "LOUD"))

        def redact_text(self, text: str) -> str:
            return text.replace("quiet", "LOUD")

    entry = shown(
        JsonFormatter(redactor=Shout()),
        record("quiet %s", "quiet", a="quiet", b=["quiet"], exc_info=failed()),
    )
    assert "quiet" not in str(entry)
    assert entry["a"] == "LOUD"


def test_a_redactor_that_raises_shows_nothing() -> None:
    class Broken:
        def redact(self, value: object) -> object:
            raise RuntimeError

        def redact_text(self, text: str) -> str:
            raise RuntimeError

    entry = shown(JsonFormatter(redactor=Broken()), record("password=hunter2"))
    assert entry["level"] == "INFO"
    assert "hunter2" not in str(entry)


def test_added_names_and_patterns_hold_in_messages_and_fields() -> None:
    formatter = JsonFormatter(redactor=SecretRedactor(keys=("badge",), patterns=(r"EMP-\d+",)))
    entry = shown(formatter, record("badge=77 EMP-123", badge="77", note="EMP-9"))
    assert (entry["message"], entry["badge"], entry["note"]) == (
        "badge=[REDACTED] [REDACTED]",
        "[REDACTED]",
        "[REDACTED]",
    )


def test_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = record("あ", n=1)
    lines = {JsonFormatter(encoder=encoder).format(entry) for encoder in ("auto", "orjson", "json")}
    monkeypatch.setattr("mks_hardening.logging.formatting._json_text.orjson_dumps", lambda: None)
    assert lines == {JsonFormatter(encoder="auto").format(entry)}
    with pytest.raises(MissingDependencyError, match=r"mks-hardening\[logging\]"):
        JsonFormatter(encoder="orjson")


@pytest.mark.parametrize("encoder", ["orjson", "json"])
def test_escapes(encoder: str) -> None:
    unsafe = "a\u2028\x85\u202e\ufeff\x7f"
    line = JsonFormatter(encoder=encoder).format(record(unsafe, b="あ"))
    assert not any(char in line for char in unsafe[1:])
    assert json.loads(line)["message"] == unsafe
    assert "あ" in line
