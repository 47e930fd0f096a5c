from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import IntEnum
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening._core.codec import Codec, check_items, json_dumps, json_loads
from mks_hardening.exceptions import ConfigurationError, DecodeError, EncodeError
from testbed.ids import plain_repr

FORMS: list[Literal["msgpack", "json"]] = ["msgpack", "json"]

text = st.text(st.characters(exclude_categories=["Cs"]))
zones = st.sampled_from([None, UTC, timezone(timedelta(hours=9)), ZoneInfo("Asia/Tokyo")])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | text
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.times(timezones=st.sampled_from([None, UTC]))
    | st.timedeltas()
    | st.datetimes(min_value=datetime(1950, 1, 1), timezones=zones)  # noqa: DTZ001 - hypothesis wants naive
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(text | st.just("\x00"), inner)
        | st.dictionaries(st.integers() | st.tuples(st.integers(), text), inner)
        | st.frozensets(scalars)
        | st.sets(st.integers())
    ),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equal with equal types at every depth (1 is not True, 1 is not 1.0)."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(a, b) and same(left[a], right[b]) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, datetime):
        return left == right and left.fold == right.fold and str(left.tzinfo) == str(right.tzinfo)
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    return bool(left == right)


class Name(str):
    """As SQLAlchemy names columns."""

    __slots__ = ()


@pytest.mark.parametrize("form", FORMS)
def test_keys_that_are_text_of_another_class_are_text(form: Literal["msgpack", "json"]) -> None:
    codec = Codec(form=form)
    stored: dict[Any, int] = codec.decode(codec.encode({Name("id"): 1, 2: 3}))
    assert same(stored, {"id": 1, 2: 3})
    with pytest.raises(EncodeError):
        codec.encode([Name("id")])


@pytest.mark.parametrize("form", FORMS)
@given(value=values)
def test_what_goes_in_comes_out_with_its_types(form: Literal["msgpack", "json"], value: Any) -> None:
    codec = Codec(form=form, max_depth=60)
    assert same(codec.decode(codec.encode(value)), value)


@given(value=values)
def test_one_reader_understands_both_forms(value: Any) -> None:
    reader = Codec(max_depth=60)
    assert same(reader.decode(Codec(form="json", max_depth=60).encode(value)), value)


@given(data=st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        Codec().decode(data)
    except DecodeError:
        return


@pytest.mark.parametrize("form", FORMS)
@given(value=values, data=st.data())
def test_damaged_bytes_decode_or_are_refused(
    form: Literal["msgpack", "json"], value: Any, data: st.DataObject
) -> None:
    codec = Codec(form=form, max_depth=60)
    damaged = bytearray(codec.encode(value))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        codec.decode(bytes(damaged))
    except DecodeError:
        return


class Colour(IntEnum):
    RED = 1


class Zone(tzinfo):
    def utcoffset(self, dt: datetime | None, /) -> timedelta:
        return timedelta(hours=1)

    def dst(self, dt: datetime | None, /) -> timedelta:
        return timedelta(0)

    def tzname(self, dt: datetime | None, /) -> str:
        return "X"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "value",
    [
        object(),
        print,
        Colour.RED,
        OrderedDict(a=1),
        [{"a": {1: object()}}],
        "\ud800",
        {"\udfff": 1},
        datetime(2026, 1, 1, tzinfo=Zone()),
        time(1, tzinfo=Zone()),
        bytearray(b"x"),
    ],
    ids=plain_repr,
)
def test_what_is_not_data_is_refused(form: Literal["msgpack", "json"], value: object) -> None:
    with pytest.raises(EncodeError):
        Codec(form=form).encode(value)


@pytest.mark.parametrize("form", FORMS)
def test_limits_hold_both_ways(form: Literal["msgpack", "json"]) -> None:
    small = Codec(form=form, max_bytes=64, max_depth=3)
    large = Codec(form=form)
    deep: list[Any] = []
    for _ in range(10):
        deep = [deep]
    assert small.decode(small.encode([[[1]]])) == [[[1]]]
    for value in ("x" * 64, deep):
        with pytest.raises(EncodeError):
            small.encode(value)
        with pytest.raises(DecodeError):
            small.decode(large.encode(value))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    ("most", "more"),
    [
        ([None] * 40, [None] * 41),
        ([1.5] * 40, [1.5] * 41),
        ([[]] * 40, [[]] * 41),
        ([[0] * 19, [0] * 19], [[0] * 19, [0] * 20]),
        ({str(n): n for n in range(40)}, {str(n): n for n in range(41)}),
        ({n: n for n in range(12)}, {n: n for n in range(13)}),  # in the pairs of a tagged mapping
        ({"a": (1,) * 36, "b": 1}, {"a": (1,) * 37, "b": 1}),
        (set(range(38)), set(range(39))),
        ([Decimal(1)] * 13, [Decimal(1)] * 14),
    ],
    ids=plain_repr,
)
def test_as_many_items_both_ways(
    form: Literal["msgpack", "json"], most: Any, more: Any, trusted: bool
) -> None:
    small, large = Codec(form=form, max_items=40), Codec(form=form)
    assert same(small.decode(small.encode(most), trusted=trusted), most)
    with pytest.raises(EncodeError, match="too many items"):
        small.encode(more)
    with pytest.raises(DecodeError, match="too many items"):
        small.decode(large.encode(more), trusted=trusted)


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("count", [1 << 21, (1 << 21) + 1])
def test_two_million_items_are_not_refused_and_more_are(count: int, trusted: bool) -> None:
    codec, data = Codec(max_bytes=1 << 24), b"\x01m\xdd" + count.to_bytes(4, "big") + b"\xc0" * count
    if count == 1 << 21:
        assert len(codec.decode(data, trusted=trusted)) == count
    else:
        with pytest.raises(DecodeError, match="too many items"):
            codec.decode(data, trusted=trusted)


@pytest.mark.parametrize("tag", ["tuple", "set", "frozenset"])
@pytest.mark.parametrize("inner", ["abc", b"abc", {"a": 1}])
def test_items_of_a_text_are_no_container(tag: str, inner: object) -> None:
    import msgspec

    with pytest.raises(DecodeError, match="damaged value"):
        Codec().decode(b"\x01m" + msgspec.msgpack.encode({"\x00": tag, "v": inner}))


def test_bombs_are_refused_without_a_crash() -> None:
    codec = Codec()
    with pytest.raises(DecodeError):
        codec.decode(b"\x01m" + b"\x91" * 100_000)
    with pytest.raises(DecodeError):
        codec.decode(b"\x01j" + b"[" * 100_000)
    with pytest.raises(DecodeError):
        codec.decode(b"\x01m\xdd\xff\xff\xff\xff")


def test_newer_versions_are_told_apart_from_damage() -> None:
    for data, newer in ((b"\x02m\xc0", True), (b"\x00m\xc0", False), (b"\x01?\xc0", False), (b"", False)):
        with pytest.raises(DecodeError) as caught:
            Codec().decode(data)
        assert caught.value.newer is newer


def test_a_pickle_is_just_bytes_that_do_not_decode() -> None:
    with pytest.raises(DecodeError):
        Codec().decode(pickle.dumps({"a": 1}))


@pytest.mark.parametrize(
    "document",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        '{"a":1,"a":2}',
        "[" * 50 + "]" * 50,
        "",
        "{",
        "\x00",
        '"\x00"',
    ],
)
def test_strict_json_refuses(document: str) -> None:
    with pytest.raises(DecodeError):
        json_loads(document)


def test_json_refuses_bad_utf8_and_size() -> None:
    with pytest.raises(DecodeError):
        json_loads(b'"\xff"')
    with pytest.raises(DecodeError):
        json_loads("1" * 100, max_bytes=99)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | text,
        lambda inner: st.lists(inner) | st.dictionaries(text, inner),
        max_leaves=10,
    )
)
def test_json_dumps_is_json(value: object) -> None:
    assert json.loads(json_dumps(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()], ids=plain_repr)
def test_json_dumps_refuses(value: object) -> None:
    with pytest.raises(EncodeError):
        json_dumps(value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"form": "pickle"},
        {"max_bytes": 1},
        {"max_depth": 0},
        {"max_depth": 101},
        {"max_items": 0},
    ],
)
def test_wrong_parameters(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Codec(**wrong)


def test_readable_without_msgspec(monkeypatch: pytest.MonkeyPatch) -> None:
    from mks_hardening._core import codec as module

    packed = Codec(form="msgpack").encode([1])
    monkeypatch.setattr(module, "_msgpack", lambda: None)
    assert Codec().encode([1])[1:2] == b"j"
    with pytest.raises(DecodeError) as caught:
        Codec().decode(packed)
    assert caught.value.newer


def test_types_survive_next_to_each_other() -> None:
    value = {"t": (1, {2}), "d": date(2026, 4, 1), "u": UUID(int=7), "n": Decimal("1.10"), "b": b"\x00"}
    assert same(Codec().decode(Codec().encode(value)), value)


@pytest.mark.parametrize(("levels", "fits"), [(32, True), (33, False)])
def test_as_many_levels_are_decoded_as_are_encoded(levels: int, fits: bool) -> None:
    data = b"\x01m" + b"\x91" * levels + b"\x01"
    if fits:
        assert Codec().encode(Codec().decode(data)) == data
    else:
        with pytest.raises(DecodeError, match="nested too deeply"):
            Codec().decode(data)


DEEP_KEY = b"\x81" + b"\x91" * 34 + b"\x01\x01"  # MessagePack allows keys of any type; arrays become tuples


@pytest.mark.parametrize("body", [b"\x81\x01\x01", b"\x81\xc0\x01", b"\x91\x81\xc4\x01a\x01", DEEP_KEY])
def test_plain_mappings_with_keys_that_are_not_text_are_refused(body: bytes) -> None:
    """``encode`` writes them with a tag; read as they are, they would not fit when they are written again."""
    with pytest.raises(DecodeError, match="not text"):
        Codec().decode(b"\x01m" + body)


def test_containers_in_keys_are_counted() -> None:
    many = b"\x81\xdd" + (3_000_000).to_bytes(4, "big") + b"\x01" * 3_000_000 + b"\x01"
    with pytest.raises(DecodeError, match="too many items"):
        check_items(many, form="msgpack")
    with pytest.raises(DecodeError, match="nested too deeply"):
        check_items(b"\x81" + b"\x91" * 150 + b"\x01\x01", form="msgpack")
    check_items(b"\x81\x92\x01\x02\x01", form="msgpack")


@pytest.mark.parametrize(
    ("form", "inner"), [("msgpack", 2**70), ("json", 2**70), ("json", float("inf")), ("json", b"a")]
)
def test_the_deepest_level_may_hold_what_needs_a_tag(form: Any, inner: object) -> None:
    value = inner
    for _ in range(32):
        value = [value]
    codec = Codec(form=form)
    assert codec.decode(codec.encode(value)) == value
