"""Paging cursors: the order columns of one row, opaque to clients and validated when they come back.

A cursor holds the driver's raw value and binds it again, because the Python value that a column type returns may
differ from the value that the database compares: SQLite stores times with or without a fraction and numbers with
more digits than their ``Numeric`` declares, and the Python ``float`` of a ``real`` column is not the stored number.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache, cached_property
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
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
    "CursorKeys",
    "CursorPosition",
    "CursorSeal",
    "InvalidCursorError",
    "encode_cursor",
    "read_cursor",
    "write_cursor",
]

AnyColumn: TypeAlias = "ColumnElement[Any]"

_LONGEST_CURSOR: Final = 2048
_DEEPEST_CURSOR: Final = 4
_MAC_BYTES: Final = 16
_LARGEST_EXPONENT: Final = 16_000  # limit of PostgreSQL's numeric
_LARGEST_FLOAT_EXPONENT: Final = 300  # limit for a numeric that is compared with a double
_LARGEST_OFFSET: Final = timedelta(hours=16)  # limit of a time zone offset in PostgreSQL

# SQLite's storage classes: SQLite compares any two of them, so a forged value does no harm.
_STORAGE_CLASSES: Final = frozenset({int, float, str, bytes})
# Python type of a column -> types that the driver may return for it and that PostgreSQL compares with the column.
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
    """A cursor is damaged, forged or belongs to another order; a web application responds with 400."""


@dataclass(frozen=True, kw_only=True)
class CursorKey:
    """One column of the sort order.

    Attributes:
        column: column or expression to sort by.
        descending: whether to sort from the largest to the smallest value.
        may_be_null: whether the column can be NULL.
        nulls: whether NULL comes first or last; empty as the database decides, where there is none.
    """

    column: AnyColumn
    descending: bool
    may_be_null: bool = False
    nulls: Literal["", "first", "last"] = ""

    @cached_property
    def opposite(self) -> CursorKey:
        """Key of the opposite order."""
        nulls: Literal["", "first", "last"] = (
            "" if not self.nulls else "last" if self.nulls == "first" else "first"
        )
        return replace(self, descending=not self.descending, nulls=nulls)


class CursorKeys(tuple[CursorKey, ...]):  # noqa: SLOT001 - it remembers its digests
    """All columns of a sort order; the digest that names the order in its cursors is computed once."""

    @cached_property
    def digests(self) -> tuple[str, str]:
        """Digests in cursors of other databases and of SQLite."""
        text = ",".join(
            f"{key.column}{'-' if key.descending else '+'}{'!' if key.nulls == 'first' else ''}"
            for key in self
        )
        other, sqlite = (
            blake2b(f"{text}{suffix}".encode(), digest_size=6).hexdigest() for suffix in ("", " of sqlite")
        )
        return other, sqlite


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorPosition:
    """Decoded content of a cursor.

    Attributes:
        values: values of the order columns, as the driver returned them.
        of_sqlite: whether they came from SQLite, whose values have another form.
    """

    values: Sequence[object]
    of_sqlite: bool


class CursorSeal:
    """Signature of the cursors of one select with one filter.

    Args:
        secrets: results of ``signing_secrets``.
        select: canonical text of the select with its values.
    """

    __slots__ = ("_macs", "digest")

    def __init__(self, secrets: Sequence[bytes], select: str) -> None:
        self.digest: str = blake2b(select.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        self._macs = [blake2b(key=secret, digest_size=_MAC_BYTES, person=b"mks-cursor") for secret in secrets]

    def seal(self, data: bytes) -> bytes:
        """Put the signature in front of the data."""
        return _mac(self._macs[0], data) + data

    def open(self, sealed: bytes) -> bytes:
        """Return the data behind a valid signature.

        Raises:
            InvalidCursorError: no key has signed it.
        """
        mac, data = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
        if not any(compare_digest(mac, _mac(begun, data)) for begun in self._macs):
            raise InvalidCursorError("the signature of the cursor does not match")
        return data


def _mac(begun: blake2b, data: bytes) -> bytes:
    mac = begun.copy()
    mac.update(data)
    return mac.digest()


def write_cursor(
    keys: CursorKeys, values: Sequence[object], *, of_sqlite: bool = False, seal: CursorSeal | None = None
) -> str:
    """Encode the cursor of a row, signed if there is a seal.

    Raises:
        ConfigurationError: an order column is NULL, so no comparison finds the rows after it, or holds a value that
            cannot be compared again.
    """
    plain = list(map(_plain, values))
    for key, value in zip(keys, plain, strict=False):
        if value is None:
            if not key.may_be_null:
                raise ConfigurationError("order_by columns must not be NULL", parameter="order_by")
        elif not _is_comparable(value, key.column, of_sqlite=of_sqlite):
            raise ConfigurationError(_incomparable_message(key.column, value), parameter="order_by")
    try:
        return encode_cursor(keys, plain, of_sqlite=of_sqlite, seal=seal)
    except EncodeError as error:
        raise ConfigurationError(
            f"order_by: no cursor can hold a value of it: {error}", parameter="order_by"
        ) from None


def encode_cursor(
    keys: CursorKeys, values: Sequence[object], *, of_sqlite: bool, seal: CursorSeal | None = None
) -> str:
    """Encode a cursor without validating the values.

    Raises:
        EncodeError: a value cannot be serialized.
    """
    digest = keys.digests[of_sqlite]
    if seal is None:
        data = _codec().encode([digest, *values])
    else:
        data = seal.seal(_codec().encode([digest, seal.digest, *values]))
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _plain(value: object) -> object:
    """Convert driver types to standard types: asyncpg has its own UUID class, psycopg2 returns a memoryview."""
    if type(value) in _STORAGE_CLASSES:
        return value
    if isinstance(value, UUID):
        return UUID(int=value.int)
    return cast("memoryview[int]", value).tobytes() if isinstance(value, memoryview) else value


def _incomparable_message(column: AnyColumn, value: object) -> str:
    if isinstance(
        value, timedelta
    ):  # psycopg and asyncpg read a year as 365 days; PostgreSQL compares it as 360
        return (
            f"order_by column {column}: an interval has no exact form in Python; order by extract('epoch', …)"
        )
    return (
        f"order_by column {column} is declared as {column.type!r}, and the driver gives {type(value).__name__}, "
        f"which cannot be compared with it again: declare the type that the column has in the database"
    )


def read_cursor(cursor: str, keys: CursorKeys, *, seal: CursorSeal | None = None) -> CursorPosition:
    """Decode and validate a cursor, and its signature if there is a seal.

    Raises:
        InvalidCursorError: the cursor is unreadable, forged, or belongs to another order or (signed) filter.
    """
    if len(cursor) > _LONGEST_CURSOR:
        raise InvalidCursorError("the cursor is too long")
    try:
        data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except (AttributeError, TypeError, ValueError):
        raise InvalidCursorError("the cursor cannot be read") from None
    if seal is not None:
        data = seal.open(data)
    try:
        digest, *values = cast("list[object]", _codec().decode(data))
    except (DecodeError, TypeError, ValueError):
        raise InvalidCursorError("the cursor cannot be read") from None
    # Without a signature, a forged cursor only names a position in the list, which anyone could page to.
    if seal is not None and values[:1] != [seal.digest]:
        raise InvalidCursorError("the cursor belongs to another select: another filter or table")
    if seal is not None:
        del values[0]
    if digest not in keys.digests or len(values) != len(keys):
        raise InvalidCursorError("the cursor belongs to another order_by")
    of_sqlite = digest == keys.digests[True]
    if not all(
        key.may_be_null if value is None else _is_comparable(value, key.column, of_sqlite=of_sqlite)
        for value, key in zip(values, keys, strict=True)
    ):
        raise InvalidCursorError("the cursor holds values of another type")
    return CursorPosition(values=[_to_utc(value) for value in values], of_sqlite=of_sqlite)


def _to_utc(value: object) -> object:
    """Convert an aware datetime to UTC: PostgreSQL rejects some UTC offsets that Python allows."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise InvalidCursorError("the cursor contains an invalid moment") from None
    return value


def _is_comparable(value: object, column: AnyColumn, *, of_sqlite: bool) -> bool:
    """Whether the database accepts the value and compares it with the column as it compares stored values."""
    kind = type(value)
    # No column can hold these, and a driver would reject them with its own error.
    if kind is int:
        if not -(2**63) <= cast(int, value) < 2**63:
            return False
    elif _has_surrogates(value):
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
    """Python type of the column, or ``object`` if its type is unknown or may store another type."""
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
    if _python_type(column) is UUID:  # psycopg2 returns UUIDs as text
        try:
            UUID(value)
        except ValueError:
            return False
    return True


def _has_surrogates(value: object) -> bool:
    if not isinstance(value, str) or value.isascii():
        return False
    return any("\ud800" <= character <= "\udfff" for character in value)


@cache
def _codec() -> Codec:
    return Codec(form="json", max_bytes=_LONGEST_CURSOR, max_depth=_DEEPEST_CURSOR)
