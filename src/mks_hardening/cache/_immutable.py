"""Store values so that callers never share a mutable object."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Final
from uuid import UUID

from mks_hardening._core.codec import Codec

__all__ = ["LARGEST_VALUE", "freeze", "thaw"]

LARGEST_VALUE: Final = 1 << 26
"""Maximum size in bytes of an encoded value, in any backend."""

# Values of exactly these types cannot be modified by callers; all others are stored as bytes.
_IMMUTABLE: Final = frozenset({str, int, float, bool, bytes, type(None), date, timedelta, Decimal, UUID})


@cache
def _codec() -> Codec:
    return Codec(max_bytes=LARGEST_VALUE)


def freeze(value: object) -> tuple[object, bool]:
    """Return the immutable form of a value, and whether that is its encoding.

    Raises:
        EncodeError: the value is not plain data.
    """
    # The exact type: an instance of a subclass of str can have attributes, which would be shared.
    return (value, False) if type(value) in _IMMUTABLE else (_codec().encode(value), True)


def thaw(kept: Any, encoded: bool) -> Any:  # noqa: FBT001 - the two parts of what freeze returned
    """Return the value; a new object if it was encoded."""
    return _codec().decode(kept, trusted=True) if encoded else kept
