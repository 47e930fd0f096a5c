"""Selects of one list, which all its pages share: analysed and compiled once per select and order.

SQLAlchemy compiles a select once per cache key, but building it, finding that key and checking the order cost six
times as much as running it. A list is therefore kept under the cache keys of its select and order and their values,
and its pages are the same statement with other parameters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
from uuid import UUID

from mks_hardening._core.cache_key_error import CacheKeyError
from mks_hardening._core.canonical_text import canonical
from mks_hardening.db._cursor import CursorKey, CursorKeys, CursorPosition
from mks_hardening.db._nullable import may_be_null, optional_tables
from mks_hardening.db._paging_checks import check_pageable
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.sql.expression import UnaryExpression
    from sqlalchemy.types import TypeEngine

__all__ = ["KEY", "PagedList", "clause_of", "paged_list"]

# Rows of any shape: the select is the caller's. (SQLAlchemy 2.1 reads a bare Any as one column.)
AnySelect: TypeAlias = "Select[*tuple[Any, ...]]"
AnyColumn: TypeAlias = "ColumnElement[Any]"
Condition: TypeAlias = "ColumnElement[bool]"

KEY: Final = "mks_key_"
AFTER: Final = "mks_after_"
_MOST_LISTS: Final = 256
_MOST_PAGES: Final = 32


class PagedList:
    """One select with one order.

    Attributes:
        keys: columns of the order.
        width: number of columns of the caller's select; the order columns follow.
        given: the caller's select.
    """

    __slots__ = ("_columns", "_grouped", "_pages", "_text", "given", "keys", "width")

    def __init__(self, select: AnySelect, order: Sequence[object]) -> None:
        if _has_order_or_limit(select):
            raise ConfigurationError("select must not have its own ORDER BY or LIMIT", parameter="select")
        optional_side = optional_tables(select)
        keys = CursorKeys(_key(one, optional_side) for one in order)
        self.keys: CursorKeys = keys
        if not keys:
            raise ConfigurationError("order_by must name at least one column", parameter="order_by")
        check_pageable(select, [key.column for key in keys])
        self.width: int = len(select.column_descriptions)
        self.given: AnySelect = select
        columns = (_raw_column(key).label(f"{KEY}{n}") for n, key in enumerate(keys))
        self._columns: AnySelect = select.add_columns(*columns)
        self._text: str | None = None
        # WHERE is evaluated before grouping and cannot contain aggregates.
        self._grouped = bool(select._group_by_clauses)  # noqa: SLF001 - no public API
        self._pages: dict[Hashable, AnySelect] = {}

    def text(self) -> str:
        """Canonical text of the select with its values, by which a signed cursor recognises it.

        Raises:
            ConfigurationError: it contains a value that has no such text.
        """
        if self._text is None:
            from sqlalchemy.exc import CompileError

            try:
                compiled = self.given.compile()
                self._text = f"{compiled} {canonical(tuple(compiled.params.items()))}"
            except (CacheKeyError, CompileError) as error:
                raise ConfigurationError(
                    f"signing_keys: the select cannot be bound to a cursor: {error}", parameter="signing_keys"
                ) from None
        return self._text

    def page(
        self, beyond: CursorPosition | None, limit: int, *, backward: bool = False
    ) -> tuple[AnySelect, dict[str, object]]:
        """Return the statement of a page, and the values of its parameters.

        Args:
            beyond: position after which the page begins.
            limit: rows of the page; one more is selected.
            backward: whether to read in the opposite order, that is the rows before the position.
        """
        values: Sequence[object] = () if beyond is None else beyond.values
        # The types decide how the values are bound, and NULL how they are compared.
        form = (limit, backward, *((type(value), getattr(value, "tzinfo", None) is None) for value in values))
        page = self._pages.get(form)
        if page is None:
            keys = [key.opposite for key in self.keys] if backward else self.keys
            page = self._columns.order_by(*map(_ordered, keys))
            if beyond is not None:
                further = _beyond_condition(keys, values)
                page = page.having(further) if self._grouped else page.where(further)
            page = page.limit(limit + 1)
            if len(self._pages) >= _MOST_PAGES:
                self._pages.clear()
            self._pages[form] = page
        bound = {f"{AFTER}{number}": value for number, value in enumerate(values) if value is not None}
        return page, bound


_lists: Final[dict[Hashable, PagedList]] = {}


def paged_list(select: AnySelect, order: Sequence[object]) -> PagedList:
    """Return the list of a select and an order; the same one for equal selects with equal values.

    Args:
        select: the caller's select.
        order: results of ``clause_of``.

    Raises:
        ConfigurationError: the select or the order cannot be paged.
    """
    identity = _identity(select, order)
    if identity is None:
        return PagedList(select, order)
    found = _lists.get(identity)
    if found is None:
        found = PagedList(select, order)
        if len(_lists) >= _MOST_LISTS:
            _lists.clear()
        _lists[identity] = found
    return found


def clause_of(element: object) -> object:
    """Unwrap the column of a mapped class attribute."""
    from sqlalchemy import ColumnElement

    if isinstance(element, ColumnElement):
        return cast(object, element)
    clause = getattr(element, "__clause_element__", None)
    return clause() if callable(clause) else element


def _identity(select: AnySelect, order: Sequence[object]) -> Hashable | None:
    """What the select and the order are, or ``None`` if something in them cannot be compared."""
    given: Any = select
    # Neither is part of the cache key of SQLAlchemy.
    if given._execution_options or not all(option._is_has_cache_key for option in given._with_options):  # noqa: SLF001 - no public API
        return None
    identity: list[Any] = []
    try:
        for one in (given, *cast("Sequence[Any]", order)):
            key = one._generate_cache_key()  # noqa: SLF001 - as above
            if key is None:
                return None
            identity.append(key.key)
            for parameter in key.bindparams:
                value = parameter.effective_value
                identity += (type(value), value)
        hash(made := tuple(identity))
    except (AttributeError, TypeError):  # no clause, or a value that is not hashable
        return None
    return made


def _has_order_or_limit(select: AnySelect) -> bool:
    names = ("_order_by_clauses", "_limit_clause", "_offset_clause", "_fetch_clause")
    clauses: list[Any] = [getattr(select, name) for name in names]
    return bool(clauses[0]) or any(clause is not None for clause in clauses[1:])


def _ordered(key: CursorKey) -> AnyColumn:
    ordered = key.column.desc() if key.descending else key.column.asc()
    if key.nulls:
        return ordered.nulls_first() if key.nulls == "first" else ordered.nulls_last()
    return ordered


def _key(element: object, optional_side: frozenset[Any]) -> CursorKey:
    from sqlalchemy import ColumnElement
    from sqlalchemy.sql import operators

    nulls = {operators.nulls_first_op: "first", operators.nulls_last_op: "last"}.get(_modifier(element), "")
    ordered = cast("UnaryExpression[object]", element).element if nulls else element
    modifier = _modifier(ordered)
    column: AnyColumn = (
        cast("UnaryExpression[Any]", ordered).element if modifier else cast(AnyColumn, ordered)
    )
    if modifier not in {None, operators.asc_op, operators.desc_op} or _modifier(column) is not None:
        raise ConfigurationError(
            "order_by takes plain columns, .asc() and .desc(), and .nulls_first() or .nulls_last() behind them",
            parameter="order_by",
        )
    if not isinstance(column, ColumnElement):
        raise ConfigurationError(f"order_by takes columns, not {type(column).__name__}", parameter="order_by")
    if getattr(column, "nullable", False) and not nulls:
        raise ConfigurationError(
            f"order_by column {getattr(column, 'name', '')} may be NULL, which databases sort differently: "
            "add .nulls_first() or .nulls_last()",
            parameter="order_by",
        )
    nullable = may_be_null(column, optional_side)
    return CursorKey(
        column=column,
        descending=modifier is operators.desc_op,
        may_be_null=nullable,
        nulls=cast("Literal['', 'first', 'last']", nulls or ("last" if nullable else "")),
    )


def _modifier(element: object) -> Any:
    return getattr(element, "modifier", None)


def _raw_column(key: CursorKey) -> AnyColumn:
    """The column without its declared type: as the driver returns it and as the database compares it."""
    from sqlalchemy import Label, type_coerce
    from sqlalchemy.types import NULLTYPE

    column = key.column.element if isinstance(key.column, Label) else key.column
    return type_coerce(column, NULLTYPE)


def _bound(name: str, value: object) -> AnyColumn:
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
    return sa.bindparam(name, type_=types.get(type(value), sa.types.NULLTYPE))


def _beyond_condition(keys: Sequence[CursorKey], values: Sequence[object]) -> Condition:
    from sqlalchemy import and_, false, or_, tuple_

    bound = [_bound(f"{AFTER}{number}", value) for number, value in enumerate(values)]
    columns = [_raw_column(key) for key in keys]
    if len({key.descending for key in keys}) == 1 and not any(key.may_be_null for key in keys):
        left: AnyColumn = tuple_(*columns) if len(keys) > 1 else columns[0]
        right: AnyColumn = tuple_(*bound) if len(keys) > 1 else bound[0]
        return left < right if keys[0].descending else left > right
    steps: list[Condition] = []
    equal: list[Condition] = []
    for key, column, value, known in zip(keys, columns, bound, values, strict=True):
        nulls_follow = key.may_be_null and key.nulls == "last"
        if known is not None:
            further = column < value if key.descending else column > value
            steps.append(and_(*equal, or_(further, column.is_(None)) if nulls_follow else further))
        elif not nulls_follow:
            steps.append(and_(*equal, column.is_not(None)))
        equal.append(column.is_(None) if known is None else column == value)
    if values[0] is None or (keys[0].may_be_null and keys[0].nulls == "last"):
        return or_(false(), *steps)
    first = columns[0] <= bound[0] if keys[0].descending else columns[0] >= bound[0]
    return and_(first, or_(*steps))  # an index can only seek by the first bound
