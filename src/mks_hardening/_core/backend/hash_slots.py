"""Hash slots of Redis Cluster, according to its specification."""

from __future__ import annotations

from binascii import crc_hqx
from functools import cache
from itertools import product
from typing import Final

__all__ = ["hash_slot", "hash_tags"]

_SLOTS: Final = 16384
_LETTERS: Final = "@ABCDEFGHIJKLMNO"


def hash_slot(key: str | bytes) -> int:
    """Return the hash slot of a key, computed from its hash tag if it has one."""
    raw = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    _, opened, rest = raw.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return crc_hqx(tag if opened and closed and tag else raw, 0) % _SLOTS


@cache
def hash_tags() -> tuple[str, ...]:
    """Return one hash tag per slot, indexed by slot number; computed once, in about 5 ms.

    CRC16 is linear: four letters that differ in their low bits give 16384 tags that cover every slot exactly once.
    """
    tags = [""] * _SLOTS
    for letters in product(_LETTERS[:4], _LETTERS, _LETTERS, _LETTERS):
        tag = "".join(letters)
        tags[hash_slot(tag)] = tag
    return tuple(tags)
