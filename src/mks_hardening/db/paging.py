"""Keyset paging: pages cost the same at any depth, because they start after a compared key instead of an offset.

``(updated_at, id) < (:a, :b)`` is a single index range. The expanded OR form that most libraries emit is a full
scan on SQLite and half of one on PostgreSQL, and OFFSET reads all rows that it skips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mks_hardening._core.checks import instances, offers, text_of, whole_number
from mks_hardening._core.optional_imports import optional
from mks_hardening.db._cursor import CursorPosition, InvalidCursorError, read_cursor, write_cursor
from mks_hardening.db._paged_list import KEY, PagedList, clause_of, paged_list
from mks_hardening.db.watch.n_plus_one import AllowedStatements
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Result, Select
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import QueryableAttribute, Session

__all__ = ["InvalidCursorError", "Page", "PageResult", "keyset_page"]

# Rows of any shape: the select is the caller's. (SQLAlchemy 2.1 reads a bare Any as one column.)
AnySelect: TypeAlias = "Select[*tuple[Any, ...]]"
AnyOrder: TypeAlias = "ColumnElement[Any] | QueryableAttribute[Any]"

_LARGEST_PAGE: Final = 1000
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
    """A select limited to one page; ``fetch`` executes it, and ``afetch`` does so for asyncio."""

    __slots__ = ("_after", "_limit", "_list")

    def __init__(self, paged: PagedList, *, after: CursorPosition | None, limit: int) -> None:
        self._list = paged
        self._after = after
        self._limit = limit

    @property
    def statement(self) -> AnySelect:
        """The select with order, bounds, appended key columns, and a limit of one extra row."""
        statement, values = self._list.page(self._after, self._limit)
        return statement.params(values) if values else statement

    def fetch(self, bind: Session | Connection) -> PageResult:
        """Execute the select.

        Raises:
            ConfigurationError: the next page would be wrong, because two rows are equal in all order columns, or
                the driver returns a value that cannot be compared again.
            InvalidCursorError: the cursor was created on another kind of database.
        """
        keys, width = self._list.keys, self._list.width
        statement, values = self._list.page(self._after, self._limit)
        dialect = _dialect_of(bind, statement)
        of_sqlite = dialect == "sqlite"
        if self._after is None:
            result = bind.execute(statement)
        elif self._after.of_sqlite is not of_sqlite:
            raise InvalidCursorError("the cursor was made on another kind of database")
        else:
            # A loop over all pages legitimately repeats the same statement from one call site; a first page for
            # each of many parents is N+1.
            with AllowedStatements("*"):
                result = bind.execute(statement, values)
        codes = _type_codes(result, len(keys)) if dialect == "postgresql" else None
        items, rows = _read(_unique(result), width)
        if len(rows) <= self._limit:
            return PageResult(items=items, next_cursor=None)
        last, following = (tuple(row[width:]) for row in rows[self._limit - 1 : self._limit + 1])
        if last == following:
            raise ConfigurationError(
                "order_by must identify every row: end it with the primary key",
                parameter="order_by",
            )
        if codes is not None:
            last = tuple(map(_exact_number, last, codes))
        cursor = write_cursor(keys, last, of_sqlite=of_sqlite)
        return PageResult(items=items[: self._limit], next_cursor=cursor)

    async def afetch(self, bind: AsyncSession | AsyncConnection) -> PageResult:
        """``fetch`` for asyncio.

        Raises:
            ConfigurationError: as for ``fetch``, or ``bind`` is not asynchronous.
            InvalidCursorError: as for ``fetch``.
        """
        offers(bind, "run_sync", parameter="bind", kind="an AsyncSession or AsyncConnection")
        return await bind.run_sync(self.fetch)


def _read(result: Result[Any], width: int) -> tuple[list[Any], Sequence[Any]]:
    """Read all rows: the items of the caller's columns, and the rows with all columns."""
    if width == 1:
        rows = result.all()
        return [row[0] for row in rows], rows
    frozen = result.freeze()
    return list(frozen().columns(*range(width))), frozen().all()


def _dialect_of(bind: Session | Connection, statement: AnySelect) -> str:
    session = cast("Session", bind)
    found = bind if hasattr(bind, "dialect") else session.get_bind(clause=statement)
    return cast("Connection", found).dialect.name


def _type_codes(result: Result[Any], keys: int) -> list[object]:
    """PostgreSQL type OIDs of the order columns, wherever eager loading has placed them."""
    cursor_result: Any = getattr(result, "raw", result)  # the ORM wraps the result of Core
    described = {str(name): code for name, code, *_ in cursor_result.cursor.description}
    return [
        next((code for name, code in described.items() if name.endswith(f"{KEY}{n}")), None)
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
    order = [clause_of(one) for one in instances(order_by, object, parameter="order_by")]
    paged = paged_list(select, order)
    return Page(paged, after=None if after is None else read_cursor(after, paged.keys), limit=limit)
