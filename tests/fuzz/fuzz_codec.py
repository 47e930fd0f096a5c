"""Stored bytes: any input is a value or a DecodeError."""

from __future__ import annotations

from mks_hardening._core.codec import Codec, json_loads
from mks_hardening.exceptions import DecodeError

CODEC = Codec(max_bytes=4096, max_items=1024)


def one_input(data: bytes) -> None:
    """Decode; what decodes must encode and decode to the same again."""
    for head in (b"", b"\x01m", b"\x01j"):
        try:
            value = CODEC.decode(head + data)
        except DecodeError:
            continue
        again = CODEC.decode(CODEC.encode(value))
        assert repr(again) == repr(value)
    try:
        json_loads(data)
    except DecodeError:
        return
