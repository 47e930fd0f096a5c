"""Store values so that callers never share a mutable object."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Final, TypeAlias
from uuid import UUID

from mks_hardening._core.codec import Codec

__all__ = ["LARGEST_VALUE", "Thaw", "freeze", "thawed"]

Thaw: TypeAlias = Callable[[Any], Any]
"""Makes a new value of its immutable form."""

LARGEST_VALUE: Final = 1 << 26
"""Maximum size in bytes of an encoded value, in any backend."""

# Values of exactly these types cannot be modified by callers; all others are stored as bytes.
_IMMUTABLE: Final = frozenset({str, int, float, bool, bytes, type(None), date, timedelta, Decimal, UUID})


@cache
def _codec() -> Codec:
    return Codec(max_bytes=LARGEST_VALUE)


def freeze(value: object) -> tuple[object, Thaw | None]:
    """Return the immutable form of a value, and what makes a new value of it, if it is not the value itself.

    Raises:
        EncodeError: the value is not plain data.
    """
    # The exact type: an instance of a subclass of str can have attributes, which would be shared.
    return (value, None) if type(value) in _IMMUTABLE else _codec().encode_copy(value)


def thawed(frozen: Any, thaw: Thaw | None) -> Any:
    """Return the value of an immutable form."""
    return frozen if thaw is None else thaw(frozen)
