"""Encode pairs of group and key as storage keys: unambiguous and of bounded length."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from mks_hardening.exceptions import ConfigurationError

__all__ = ["LONGEST_KEY", "bounded_key", "encode_group", "encode_key", "needs_encoding"]

LONGEST_KEY: Final = 256
_HEAD: Final = 200

# The group ends at the first colon, the hash tag at the first closing brace; lone surrogates cannot be encoded as
# UTF-8.
_IN_GROUP: Final = re.compile("[%:{}\ud800-\udfff]")
_IN_KEY: Final = re.compile("[%}\ud800-\udfff]")

needs_encoding: Final = _IN_KEY.search
"""Whether ``encode_key`` changes a key; hardly any key needs it."""


def bounded_key(key: object) -> str:
    """Return the key, or for a long one its first 200 characters and a digest: keys come from clients.

    The shortened form of a key is longer than any key that is stored unchanged, so the two cannot collide.

    Raises:
        ConfigurationError: the key is not a string.
    """
    if not isinstance(key, str):
        raise ConfigurationError(f"key must be a str, not {type(key).__name__}", parameter="key")
    if len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{key[:_HEAD]}#{digest}"


def encode_group(group: str) -> str:
    """Encode a group as the first part of a hash tag, ``{group:key}``.

    Whatever characters group and key contain, no two pairs share a hash tag, and all Redis keys of a pair lie in
    one cluster slot.
    """
    return _IN_GROUP.sub(_percent, group)


def encode_key(key: str) -> str:
    """Encode a key as the second part of the hash tag."""
    return _IN_KEY.sub(_percent, key)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
