"""The shape of python-json-logger: its fields, names and values, and what differs on purpose."""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pythonjsonlogger.json import JsonFormatter as Theirs

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging import JsonFormatter, bound

DOCS = Path(__file__).parents[4] / "docs" / "en" / "how-to" / "migrate" / "python-json-logger.md"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def ours(*args: Any, **options: Any) -> JsonFormatter:
    return JsonFormatter(*args, schema="python-json-logger", **options)


def record(message: Any = "hello", *args: Any, **attributes: Any) -> logging.LogRecord:
    made = logging.LogRecord("app.web", logging.WARNING, "/srv/a.py", 7, message, args, None, "run")
    made.__dict__.update(attributes)
    return made


def read(made: logging.LogRecord, **options: Any) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(ours(**options).format(made))
    return line


def theirs_read(made: logging.LogRecord, **options: Any) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(Theirs(**options).format(made))
    return line


def raised(error: Exception) -> Any:
    try:
        raise error
    except type(error) as caught:
        return type(caught), caught, caught.__traceback__


OPTIONS: list[dict[str, Any]] = [
    {},
    {"fmt": "%(levelname)s %(name)s %(message)s %(lineno)d"},
    {"fmt": "{levelname}{message}", "style": "{"},
    {"fmt": "levelname,message,unknown", "style": ","},
    {"fmt": ["name", "message"]},
    {"timestamp": True},
    {"timestamp": "at", "rename_fields": {"at": "@timestamp"}},
    {"rename_fields": {"message": "msg", "lacking": "x"}, "rename_fields_keep_missing": True},
    {"static_fields": {"service": "web"}, "defaults": {"user": "nobody", "n": 0}},
    {"reserved_attrs": ["args", "msg", "created", "msecs", "relativeCreated", "process", "thread"]},
    {"json_ensure_ascii": False},
    {"json_indent": 2},
    {"prefix": "log: "},
    {"fmt": "%(asctime)s %(message)s", "datefmt": "%Y"},
]
PLAIN = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("abc é漢", max_size=8)
DATA = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=3), inner)
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "none")
@settings(max_examples=30)
@given(
    message=st.text("abc é漢", max_size=8) | st.dictionaries(st.text("xyz", max_size=3), PLAIN),
    data=DATA,
    n=PLAIN,
)
def test_a_line_is_the_same_but_for_what_is_secret(
    options: dict[str, Any], message: Any, data: Any, n: Any
) -> None:
    made = record(message, data=data, n=n)
    assert ours(**options).format(made) == Theirs(**options).format(made)


@pytest.mark.parametrize(
    ("name", "option"), [("exc_info", "exc_info_as_array"), ("stack_info", "stack_info_as_array")]
)
def test_exceptions_and_stacks_as_lists_of_lines(name: str, option: str) -> None:
    made = record(exc_info=raised(ValueError("boom")), stack_info="Stack:\n  here")
    assert read(made, **{option: True})[name] == json.loads(Theirs(**{option: True}).format(made))[name]
    assert read(made)[name] == "\n".join(read(made, **{option: True})[name])


def test_what_dictconfig_refers_to_is_looked_up() -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {
                    "()": "mks_hardening.logging.JsonFormatter",
                    "schema": "python-json-logger",
                    "static_fields": {"level": "ext://logging.WARNING"},
                    "json_default": "ext://builtins.repr",
                }
            },
            "handlers": {"out": {"class": "logging.NullHandler", "formatter": "json"}},
            "loggers": {"app.theirs": {"handlers": ["out"]}},
        }
    )
    (handler,) = logging.getLogger("app.theirs").handlers
    assert handler.formatter is not None
    line = json.loads(handler.formatter.format(record(odd=1j)))
    assert (line["level"], line["odd"]) == (30, "1j")


@pytest.mark.parametrize(
    "option",
    [
        {"timestamp": True},
        {"json_default": repr},
        {"json_indent": 2},
        {"json_ensure_ascii": False},
        {"exc_info_as_array": True},
    ],
    ids=lambda option: next(iter(option)),
)
@pytest.mark.parametrize("schema", ["default", "ecs", "gcp"])
def test_their_options_need_their_schema(option: dict[str, Any], schema: str) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        JsonFormatter(schema=schema, **option)


def test_an_unknown_option_is_refused_by_name() -> None:
    unknown: dict[str, Any] = {"json_indnt": 2}
    with pytest.raises(TypeError, match="unexpected keyword argument 'json_indnt'"):
        JsonFormatter(schema="python-json-logger", **unknown)


# --- what differs on purpose ------------------------------------------------------------------


def loop() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


def deep(frames: int) -> Any:
    def descend(left: int) -> None:
        if left:
            descend(left - 1)
        raise ValueError("deep")

    try:
        descend(frames)
    except ValueError as error:
        return type(error), error, error.__traceback__


def fails(value: object) -> object:
    raise TypeError(value)


class Named(NamedTuple):
    password: str


class Colour(Enum):
    RED = "red"


def test_the_function_for_unknown_values_is_asked_of_enumerations_too() -> None:
    options: dict[str, Any] = {"json_default": lambda value: f"<{value!r}>"}
    at = record(v=Colour.RED, w=[Colour.RED], x=HTTPStatus.OK)
    assert read(at, **options) == theirs_read(at, **options)
    assert read(at) == theirs_read(at)


def test_keys_are_written_as_json_does() -> None:
    at = record(v={None: 1, True: 2, False: 3, 4: 5, 1.5: 6, "a": 7})
    assert read(at) == theirs_read(at)


@pytest.mark.parametrize("as_array", [False, True])
def test_an_exception_that_is_none_is_told_as_there(as_array: bool) -> None:
    nothing, result = record(exc_info=(None, None, None)), record()
    result.exc_text = "cached\ntext"
    for at in (nothing, result):
        assert read(at, exc_info_as_array=as_array) == theirs_read(at, exc_info_as_array=as_array)


DIFFERENCES: dict[str, Callable[[], object]] = {
    "secrets": lambda: (
        read(record("token=hunter2x", password="p"))
        == {"message": "token=[REDACTED]", "password": "[REDACTED]"}
    ),
    "bytes that contain a secret": lambda: read(record(b=b"token=hunter2x"))["b"] == "token=[REDACTED]",
    "size": lambda: len(ours(max_record_bytes=2048).format(record("x" * 10_000, y=["y"] * 10_000))) <= 2048,
    "arguments that do not match": lambda: "arguments do not fit" in read(record("%d", "x"))["message"],
    "values that raise": lambda: (
        read(record(v=Broken(), w=1j), json_default=fails)["v"] == "__could_not_encode__"
    ),
    "circular structures": lambda: read(record(v=loop()))["v"] == ["…"],
    "NaN": lambda: read(record(v=float("nan")))["v"] == "nan",
    "sets": lambda: read(record(v={1}))["v"] == [1],
    "named tuples": lambda: read(record(v=Named("x")))["v"] == {"password": "[REDACTED]"},
    "mappings that are no": lambda: read(record(v=MappingProxyType({"a": 1})))["v"] == {"a": 1},
    "messages that are containers": lambda: (
        read(record(Named("x")))["message"] == "{'password': '[REDACTED]'}"
    ),
    "line separators": lambda: "\\u2028" in ours(json_ensure_ascii=False).format(record("a\u2028b")),
    "exceptions": lambda: "frames left out" in read(record(exc_info=deep(60)))["exc_info"],
    "bound context": lambda: _with_context()["request_id"] == "r-1",
}


def _with_context() -> dict[str, Any]:
    with bound(request_id="r-1"):
        return read(record())


@pytest.mark.parametrize("row", DIFFERENCES)
def test_what_differs_stands_in_the_table(row: str) -> None:
    assert DIFFERENCES[row]()
    rows = [
        line.split("|")[1] for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    assert len(rows) == len(DIFFERENCES) + 1
    assert any(cell.strip().startswith(row) for cell in rows)
