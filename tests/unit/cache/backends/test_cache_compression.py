"""Compressed values: smaller in Redis, bounded on the way out, and never a reason for an error."""

from __future__ import annotations

import sys
import zlib
from importlib.util import find_spec
from typing import Any

import pytest
from fakeredis import FakeRedis

from mks_hardening.cache import RedisCache
from mks_hardening.cache.backends import _value_compression
from mks_hardening.exceptions import ConfigurationError

ROWS = [{"id": number, "title": "鉄筋の継手" * 20} for number in range(50)]
NAME = "mks:v:{=k}"
HAS_ZSTD = sys.version_info >= (3, 14) or bool(find_spec("backports") and find_spec("backports.zstd"))


@pytest.fixture(autouse=True, params=["zlib", "zstd"] if HAS_ZSTD else ["zlib"])
def compression(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "zlib":
        monkeypatch.setattr(_value_compression, "_zstd", lambda: None)
    return str(request.param)


@pytest.mark.parametrize("keys", [None, ["0123456789abcdef"]])
def test_large_values_are_smaller_and_come_back(keys: Any) -> None:
    server = FakeRedis()
    plain = RedisCache(server, store_budget=30, signing_keys=keys)
    small = RedisCache(server, store_budget=30, signing_keys=keys, compress_above=1000)
    plain.set("k", ROWS)
    size = server.strlen(NAME)
    small.set("k", ROWS)
    assert server.strlen(NAME) < size / 5
    assert small.get("k") == plain.get("k") == ROWS  # who does not compress reads it all the same


@pytest.mark.parametrize("value", ["short", bytes(range(256)), list(range(100))])
def test_what_would_not_become_smaller_is_stored_as_it_is(value: Any) -> None:
    server = FakeRedis()
    RedisCache(server, store_budget=30).set("k", value)
    size = server.strlen(NAME)
    cache = RedisCache(server, store_budget=30, compress_above=10)
    cache.set("k", value)
    assert server.strlen(NAME) <= size
    assert cache.get("k") == value


def _entry(server: FakeRedis, form: int, packed: bytes) -> None:
    """Replace the value of a stored entry, as someone could who can write to Redis."""
    cache = RedisCache(server, store_budget=30)
    cache.set("k", 1)
    stored: Any = server.get(NAME)
    server.set(
        NAME, bytes((stored[0], stored[1], form)) + stored[3:42] + packed
    )  # after times and generation


@pytest.mark.parametrize("what", ["bomb", "truncated", "appended", "damaged"])
def test_damaged_ones_and_bombs_are_misses(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mks_hardening.cache.backends import _stored_bytes

    monkeypatch.setattr(_stored_bytes, "LARGEST_VALUE", 100_000)
    server = FakeRedis()
    compressed = zlib.compress(b"\x01m\xa1a" if what != "bomb" else b"\x01m" + b"\x90" * 200_000)
    packed = {"truncated": compressed[:-1], "appended": compressed + b"x", "damaged": b"\x00" + compressed}
    _entry(server, 0x01, zlib.compress(b"\x01m\xa1a"))
    cache = RedisCache(server, store_budget=30)
    assert cache.get("k") == "a"
    _entry(server, 0x01, packed.get(what, compressed))
    before = cache.stats().misses
    assert cache.get("k", "absent") == "absent"
    assert cache.stats().misses == before + 1
    assert not server.exists(NAME)


def test_the_signature_covers_the_form() -> None:
    server = FakeRedis()
    cache = RedisCache(server, store_budget=30, signing_keys=["0123456789abcdef"], compress_above=0)
    cache.set("k", ROWS)
    stored: Any = server.get(NAME)
    for form in (0x80, 0x84, 0x81 ^ 0x04, 0x82 | 0x04):
        server.set(NAME, stored[:2] + bytes((form,)) + stored[3:])
        assert cache.get("k") is None
    server.set(NAME, stored)
    assert cache.get("k") == ROWS


@pytest.mark.parametrize("wrong", [-1, "1000", 1.5, True])
def test_impossible_sizes_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="compress_above"):
        RedisCache(FakeRedis(), store_budget=30, compress_above=wrong)
