"""Properties of keys, stored bytes, patterns and HTTP fields."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening._core.canonical_text import canonical
from mks_hardening._core.codec import Codec
from mks_hardening.cache import MemoryCache, cached
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache._entry_options import jittered
from mks_hardening.cache.backends._key_glob import glob_pattern
from mks_hardening.cache.backends._redis_store import RedisKeys
from mks_hardening.cache.backends._stored_bytes import Envelope
from mks_hardening.exceptions import DecodeError

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(UTC)),
    st.timedeltas(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=4), inner, max_size=4),
    ),
    max_leaves=8,
)


def _shape(value: Any) -> Any:
    """The value with the type of every part: what two keys must agree on."""
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [_shape(part) for part in value])
    if isinstance(value, dict):
        return ("dict", sorted((name, repr(_shape(part))) for name, part in value.items()))
    return (type(value).__name__, repr(value))


@given(one=VALUES, other=VALUES)
def test_keys_are_equal_exactly_for_the_same_values_of_the_same_types(one: Any, other: Any) -> None:
    assert (canonical((one,)) == canonical((other,))) == (_shape(one) == _shape(other))


@given(values=st.lists(VALUES, max_size=4), others=st.lists(VALUES, max_size=4))
def test_arguments_cannot_shift_into_each_other(values: list[Any], others: list[Any]) -> None:
    same = [_shape(value) for value in values] == [_shape(other) for other in others]
    assert (canonical(tuple(values)) == canonical(tuple(others))) == same


@given(items=st.dictionaries(st.text(max_size=4), SCALARS, max_size=6), seed=st.randoms())
def test_the_order_of_a_mapping_does_not_matter(items: dict[str, Any], seed: Any) -> None:
    shuffled = list(items.items())
    seed.shuffle(shuffled)
    assert canonical((items,)) == canonical((dict(shuffled),))


@given(a=st.integers(), b=st.text(max_size=5), c=st.booleans())
def test_however_a_call_is_spelled_it_has_one_key(a: int, b: str, c: bool) -> None:
    @cached(cache=MemoryCache(), key_prefix="f")
    def function(a: int, b: str = "x", *, c: bool = False) -> None:
        """Take three."""

    keys = {
        function.cache_key(a, b, c=c),
        function.cache_key(a, b=b, c=c),
        function.cache_key(c=c, b=b, a=a),
    }
    assert len(keys) == 1
    assert function.cache_key(a) == function.cache_key(a, "x", c=False)


# --- stored bytes ----------------------------------------------------------------------------

ENTRIES = st.builds(
    lambda value, fresh, end, tags: CacheEntry(value, fresh_until=fresh, expires_at=end, tags=tags),
    VALUES.filter(lambda value: "\\ud" not in ascii(value)),
    st.floats(0, 1e10),
    st.floats(0, 1e10),
    st.dictionaries(st.text("abc:", min_size=1, max_size=4), st.binary(min_size=8, max_size=8), max_size=3),
)
SIGNED = Envelope(namespace="n", signing_keys=["0123456789abcdef"])
PLAIN = Envelope(namespace="n", signing_keys=None)


@given(entry=ENTRIES, envelope=st.sampled_from([SIGNED, PLAIN]))
def test_an_entry_comes_back_as_it_was(entry: CacheEntry, envelope: Envelope) -> None:
    opened = envelope.open("k", envelope.seal("k", entry))
    assert _shape(opened.value) == _shape(entry.value)
    assert (opened.fresh_until, opened.expires_at, opened.tags) == (
        entry.fresh_until,
        entry.expires_at,
        entry.tags,
    )


@given(entry=ENTRIES, position=st.integers(0, 10_000), change=st.integers(1, 255))
def test_no_byte_of_a_signed_entry_can_be_changed(entry: CacheEntry, position: int, change: int) -> None:
    data = bytearray(SIGNED.seal("k", entry))
    data[position % len(data)] ^= change
    with pytest.raises(DecodeError):
        SIGNED.open("k", bytes(data))


@given(key=st.text(max_size=10), other=st.text(max_size=10))
def test_a_signed_entry_belongs_to_its_key_and_namespace(key: str, other: str) -> None:
    data = SIGNED.seal(key, CacheEntry(1, fresh_until=2.0, expires_at=3.0, tags={}))
    foreign = Envelope(namespace="m", signing_keys=["0123456789abcdef"])
    with pytest.raises(DecodeError):
        foreign.open(key, data)
    if other != key:
        with pytest.raises(DecodeError):
            SIGNED.open(other, data)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_refused(data: bytes) -> None:
    for envelope in (SIGNED, PLAIN):
        try:
            entry = envelope.open("k", data)
        except DecodeError:
            continue
        assert envelope is PLAIN
        assert isinstance(entry.fresh_until, float)


TAGGED = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=6) | st.binary(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.builds(
            lambda tag, value: {"\0": tag, "v": value},
            st.sampled_from(
                [*["tuple", "set", "frozenset", "dict", "int", "float", "bytes", "datetime", "date", "time"]]
            )
            | st.sampled_from(["timedelta", "Decimal", "UUID", "unknown"]),
            inner,
        )
    ),
    max_leaves=6,
)


@given(planted=TAGGED)
def test_whatever_is_planted_is_a_value_or_refused(planted: Any) -> None:
    import msgspec

    with contextlib.suppress(DecodeError):
        Codec().decode(b"\x01m" + msgspec.msgpack.encode(planted))


@given(one=st.text(min_size=1, max_size=6), other=st.text(min_size=1, max_size=6), data=st.data())
def test_names_differ_where_keys_kinds_or_namespaces_do(one: str, other: str, data: Any) -> None:
    spaces = st.sampled_from(["a", "a:v", "a:t", "a:t:v", "b"])
    first, second = data.draw(spaces), data.draw(spaces)
    kinds = ("value", "lease", "tag")
    names = {
        getattr(RedisKeys(space), kind)(key)
        for space, key in ((first, one), (second, other))
        for kind in kinds
    }
    assert len(names) == (3 if (first, one) == (second, other) else 6)


@given(key=st.text(st.sampled_from("{}=a:"), min_size=1, max_size=6))
def test_value_and_lease_of_a_key_have_one_hash_tag(key: str) -> None:
    def hash_tag(name: bytes) -> bytes:
        inside, closed, _ = name.partition(b"{")[2].partition(b"}")
        assert (closed, bool(inside)) == (b"}", True)  # an empty one would count as none
        return inside

    names = RedisKeys("mks")
    assert hash_tag(names.value(key)) == hash_tag(names.lease(key))


# --- patterns and durations ------------------------------------------------------------------


@given(text=st.text(max_size=12))
def test_an_escaped_text_matches_itself_only(text: str) -> None:
    pattern = glob_pattern("".join(f"\\{character}" for character in text))
    assert pattern.fullmatch(text)
    assert not pattern.fullmatch(text + "x")


@given(pattern=st.text(alphabet="ab*?[]^-\\", max_size=10), text=st.text(alphabet="ab-]^", max_size=6))
def test_any_pattern_can_be_used(pattern: str, text: str) -> None:
    assert isinstance(glob_pattern(pattern), re.Pattern)
    glob_pattern(pattern).fullmatch(text)


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [("[]", "", False), ("[]", "a", False), ("a[]b", "ab", False), ("[^]", "a", True), ("[^]", "", False)],
)
def test_an_empty_set_is_nothing_and_its_opposite_any_character(
    pattern: str, text: str, matches: bool
) -> None:
    assert bool(glob_pattern(pattern).fullmatch(text)) is matches


@given(before=st.text("abc", max_size=4), after=st.text("abc", max_size=4))
def test_a_star_is_anything(before: str, after: str) -> None:
    assert glob_pattern(f"{before}*{after}").fullmatch(f"{before}\nb{after}")


@given(ttl=st.floats(0.001, 1e6), share=st.floats(0, 0.1))
def test_jitter_never_prolongs(ttl: float, share: float) -> None:
    assert ttl * 0.899 <= jittered(ttl, share) <= ttl


MOMENTS: list[Any] = [date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), timedelta(1), Decimal("1.10")]


def test_memory_keeps_moments_and_decimals_as_they_are() -> None:
    cache = MemoryCache()
    for number, value in enumerate(MOMENTS):
        cache.set(f"k{number}", value)
        assert _shape(cache.get(f"k{number}")) == _shape(value)
