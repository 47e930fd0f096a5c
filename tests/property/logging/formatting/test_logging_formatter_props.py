"""Any record gives one safe line, and the quick way says what the careful one says."""

from __future__ import annotations

import json
import logging
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from mks_hardening._core.exception_text import describe_exception
from mks_hardening._core.redaction.plain_data import Bounds, to_plain
from mks_hardening.logging import JsonFormatter, bound

ANY_TEXT = st.text(alphabet=st.characters(), max_size=30)
NAMES = st.text(alphabet=st.characters(), min_size=1, max_size=12) | st.sampled_from(
    ["level", "extra_level", "timestamp", "password", "request_id", "message", "exception", "duration_ms"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**80), max_value=2**80)
    | st.floats(allow_nan=True, allow_infinity=True)
    | ANY_TEXT
    | st.binary(max_size=10)
    | st.datetimes()
    | st.decimals()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(ANY_TEXT | st.integers() | st.none(), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)
PLAIN = st.dictionaries(
    st.text(alphabet="abcdefgh_", min_size=1, max_size=8).filter(lambda name: name not in {"args", "msg"}),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    max_size=5,
)


class Careful(JsonFormatter):
    """Overrides a hook, so that every record takes the careful way."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return log_data


QUICK, CAREFUL = JsonFormatter(static_fields={"service": "s"}), Careful(static_fields={"service": "s"})


def make(message: Any, args: tuple[Any, ...], extra: dict[str, Any]) -> logging.LogRecord:
    record = logging.LogRecord("app", 20, "/x.py", 1, message, args, None)
    record.created = 1_700_000_000.5
    record.__dict__.update({name: value for name, value in extra.items() if name not in record.__dict__})
    return record


def refuse(name: str) -> Any:
    raise AssertionError(name)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


@given(
    message=ANY_TEXT | VALUES,
    args=st.lists(VALUES, max_size=3),
    extra=st.dictionaries(NAMES, VALUES, max_size=5),
)
@example(message="%s", args=["\ud800"], extra={"a\x7f": "\u2028"})
def test_any_record_is_one_strict_line(message: Any, args: list[Any], extra: dict[str, Any]) -> None:
    for formatter in (QUICK, CAREFUL):
        line = formatter.format(make(message, tuple(args), extra))
        assert len(line.splitlines()) == 1
        assert line.isprintable() or not line.isascii()
        decoded = json.loads(line, parse_constant=refuse, object_pairs_hook=unique)
        assert (decoded["timestamp"], decoded["level"]) == ("2023-11-14T22:13:20.500Z", "INFO")


@given(message=st.text(max_size=40), extra=PLAIN, context=PLAIN)
@example(message="x", extra={"a": 1}, context={"a": 1})
@example(message="x", extra={"a": 1}, context={"a": True})
@example(message="password=hunter2", extra={"a": 4111111111111111}, context={})
def test_both_ways_say_the_same(message: str, extra: dict[str, Any], context: dict[str, Any]) -> None:
    record = make(message, (), extra)
    with bound(**context):
        assert json.loads(QUICK.format(record)) == json.loads(CAREFUL.format(record))


#: Names and values that are secret only beside each other, in any spelling, or only when JSON escapes nothing.
PARTS = st.sampled_from([
    "to_ken", "p-a-s-s-w-d", "ｔｏｋｅｎ", "パスワード", "auth", "name", "value", "k", "loc", "id", "path", "op",
    "type", "--to_ken", "--x", "hunter2", "services\\/T0001/B0001/x", 'value "9" is out of range', "4111 1111 ",
    "pass", "://a:b@c", "é", "\x7f", "\u2028", "\ud800",
])  # fmt: skip
CELLS = (
    PARTS | st.none() | st.booleans() | st.sampled_from([7, 4111111111111111, 2**70, 1.5, float("nan"), b"x"])
)
NESTED = st.recursive(
    CELLS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(PARTS | st.integers(0, 3), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@given(extra=st.dictionaries(st.sampled_from(["user", "body", "to_ken"]), NESTED, max_size=2))
@example(extra={"body": {}})
@example(extra={"body": ["to_ken", "hunter2"]})
@example(extra={"body": {"name": "to_ken", "value": "hunter2"}})
@example(extra={"body": ["run", "--to_ken", "hunter2"]})
def test_structures_are_redacted_alike_both_ways(extra: dict[str, Any]) -> None:
    record = make("x", (), extra)
    assert json.loads(QUICK.format(record)) == json.loads(CAREFUL.format(record))


@given(
    st.dictionaries(st.text(alphabet="abc", min_size=1, max_size=3), st.integers(max_value=10**9), max_size=6)
)
def test_no_extra_is_lost_and_no_canonical_field_changes(extra: dict[str, int]) -> None:
    static = {"a": "s", "b": "t", "ab": "u"}
    decoded = json.loads(JsonFormatter(static_fields=static).format(make("m", (), extra)))
    assert {name: decoded[name] for name in static} == static
    shown = {name: decoded.get(f"extra_{name}" if name in static else name) for name in extra}
    assert shown == extra


@given(VALUES, st.integers(min_value=1, max_value=20), st.integers(min_value=1, max_value=5))
def test_plain_data_is_bounded(value: Any, characters: int, members: int) -> None:
    bounds = Bounds(characters, members, 4)

    def check(plain: Any, depth: int) -> None:
        assert depth <= 5
        if isinstance(plain, str):
            assert len(plain) <= max(characters, 65)
        elif isinstance(plain, dict):
            assert len(plain) <= members + 1
            for member in plain.values():
                check(member, depth + 1)
        elif isinstance(plain, (list, tuple)):
            assert len(plain) <= members + 1
            for member in plain:
                check(member, depth + 1)
        else:
            assert plain is None or type(plain) in (bool, int, float)

    check(to_plain(value, bounds), 0)


@given(
    st.integers(min_value=1024, max_value=4096), st.integers(min_value=0, max_value=60), st.integers(0, 3000)
)
def test_no_record_is_larger_than_allowed(limit: int, extras: int, length: int) -> None:
    record = make("あ" * length, (), {f"e{number}": "é" * length for number in range(extras)})
    line = JsonFormatter(max_record_bytes=limit).format(record)
    assert len(line.encode()) <= limit
    json.loads(line)


@st.composite
def exceptions(draw: st.DrawFn, depth: int = 3) -> BaseException:
    message = draw(ANY_TEXT)
    if depth and draw(st.booleans()):
        members = [draw(exceptions(depth=0)) for _ in range(draw(st.integers(1, 2)))]
        error: BaseException = BaseExceptionGroup(message, members)
    else:
        error = draw(st.sampled_from([ValueError, KeyError, OSError, KeyboardInterrupt]))(message)
    if depth and draw(st.booleans()):
        error.__cause__ = draw(exceptions(depth=depth - 1))
    if depth and draw(st.booleans()):
        error.__context__ = draw(exceptions(depth=depth - 1))
    for note in draw(st.lists(ANY_TEXT, max_size=2)):
        error.add_note(note)
    return error


@given(exceptions(), st.integers(min_value=64, max_value=2000))
def test_descriptions_are_bounded_and_plain(error: BaseException, limit: int) -> None:
    structure, text = describe_exception(error, max_chars=limit)
    assert len(text) <= limit
    assert structure["type"].endswith(type(error).__qualname__)
    assert to_plain(structure, Bounds()) is not structure
    json.dumps(structure)
