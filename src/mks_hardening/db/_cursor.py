"""Cursors: the order columns of one row as the database holds them, opaque to clients and checked on the way back.

The value that a column's type returns is not always the value that the database compares. SQLite stores a time with
or without a fraction, and a number with more digits than its ``Numeric`` declares; the Python ``float`` of a
``real`` column is not the number in it. So a cursor holds the value of the driver, unconverted, and binds it again.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from uuid import UUID

from mks_hardening._core.codec import Codec
from mks_hardening.exceptions import (
    ConfigurationError,
    DecodeError,
    EncodeError,
    MksHardeningError,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

__all__ = [
    "CursorKey",
    "CursorPosition",
    "InvalidCursorError",
    "encode_cursor",
    "read_cursor",
    "write_cursor",
]

AnyColumn: TypeAlias = "ColumnElement[Any]"

_LONGEST_CURSOR: Final = 2048
_DEEPEST_CURSOR: Final = 4
_LARGEST_EXPONENT: Final = 16_000  # of PostgreSQL's numeric
_LARGEST_FLOAT_EXPONENT: Final = 300  # of a numeric that is compared with a double
_LARGEST_OFFSET: Final = timedelta(hours=16)  # of a time zone in PostgreSQL

# SQLite's storage classes: it compares any two of them, so that a forged one does no harm.
_STORAGE_CLASSES: Final = frozenset({int, float, str, bytes})
# What a driver may give for a column that is declared with a Python type, and PostgreSQL compares with the column.
_GIVEN_FOR: Final[dict[type, frozenset[type]]] = {
    bool: frozenset({bool}),
    int: frozenset({int, float, Decimal}),
    float: frozenset({int, float, Decimal}),
    Decimal: frozenset({int, float, Decimal}),
    str: frozenset({str}),
    bytes: frozenset({bytes}),
    date: frozenset({date, datetime}),
    datetime: frozenset({date, datetime}),
    time: frozenset({time}),
    UUID: frozenset({UUID, str}),
}
_ALL: Final = frozenset[type]().union(*_GIVEN_FOR.values())


class InvalidCursorError(MksHardeningError, ValueError):
    """A cursor was damaged, forged, or made for another order; a web application answers 400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorKey:
    """One column of the order.

    Attributes:
        column: plain, or an expression.
        descending: from the largest to the smallest.
        may_be_null: rows without a value come last.
    """

    column: AnyColumn
    descending: bool
    may_be_null: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorPosition:
    """What a cursor says.

    Attributes:
        values: of the order columns, as the driver gave them.
        of_sqlite: whether the driver was SQLite's, whose values have another form.
    """

    values: Sequence[object]
    of_sqlite: bool


def write_cursor(keys: Sequence[CursorKey], values: Sequence[object], *, of_sqlite: bool = False) -> str:
    """The cursor of a row.

    Raises:
        ConfigurationError: an order column is NULL, so that no comparison finds the rows after it, or holds what
            cannot be compared again.
    """
    if any(value is None and not key.may_be_null for key, value in zip(keys, values, strict=False)):
        raise ConfigurationError("order_by columns must not be NULL", parameter="order_by")
    plain = list(map(_plain, values))
    for key, value in zip(keys, plain, strict=False):
        if value is not None and not _fits(value, key.column, of_sqlite=of_sqlite):
            raise ConfigurationError(_unfit(key.column, value), parameter="order_by")
    try:
        return encode_cursor(keys, plain, of_sqlite=of_sqlite)
    except EncodeError as error:
        raise ConfigurationError(
            f"order_by: no cursor can hold a value of it: {error}", parameter="order_by"
        ) from None


def encode_cursor(keys: Sequence[CursorKey], values: Sequence[object], *, of_sqlite: bool) -> str:
    """A cursor of whatever values.

    Raises:
        EncodeError: one that is no data.
    """
    data = _codec().encode([_order_digest(keys, of_sqlite=of_sqlite), *values])
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _plain(value: object) -> object:
    """The value in a type of Python's own: asyncpg has its own UUID, and psycopg2 returns a memoryview."""
    if isinstance(value, UUID):
        return UUID(int=value.int)
    return cast("memoryview[int]", value).tobytes() if isinstance(value, memoryview) else value


def _unfit(column: AnyColumn, value: object) -> str:
    if isinstance(
        value, timedelta
    ):  # psycopg and asyncpg: 365 days for a year, where PostgreSQL compares 360
        return (
            f"order_by column {column}: an interval has no exact form in Python; order by extract('epoch', …)"
        )
    return (
        f"order_by column {column} is declared as {column.type!r}, and the driver gives {type(value).__name__}, "
        f"which cannot be compared with it again: declare the type that the column has in the database"
    )


def read_cursor(cursor: str, keys: Sequence[CursorKey]) -> CursorPosition:
    """What a cursor says.

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
    of_sqlite = digest == _order_digest(keys, of_sqlite=True)
    if not (of_sqlite or digest == _order_digest(keys, of_sqlite=False)) or len(values) != len(keys):
        raise InvalidCursorError("the cursor belongs to another order")
    if not all(
        key.may_be_null if value is None else _fits(value, key.column, of_sqlite=of_sqlite)
        for value, key in zip(values, keys, strict=True)
    ):
        raise InvalidCursorError("the cursor holds values of another type")
    return CursorPosition(values=[_bounded(value) for value in values], of_sqlite=of_sqlite)


def _bounded(value: object) -> object:
    """A moment in UTC: PostgreSQL refuses offsets that Python has."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise InvalidCursorError("the cursor holds a moment that is none") from None
    return value


def _fits(value: object, column: AnyColumn, *, of_sqlite: bool) -> bool:
    """Whether the database compares the value with the column, without an error and as it compares the row's."""
    kind = type(value)
    # What no column could hold, and a driver would refuse with an error of its own.
    if (kind is int and not -(2**63) <= cast(int, value) < 2**63) or _has_surrogates(value):
        return False
    if of_sqlite:
        return kind in _STORAGE_CLASSES
    if isinstance(value, Decimal) and not _is_numeric(value, column):
        return False
    if isinstance(value, str) and ("\0" in value or not _is_text_of(value, column)):
        return False
    if isinstance(value, time) and abs(value.utcoffset() or timedelta()) >= _LARGEST_OFFSET:
        return False
    return kind in _GIVEN_FOR.get(_python_type(column), _ALL)


def _python_type(column: AnyColumn) -> type:
    """What the column's type says; ``object`` where it says nothing, or may keep something else."""
    from sqlalchemy import Enum, TypeDecorator

    if isinstance(column.type, Enum):
        return str
    try:
        return object if isinstance(column.type, TypeDecorator) else column.type.python_type
    except NotImplementedError:
        return object


def _is_numeric(value: Decimal, column: AnyColumn) -> bool:
    if value.is_snan():
        return False
    largest = _LARGEST_FLOAT_EXPONENT if _python_type(column) is float else _LARGEST_EXPONENT
    exponent = value.as_tuple().exponent
    return not isinstance(exponent, int) or (abs(value.adjusted()) <= largest and abs(exponent) <= largest)


def _is_text_of(value: str, column: AnyColumn) -> bool:
    from sqlalchemy import Enum

    if isinstance(column.type, Enum):
        return value in column.type.enums
    if _python_type(column) is UUID:  # as psycopg2 gives it
        try:
            UUID(value)
        except ValueError:
            return False
    return True


def _has_surrogates(value: object) -> bool:
    return isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value)


def _order_digest(keys: Sequence[CursorKey], *, of_sqlite: bool) -> str:
    text = ",".join(f"{key.column}{'-' if key.descending else '+'}" for key in keys)
    return blake2b(f"{text}{' of sqlite' * of_sqlite}".encode(), digest_size=6).hexdigest()


@cache
def _codec() -> Codec:
    return Codec(form="json", max_bytes=_LONGEST_CURSOR, max_depth=_DEEPEST_CURSOR)
