"""Cursors: the order columns of one row, opaque to clients and checked when they come back."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import cache
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, cast

from mks_hardening._core.codec import Codec
from mks_hardening.exceptions import (
    ConfigurationError,
    DecodeError,
    EncodeError,
    MksHardeningError,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

__all__ = ["InvalidCursorError", "Key", "is_four_bytes", "read_cursor", "write_cursor"]

_LONGEST_CURSOR: Final = 2048
_DEEPEST_CURSOR: Final = 4
_FOUR_BYTES: Final = Struct(">f")
_SHORT_BITS: Final = 24


class InvalidCursorError(MksHardeningError, ValueError):
    """A cursor was damaged, forged, or made for another order; a web application answers 400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One column of the order.

    Attributes:
        column: plain, or an expression.
        descending: from the largest to the smallest.
        may_be_null: rows without a value come last.
    """

    column: ColumnElement[Any]
    descending: bool
    may_be_null: bool = False


def write_cursor(keys: Sequence[Key], values: Sequence[object]) -> str:
    """The cursor of a row.

    Raises:
        ConfigurationError: an order column is NULL, so that no comparison finds the rows after it, or holds what
            is no data.
    """
    if any(value is None and not key.may_be_null for key, value in zip(keys, values, strict=False)):
        raise ConfigurationError("order_by columns must not be NULL", parameter="order_by")
    # Members of an enumeration by name, which says the same in every release that has them.
    plain = [value.name if isinstance(value, Enum) else value for value in values]
    try:
        data = _codec().encode([_order_digest(keys), *plain])
    except EncodeError as error:
        raise ConfigurationError(
            f"order_by: no cursor can hold a value of it: {error}", parameter="order_by"
        ) from None
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def read_cursor(cursor: str, keys: Sequence[Key]) -> list[object]:
    """The values of the order columns.

    Raises:
        InvalidCursorError: it is no cursor, or one of another order.
    """
    try:
        if len(cursor) > _LONGEST_CURSOR:
            raise InvalidCursorError("the cursor is too long")
        data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        digest, *values = cast("list[object]", _codec().decode(data))
    except (AttributeError, DecodeError, TypeError, UnicodeEncodeError, ValueError, binascii.Error):
        raise InvalidCursorError("the cursor cannot be read") from None
    # A cursor is not signed: a forged one is a place in the list, which anyone could have paged to.
    if digest != _order_digest(keys) or len(values) != len(keys):
        raise InvalidCursorError("the cursor belongs to another order")
    values = [_member(value, key.column) for value, key in zip(values, keys, strict=True)]
    if not all(
        key.may_be_null if value is None else _fits(value, key.column)
        for value, key in zip(values, keys, strict=True)
    ):
        raise InvalidCursorError("the cursor holds values of another type")
    return values


def _member(value: object, column: ColumnElement[Any]) -> object:
    """The member of an enumeration that a name stands for, and everything else as it is."""
    kind = _python_type(column)
    return kind.__members__.get(value, value) if issubclass(kind, Enum) and isinstance(value, str) else value


def _python_type(column: ColumnElement[Any]) -> type:
    try:
        return column.type.python_type
    except NotImplementedError:
        return object


def _fits(value: object, column: ColumnElement[Any]) -> bool:
    if isinstance(value, str) and not value.isascii() and _has_surrogates(value):
        return False
    # What no column could hold, and a driver would refuse with an error of its own.
    if (isinstance(value, str) and "\0" in value) or (type(value) is int and not -(2**63) <= value < 2**63):
        return False
    if isinstance(value, Decimal) and value.is_snan():
        return False
    if isinstance(value, (float, int)) and is_four_bytes(column.type) and not _fits_four_bytes(value):
        return False
    expected = _python_type(column)
    # A TypeDecorator that does not say what it takes calls itself ``object``.
    return expected is object or type(value) is expected or (expected is float and type(value) is int)


def is_four_bytes(kind: TypeEngine[Any]) -> bool:
    """Whether its numbers have four bytes, where there are such."""
    from sqlalchemy import REAL, Float

    return isinstance(kind, REAL) or (isinstance(kind, Float) and 0 < (kind.precision or 0) <= _SHORT_BITS)


def _fits_four_bytes(value: float) -> bool:
    """Whether PostgreSQL takes it: it refuses what is too large, and what would become 0."""
    try:
        (kept,) = _FOUR_BYTES.unpack(_FOUR_BYTES.pack(value))
    except OverflowError:
        return False
    return bool(kept) or not value


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _order_digest(keys: Sequence[Key]) -> str:
    text = ",".join(f"{key.column}{'-' if key.descending else '+'}" for key in keys)
    return blake2b(text.encode(), digest_size=6).hexdigest()


@cache
def _codec() -> Codec:
    return Codec(form="json", max_bytes=_LONGEST_CURSOR, max_depth=_DEEPEST_CURSOR)
