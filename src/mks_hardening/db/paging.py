"""Keyset paging: pages cost the same at any depth, because they start after a compared key instead of an offset.

``(updated_at, id) < (:a, :b)`` is a single index range. The expanded OR form that most libraries emit is a full
scan on SQLite and half of one on PostgreSQL, and OFFSET reads all rows that it skips.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from uuid import UUID

from mks_hardening._core.checks import instances, text_of, whole_number
from mks_hardening._core.optional_imports import optional
from mks_hardening.db._cursor import CursorKey, CursorPosition, InvalidCursorError, read_cursor, write_cursor
from mks_hardening.db._nullable import may_be_null, optional_tables
from mks_hardening.db._paging_checks import check_pageable
from mks_hardening.db.watch.n_plus_one import allow_n_plus_one
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Result, Select
    from sqlalchemy.orm import QueryableAttribute, Session
    from sqlalchemy.sql.expression import UnaryExpression
    from sqlalchemy.types import TypeEngine

__all__ = ["InvalidCursorError", "Page", "PageResult", "keyset_page"]

# Rows of any shape: the select is the caller's. (SQLAlchemy 2.1 reads a bare Any as one column.)
AnySelect: TypeAlias = "Select[*tuple[Any, ...]]"
AnyColumn: TypeAlias = "ColumnElement[Any]"
AnyOrder: TypeAlias = "ColumnElement[Any] | QueryableAttribute[Any]"
Condition: TypeAlias = "ColumnElement[bool]"

_LARGEST_PAGE: Final = 1000
_KEY: Final = "mks_key_"
_REAL: Final = 700  # OID of PostgreSQL's four-byte float, in which 0.1 is not 0.1
_NUMERIC: Final = 1700
_FOUR_BYTES: Final = Struct(">f")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageResult:
    """One page of rows.

    Attributes:
        items: entities or values if the select has one column, otherwise rows of its columns.
        next_cursor: value of ``after`` for the next page; ``None`` on the last page.
    """

    items: list[Any]
    next_cursor: str | None


class Page:
    """A select limited to one page; ``fetch`` executes it.

    Attributes:
        statement: the select with order, bounds, appended key columns, and a limit of one extra row.
    """

    __slots__ = ("_after", "_keys", "_limit", "_width", "statement")

    def __init__(
        self,
        statement: AnySelect,
        *,
        keys: Sequence[CursorKey],
        after: CursorPosition | None,
        limit: int,
        width: int,
    ) -> None:
        self.statement: AnySelect = statement
        self._keys = keys
        self._after = after
        self._limit = limit
        self._width = width

    def fetch(self, bind: Session | Connection) -> PageResult:
        """Execute the select.

        Raises:
            ConfigurationError: the next page would be wrong, because two rows are equal in all order columns, or
                the driver returns a value that cannot be compared again.
            InvalidCursorError: the cursor was created on another kind of database.
        """
        dialect = _dialect_of(bind, self.statement)
        of_sqlite = dialect == "sqlite"
        if self._after is not None and self._after.of_sqlite is not of_sqlite:
            raise InvalidCursorError("the cursor was made on another kind of database")
        # A loop over all pages legitimately repeats the same statement from one call site; a first page for each of
        # many parents is N+1.
        with nullcontext() if self._after is None else allow_n_plus_one():
            result = bind.execute(self.statement)
            codes = _type_codes(result, len(self._keys)) if dialect == "postgresql" else None
            frozen = _unique(result).freeze()
        rows = list(frozen())
        items: list[Any] = (
            [row[0] for row in rows[: self._limit]]
            if self._width == 1
            else list(frozen().columns(*range(self._width)))[: self._limit]
        )
        if len(rows) <= self._limit:
            return PageResult(items=items, next_cursor=None)
        last, following = (tuple(row[self._width :]) for row in rows[self._limit - 1 : self._limit + 1])
        if last == following:
            raise ConfigurationError(
                "order_by must identify every row: end it with the primary key",
                parameter="order_by",
            )
        if codes is not None:
            last = tuple(map(_exact_number, last, codes))
        return PageResult(items=items, next_cursor=write_cursor(self._keys, last, of_sqlite=of_sqlite))


def _dialect_of(bind: Session | Connection, statement: AnySelect) -> str:
    session = cast("Session", bind)
    found = bind if hasattr(bind, "dialect") else session.get_bind(clause=statement)
    return cast("Connection", found).dialect.name


def _type_codes(result: Result[Any], keys: int) -> list[object]:
    """PostgreSQL type OIDs of the order columns, wherever eager loading has placed them."""
    cursor_result: Any = getattr(result, "raw", result)  # the ORM wraps the result of Core
    described = {str(name): code for name, code, *_ in cursor_result.cursor.description}
    return [
        next((code for name, code in described.items() if name.endswith(f"{_KEY}{n}")), None)
        for n in range(keys)
    ]


def _exact_number(value: object, code: object) -> object:
    """Exact stored number of a ``real``, for which the driver returns the shortest text that identifies it.

    Raises:
        ConfigurationError: the driver is configured to round numeric to float.
    """
    if code == _NUMERIC and isinstance(value, float):
        raise ConfigurationError(
            "order_by: the driver was told to give numeric as float, which is not what the database compares",
            parameter="order_by",
        )
    return _FOUR_BYTES.unpack(_FOUR_BYTES.pack(value))[0] if code == _REAL and value is not None else value


def _unique(result: Result[Any]) -> Result[Any]:
    """Apply ``unique``, which SQLAlchemy requires if a joined collection repeats an entity for each member."""
    collections = getattr(result, "_unique_filter_state", None) is not None
    return result.unique() if collections else result


def keyset_page(
    select: AnySelect, *, order_by: Sequence[AnyOrder], after: str | None = None, limit: int = 50
) -> Page:
    """Limit ``select`` to one page, starting after the row that a cursor identifies.

    The cursor is opaque but not secret; it is only used as bound parameters of comparisons with ``order_by``. Rows
    that are inserted or deleted between two pages cause neither duplicates nor gaps. The comparison uses the values
    stored in the database, not their Python conversions: times with and without a fraction, numbers with more
    digits than their scale, and ``real`` columns declared as ``Float`` are paged correctly.

    Args:
        select: a select without its own order or limit. It may be grouped; collections may be loaded by
            ``joinedload`` or ``selectinload`` (not ``contains_eager``, whose rows a limit would cut). Expressions
            that depend on rows of other pages (window functions, DISTINCT ON) belong in a subquery; with DISTINCT,
            the order may only use selected columns.
        order_by: columns that are not nullable, each plain, ``.asc()`` or ``.desc()``; for a grouped select also
            aggregates. ``fetch`` rejects a PostgreSQL interval: order by ``extract("epoch", column)``. Values that
            are NULL anyway, because of an outer join or as the sum of no rows, come last.
            Together they must be unique, so the last one is usually the primary key.
        after: ``next_cursor`` of the previous page.
        limit: rows per page, 1 to 1000.

    Raises:
        ConfigurationError: a parameter is invalid.
        InvalidCursorError: ``after`` is damaged, forged or belongs to another order.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import Select
    if not isinstance(select, Select):
        raise ConfigurationError(
            f"select must be a select(), not {type(select).__name__}", parameter="select"
        )
    whole_number(limit, parameter="limit", minimum=1, maximum=_LARGEST_PAGE)
    if after is not None:
        text_of(after, parameter="after")
    if _has_order_or_limit(select):
        raise ConfigurationError("select must not have its own ORDER BY or LIMIT", parameter="select")
    optional_side = optional_tables(select)
    keys = [_key(one, optional_side) for one in instances(order_by, object, parameter="order_by")]
    if not keys:
        raise ConfigurationError("order_by must name at least one column", parameter="order_by")
    check_pageable(select, [key.column for key in keys])
    width = len(select.column_descriptions)
    statement = select.add_columns(*(_raw_column(key).label(f"{_KEY}{n}") for n, key in enumerate(keys)))
    statement = statement.order_by(*map(_ordered, keys))
    position = None if after is None else read_cursor(after, keys)
    if position is not None:
        beyond = _after_condition(keys, position.values)
        # WHERE is evaluated before grouping and cannot contain aggregates.
        grouped = bool(select._group_by_clauses)  # noqa: SLF001 - no public API
        statement = statement.having(beyond) if grouped else statement.where(beyond)
    return Page(statement.limit(limit + 1), keys=keys, after=position, limit=limit, width=width)


def _has_order_or_limit(select: AnySelect) -> bool:
    names = ("_order_by_clauses", "_limit_clause", "_offset_clause", "_fetch_clause")
    clauses: list[Any] = [getattr(select, name) for name in names]
    return bool(clauses[0]) or any(clause is not None for clause in clauses[1:])


def _ordered(key: CursorKey) -> AnyColumn:
    ordered = key.column.desc() if key.descending else key.column.asc()
    return ordered.nulls_last() if key.may_be_null else ordered


def _key(element: object, optional_side: frozenset[Any]) -> CursorKey:
    from sqlalchemy import ColumnElement
    from sqlalchemy.sql import operators

    # Unwrap the column of a mapped class attribute.
    clause = getattr(element, "__clause_element__", None)
    plain = cast(AnyColumn, clause() if callable(clause) else element)
    modifier = getattr(plain, "modifier", None)
    if modifier not in {None, operators.asc_op, operators.desc_op}:
        raise ConfigurationError("order_by takes plain columns, .asc() and .desc()", parameter="order_by")
    column: AnyColumn = cast("UnaryExpression[object]", plain).element if modifier else plain
    if not isinstance(column, ColumnElement):
        raise ConfigurationError(f"order_by takes columns, not {type(column).__name__}", parameter="order_by")
    if getattr(column, "nullable", False):
        raise ConfigurationError(
            f"order_by column {getattr(column, 'name', '')} may be NULL", parameter="order_by"
        )
    return CursorKey(
        column=column,
        descending=modifier is operators.desc_op,
        may_be_null=may_be_null(column, optional_side),
    )


def _raw_column(key: CursorKey) -> AnyColumn:
    """The column without its declared type: as the driver returns it and as the database compares it."""
    from sqlalchemy import Label, type_coerce
    from sqlalchemy.types import NULLTYPE

    column = key.column.element if isinstance(key.column, Label) else key.column
    return type_coerce(column, NULLTYPE)


def _bound(value: object) -> AnyColumn:
    import sqlalchemy as sa

    # Text is bound without a type, so PostgreSQL infers the column's own (citext, an enumeration).
    types: dict[type, TypeEngine[Any]] = {
        bool: sa.Boolean(),
        int: sa.BigInteger(),  # the value may exceed the column's range, which is not an error
        float: sa.Double(),
        Decimal: sa.Numeric(),
        bytes: sa.LargeBinary(),
        date: sa.Date(),
        datetime: sa.DateTime(timezone=getattr(value, "tzinfo", None) is not None),
        time: sa.Time(timezone=getattr(value, "tzinfo", None) is not None),
        UUID: sa.Uuid(),
    }
    return sa.bindparam(None, value, type_=types.get(type(value), sa.types.NULLTYPE))


def _after_condition(keys: Sequence[CursorKey], values: Sequence[object]) -> Condition:
    from sqlalchemy import and_, false, or_, tuple_

    bound = [_bound(value) for value in values]
    columns = [_raw_column(key) for key in keys]
    if len({key.descending for key in keys}) == 1 and not any(key.may_be_null for key in keys):
        left: AnyColumn = tuple_(*columns) if len(keys) > 1 else columns[0]
        right: AnyColumn = tuple_(*bound) if len(keys) > 1 else bound[0]
        return left < right if keys[0].descending else left > right
    steps: list[Condition] = []
    equal: list[Condition] = []
    for key, column, value, known in zip(keys, columns, bound, values, strict=True):
        # NULLs come last, so no value of this column follows them.
        if known is not None:
            further = column < value if key.descending else column > value
            steps.append(and_(*equal, or_(further, column.is_(None)) if key.may_be_null else further))
        equal.append(column.is_(None) if known is None else column == value)
    if keys[0].may_be_null:
        return or_(false(), *steps)
    first = columns[0] <= bound[0] if keys[0].descending else columns[0] >= bound[0]
    return and_(first, or_(*steps))  # an index can only seek by the first bound
