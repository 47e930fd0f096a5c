"""Where a key of a group is counted: one place for each pair, of bounded length."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from mks_hardening.exceptions import ConfigurationError

__all__ = ["LONGEST_KEY", "bounded_key", "group_in_place", "in_place"]

LONGEST_KEY: Final = 256
_HEAD: Final = 200

# The group ends at the first colon, the hash tag at the first closing brace; lone surrogates are no UTF-8.
_IN_GROUP: Final = re.compile("[%:{}\ud800-\udfff]")
_IN_KEY: Final = re.compile("[%}\ud800-\udfff]")


def bounded_key(key: object) -> str:
    """The key as it is kept: keys come from clients, so a long one is kept as its beginning and a digest.

    The result for a long key is itself longer than any key that is kept as it is: the two never meet.

    Raises:
        ConfigurationError: this is not a text.
    """
    if not isinstance(key, str):
        raise ConfigurationError(f"key must be a str, not {type(key).__name__}", parameter="key")
    if len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{key[:_HEAD]}#{digest}"


def group_in_place(group: str) -> str:
    """A group as the first part of a hash tag, ``{group:key}``.

    No two pairs of group and key share a tag, and all keys of a pair lie in one slot of a cluster, whatever they
    hold.
    """
    return _IN_GROUP.sub(_percent, group)


def in_place(key: str) -> str:
    """A key as the second part."""
    return _IN_KEY.sub(_percent, key) if _IN_KEY.search(key) else key


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
