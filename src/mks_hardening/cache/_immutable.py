"""Values that many may have without having the same mutable object."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Final
from uuid import UUID

from mks_hardening._core.codec import Codec

__all__ = ["LARGEST_VALUE", "freeze", "thaw"]

LARGEST_VALUE: Final = 1 << 26
"""Bytes of the largest value kept anywhere, encoded."""

# Values of exactly these types cannot be changed by whoever got them; all others are kept as bytes.
_IMMUTABLE: Final = frozenset({str, int, float, bool, bytes, type(None), date, timedelta, Decimal, UUID})


@cache
def _codec() -> Codec:
    return Codec(max_bytes=LARGEST_VALUE)


def freeze(value: object) -> tuple[object, bool]:
    """What to keep of a value, and whether that is its encoding.

    Raises:
        EncodeError: the value is not data.
    """
    # The exact type: a subclass of str can have attributes, which would be shared.
    return (value, False) if type(value) in _IMMUTABLE else (_codec().encode(value), True)


def thaw(kept: Any, encoded: bool) -> Any:  # noqa: FBT001 - the two parts of what freeze returned
    """The value anew."""
    return _codec().decode(kept, trusted=True) if encoded else kept
