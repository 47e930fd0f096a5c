"""Hash slots of Redis Cluster, according to its specification."""

from __future__ import annotations

from binascii import crc_hqx
from typing import Final

__all__ = ["hash_slot"]

_SLOTS: Final = 16384


def hash_slot(key: str | bytes) -> int:
    """Return the hash slot of a key, computed from its hash tag if it has one."""
    raw = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    _, opened, rest = raw.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return crc_hqx(tag if opened and closed and tag else raw, 0) % _SLOTS
