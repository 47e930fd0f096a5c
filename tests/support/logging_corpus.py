"""Difficult log records as data, and the requirements for the line that a formatter writes for them.

Run it against another formatter:

    python tests/support/logging_corpus.py pythonjsonlogger.orjson:OrjsonFormatter

A case has ``message``, ``args``, ``extra``, ``exc`` and ``record`` (attributes of the finished record), and what to
expect: ``absent`` and ``present`` texts, and ``fields`` (decoded values of the top level). For every case the line
must be one line, strict JSON, an object with no key twice, bounded, and free of characters that control a terminal.
Values that JSON cannot say are written ``{"$": name, ...}``; see ``BUILDERS``.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import importlib
import json
import logging
import pathlib
import sys
import types
import uuid
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

CORPUS = pathlib.Path(__file__).parents[1] / "corpus" / "logging" / "records.jsonl"
MAX_BYTES = 65_536
Case = dict[str, Any]


class BadStr:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class BadRepr:
    def __repr__(self) -> str:
        raise KeyError("no repr")


class ExitStr:
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - the fault is the point

    __repr__ = __str__


class BadMapping(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class Colour(enum.Enum):
    RED = "red"


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")


@dataclass
class Account:
    name: str
    password: str


Pair = namedtuple("Pair", ["user", "password"])  # noqa: PYI024 - the untyped kind is the common one


class Shown:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _cycle_dict() -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1}
    value["self"] = value
    return value


def _cycle_list() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"end": 1}
    for _ in range(levels):
        value = {"d": value}
    return value


def _error(spec: dict[str, Any]) -> BaseException:
    kinds: dict[str, type[BaseException]] = {
        name: getattr(__import__("builtins"), name)
        for name in ("ValueError", "KeyError", "RuntimeError", "KeyboardInterrupt", "SystemExit", "OSError")
    }
    if "group" in spec:
        members = [_error(member) for member in spec["group"]]
        error: BaseException = BaseExceptionGroup(spec.get("message", "group"), members)
    else:
        error = kinds[spec.get("type", "ValueError")](build(spec.get("message", "boom")))
    for note in spec.get("notes", ()):
        error.add_note(note)
    if "raw_notes" in spec:
        error.__notes__ = build(spec["raw_notes"])
    if "cause" in spec:
        error.__cause__ = _error(spec["cause"])
    if "context" in spec:
        error.__context__ = _error(spec["context"])
    if spec.get("suppress"):
        error.__suppress_context__ = True
    if spec.get("cycle"):
        other = RuntimeError("other")
        error.__cause__, other.__cause__ = other, error
    frames = spec.get("frames", 1)

    def descend(depth: int) -> None:
        if depth > 1:
            descend(depth - 1)
        raise error

    if not spec.get("unraised"):
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, frames * 3 + 500))
        try:
            descend(frames)
        except BaseException as caught:  # noqa: BLE001
            return caught
        finally:
            sys.setrecursionlimit(limit)
    return error


BUILDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nan": lambda spec: float("nan"),
    "inf": lambda spec: float("inf"),
    "-inf": lambda spec: float("-inf"),
    "int": lambda spec: 10 ** spec["power"] + spec.get("plus", 0),
    "repeat": lambda spec: spec["text"] * spec["times"],
    "surrogate": lambda spec: spec["text"].replace("?", "\ud800"),
    "cycle_dict": lambda spec: _cycle_dict(),
    "cycle_list": lambda spec: _cycle_list(),
    "deep": lambda spec: _deep(spec["levels"]),
    "wide_list": lambda spec: list(range(spec["size"])),
    "wide_dict": lambda spec: {f"k{number}": number for number in range(spec["size"])},
    "bad_str": lambda spec: BadStr(),
    "bad_repr": lambda spec: BadRepr(),
    "exit_str": lambda spec: ExitStr(),
    "bad_mapping": lambda spec: BadMapping(a=1),
    "loud": lambda spec: Loud("text"),
    "shown": lambda spec: Shown(spec["text"]),
    "bytes": lambda spec: bytes.fromhex(spec["hex"]),
    "bytes_text": lambda spec: spec["text"].encode(),
    "bytearray": lambda spec: bytearray(spec["text"].encode()),
    "memoryview": lambda spec: memoryview(spec["text"].encode()),
    "set": lambda spec: set(build(spec["of"])),
    "frozenset": lambda spec: frozenset(build(spec["of"])),
    "tuple": lambda spec: tuple(build(spec["of"])),
    "ordered": lambda spec: OrderedDict(build(spec["of"])),
    "proxy": lambda spec: types.MappingProxyType(build(spec["of"])),
    "keyed": lambda spec: {build(key): build(value) for key, value in spec["pairs"]},
    "datetime": lambda spec: dt.datetime.fromisoformat(spec["text"]),
    "date": lambda spec: dt.date.fromisoformat(spec["text"]),
    "timedelta": lambda spec: dt.timedelta(seconds=spec["seconds"]),
    "uuid": lambda spec: uuid.UUID(spec["text"]),
    "decimal": lambda spec: decimal.Decimal(spec["text"]),
    "path": lambda spec: pathlib.PurePosixPath(spec["text"]),
    "enum": lambda spec: Colour.RED,
    "complex": lambda spec: complex(1, 2),
    "dataclass": lambda spec: Account(spec["name"], spec["password"]),
    "namedtuple": lambda spec: Pair(spec["user"], spec["password"]),
    "generator": lambda spec: (number for number in range(3)),
    "function": lambda spec: build,
    "class": lambda spec: Account,
    "error": _error,
}


def build(value: Any) -> Any:
    """Return the Python value of a part of the corpus."""
    if isinstance(value, dict):
        if "$" in value:
            return BUILDERS[value["$"]](value)
        return {key: build(member) for key, member in value.items()}
    return [build(member) for member in value] if isinstance(value, list) else value


def load() -> list[Case]:
    """Return all cases."""
    return [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


def record_of(case: Case) -> logging.LogRecord:
    """Return the record of a case, created as by ``Logger.info``."""
    args = build(case.get("args", []))
    args = (args,) if isinstance(args, dict) else tuple(args)
    exc = case.get("exc")
    error = _error(exc) if exc is not None else None
    info = (type(error), error, error.__traceback__) if error is not None else build(case.get("exc_info"))
    record = logging.LogRecord(
        case.get("logger", "app"), case.get("level", 20), "/app/x.py", 7, build(case["message"]), args, info
    )
    for name, value in case.get("extra", {}).items():
        record.__dict__[build({"$": "surrogate", "text": name}) if "?" in name else name] = build(value)
    for name, spec in case.get("long_extra", {}).items():
        record.__dict__.update({name * spec["repeat"]: spec["value"]})
    for number in range(case.get("many_extras", 0)):
        record.__dict__[f"extra{number}"] = number
    for name, value in case.get("record", {}).items():
        setattr(record, name, build(value))
    return record


def leaves(value: Any) -> Iterator[Any]:
    """Yield all keys and scalar values of decoded JSON."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield key
            yield from leaves(member)
    elif isinstance(value, list):
        for member in value:
            yield from leaves(member)
    else:
        yield value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def faults(case: Case, formatter: logging.Formatter) -> list[str]:
    """Return the errors in the formatter's line for the case."""
    record = record_of(case)
    before = type(record.args)
    try:
        line = formatter.format(record)
    except Exception as error:  # noqa: BLE001
        return [f"raises {type(error).__name__}: the record is lost"]
    found = []
    if not isinstance(line, str) or len(line.splitlines()) != 1:
        found.append("is not one line")
    if any(
        ord(char) < 32 or 0x7F <= ord(char) <= 0x9F or char in "\u061c\u200e\u200f\u2028\u2029"
        for char in line
    ):
        found.append("holds control characters")
    if any("\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069" for char in line):
        found.append("changes the reading order")
    if len(line.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        found.append("is too large")
    try:
        line.encode()
        decoded = json.loads(line, parse_constant=_refuse, object_pairs_hook=_unique)
    except ValueError as error:
        return [*found, f"is not strict JSON: {error}"]
    if not isinstance(decoded, dict):
        return [*found, "is not an object"]
    everything = [str(leaf) for leaf in leaves(decoded)]
    found += [
        f"shows {text!r}" for text in case.get("absent", ()) if text in line or _hidden(text, everything)
    ]
    found += [f"lacks {text!r}" for text in case.get("present", ()) if not _hidden(text, everything)]
    for name, value in case.get("fields", {}).items():
        if decoded.get(name) != build(value):
            found.append(f"{name} is {str(decoded.get(name))[:80]!r}")
    if type(record.args) is not before:
        found.append("changes the record")
    return found


def _hidden(text: str, everything: list[str]) -> bool:
    return any(text in leaf for leaf in everything)


def main() -> None:
    """Run the corpus with the formatter named on the command line."""
    module, _, name = (sys.argv[1] if len(sys.argv) > 1 else "mks_hardening.logging:JsonFormatter").partition(
        ":"
    )
    formatter = getattr(importlib.import_module(module), name)()
    cases = load()
    wrong = {case["id"]: found for case in cases if (found := faults(case, formatter))}
    for identity, found in wrong.items():
        print(f"{identity}: {'; '.join(found)[:200]}")  # noqa: T201
    print(f"{len(cases) - len(wrong)} of {len(cases)} pass")  # noqa: T201


if __name__ == "__main__":
    main()
