"""Pages that cost the same at any depth: where the last page ended is compared, not counted.

``(updated_at, id) < (:a, :b)`` is one index range; the expanded OR form most libraries emit is a scan on SQLite and
half of one on PostgreSQL, and OFFSET reads what it skips.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mks_hardening._core.codec import Codec
from mks_hardening._core.lazy import optional
from mks_hardening.exceptions import ConfigurationError, DecodeError, MksHardeningError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Select
    from sqlalchemy.orm import Session

__all__ = ["InvalidCursorError", "Page", "PageResult", "keyset_page"]

_LONGEST_CURSOR: Final = 2048


class InvalidCursorError(MksHardeningError, ValueError):
    """A cursor was damaged, forged, or made for another order; a web application answers 400."""


class PageResult(NamedTuple):
    """Rows of one page.

    Attributes:
        items: entities (or values) where the select has one column, rows otherwise.
        next_cursor: give it as ``after`` for the next page; ``None`` on the last one.
    """

    items: list[Any]
    next_cursor: str | None


class _Key(NamedTuple):
    column: ColumnElement[Any]
    descending: bool


class Page:
    """A select cut to one page; run ``fetch``.

    Attributes:
        statement: the select with order, bounds and limit, the key columns appended, and one row more.
    """

    __slots__ = ("_keys", "_limit", "_width", "statement")

    def __init__(self, statement: Select[Any], *, keys: Sequence[_Key], limit: int, width: int) -> None:
        self.statement: Select[Any] = statement
        self._keys = keys
        self._limit = limit
        self._width = width

    def fetch(self, bind: Session | Connection) -> PageResult:
        """Execute the select.

        Raises:
            ConfigurationError: an order column was NULL, so that the page after it would be wrong.
        """
        rows = list(bind.execute(self.statement))
        page = rows[: self._limit]
        items = [row[0] for row in page] if self._width == 1 else list(page)
        more = len(rows) > self._limit
        return PageResult(items, self._cursor(page[-1][self._width :]) if more else None)

    def _cursor(self, values: Sequence[Any]) -> str:
        if any(value is None for value in values):
            raise ConfigurationError("order_by columns must not be NULL", parameter="order_by")
        data = _codec().encode([_order_digest(self._keys), *values])
        return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def keyset_page(
    select: Select[Any], *, order_by: Sequence[ColumnElement[Any]], after: str | None = None, limit: int = 50
) -> Page:
    """One page of ``select``, beginning after the row a cursor names.

    The cursor is opaque but not secret; it only ever becomes bound parameters of comparisons with ``order_by``.
    Rows inserted or deleted between two pages neither repeat nor hide others.

    Args:
        select: a select without its own order or limit.
        order_by: columns that are not NULL, each plain, ``.asc()`` or ``.desc()``; together they must be unique, so
            the last one is usually the primary key.
        after: ``next_cursor`` of the page before.
        limit: rows in a page, 1 to 1000.

    Raises:
        ConfigurationError: a parameter is impossible.
        InvalidCursorError: ``after`` is damaged, forged, or belongs to another order.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import Select
    if not isinstance(select, Select):
        raise ConfigurationError(
            f"select must be a select(), not {type(select).__name__}", parameter="select"
        )
    if type(limit) is not int or not 1 <= limit <= 1000:
        raise ConfigurationError("limit must be a whole number from 1 to 1000", parameter="limit")
    keys = [_key(one) for one in order_by]
    if not keys:
        raise ConfigurationError("order_by must name at least one column", parameter="order_by")
    width = len(select.column_descriptions)
    statement = select.add_columns(*(key.column.label(f"mks_key_{n}") for n, key in enumerate(keys)))
    statement = statement.order_by(
        *(key.column.desc() if key.descending else key.column.asc() for key in keys)
    )
    if after is not None:
        statement = statement.where(_beyond(keys, _read_cursor(after, keys)))
    return Page(statement.limit(limit + 1), keys=keys, limit=limit, width=width)


def _key(element: Any) -> _Key:
    from sqlalchemy.sql import operators

    plain: Any = element.__clause_element__() if hasattr(element, "__clause_element__") else element
    modifier: Any = getattr(plain, "modifier", None)
    if modifier not in {None, operators.asc_op, operators.desc_op}:
        raise ConfigurationError("order_by takes plain columns, .asc() and .desc()", parameter="order_by")
    column: Any = plain.element if modifier else plain
    if getattr(column, "nullable", False):
        raise ConfigurationError(f"order_by column {column.name} may be NULL", parameter="order_by")
    return _Key(column, modifier is operators.desc_op)


def _beyond(keys: Sequence[_Key], values: Sequence[Any]) -> ColumnElement[bool]:
    from sqlalchemy import BigInteger, Integer, and_, bindparam, or_, tuple_

    # Whole numbers are bound as BIGINT: a cursor may hold one that does not fit the column, and that is no error.
    types = [BigInteger() if isinstance(key.column.type, Integer) else key.column.type for key in keys]
    bound = [bindparam(None, value, type_=kind) for value, kind in zip(values, types, strict=True)]
    columns = [key.column for key in keys]
    if len({key.descending for key in keys}) == 1:
        left: Any = tuple_(*columns) if len(keys) > 1 else columns[0]
        right: Any = tuple_(*bound) if len(keys) > 1 else bound[0]
        whole: ColumnElement[bool] = left < right if keys[0].descending else left > right
        return whole
    first = columns[0] <= bound[0] if keys[0].descending else columns[0] >= bound[0]
    steps: list[Any] = []
    for n, key in enumerate(keys):
        equal = [column == value for column, value in zip(columns[:n], bound[:n], strict=True)]
        steps.append(and_(*equal, key.column < bound[n] if key.descending else key.column > bound[n]))
    return and_(first, or_(*steps))  # the first bound alone lets an index find the place


def _read_cursor(cursor: str, keys: Sequence[_Key]) -> list[Any]:
    try:
        if len(cursor) > _LONGEST_CURSOR:
            raise InvalidCursorError("the cursor is too long")
        data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        digest, *decoded = _codec().decode(data)
    except (AttributeError, DecodeError, TypeError, UnicodeEncodeError, ValueError, binascii.Error):
        raise InvalidCursorError("the cursor cannot be read") from None
    values: list[Any] = decoded
    if digest != _order_digest(keys) or len(values) != len(keys):
        raise InvalidCursorError("the cursor belongs to another order")
    if not all(_fits(value, key.column) for value, key in zip(values, keys, strict=True)):
        raise InvalidCursorError("the cursor holds values of another type")
    return values


def _fits(value: Any, column: Any) -> bool:
    if isinstance(value, str) and not value.isascii() and _has_surrogates(value):
        return False
    if (isinstance(value, str) and "\0" in value) or (type(value) is int and not -(2**63) <= value < 2**63):
        return False
    try:
        expected = column.type.python_type
    except NotImplementedError:
        return True
    # A TypeDecorator that does not say what it takes calls itself ``object``.
    return expected is object or type(value) is expected or (expected is float and type(value) is int)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _order_digest(keys: Sequence[_Key]) -> str:
    text = ",".join(f"{key.column}{'-' if key.descending else '+'}" for key in keys)
    return blake2b(text.encode(), digest_size=6).hexdigest()


@cache
def _codec() -> Codec:
    return Codec(form="json", max_bytes=_LONGEST_CURSOR, max_depth=4)
