"""Keyset paging: pages cost the same at any depth, because they start after a compared key instead of an offset.

``(updated_at, id) < (:a, :b)`` is a single index range. The expanded OR form that most libraries emit is a full
scan on SQLite and half of one on PostgreSQL, and OFFSET reads all rows that it skips.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mks_hardening._core.checks import instances, offers, text_of, whole_number
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.signing_keys import signing_secrets
from mks_hardening.db._cursor import CursorPosition, CursorSeal, InvalidCursorError, read_cursor, write_cursor
from mks_hardening.db._paged_list import KEY, PagedList, clause_of, paged_list
from mks_hardening.db._row_count import RowCount, count_rows
from mks_hardening.db.watch.n_plus_one import AllowedStatements
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Result, Select
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import QueryableAttribute, Session

__all__ = ["InvalidCursorError", "Page", "PageResult", "RowCount", "keyset_page"]

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
        previous_cursor: value of ``before`` for the previous page; ``None`` on the first page. Both are ``None`` if
            the page is empty, because all rows on that side of the cursor have been deleted.
    """

    items: list[Any]
    next_cursor: str | None
    previous_cursor: str | None = None


class Page:
    """A select limited to one page; ``fetch`` executes it, ``count`` counts all rows of the list.

    ``afetch`` and ``acount`` do so for asyncio.
    """

    __slots__ = ("_backward", "_beyond", "_limit", "_list", "_seal")

    def __init__(
        self,
        paged: PagedList,
        *,
        beyond: CursorPosition | None,
        backward: bool,
        limit: int,
        seal: CursorSeal | None,
    ) -> None:
        self._list = paged
        self._beyond = beyond
        self._backward = backward
        self._limit = limit
        self._seal = seal

    @property
    def statement(self) -> AnySelect:
        """The select with order, bounds, appended key columns, and a limit of one extra row.

        For the page before a cursor, its order is the opposite one.
        """
        statement, values = self._list.page(self._beyond, self._limit, backward=self._backward)
        return statement.params(values) if values else statement

    def fetch(self, bind: Session | Connection) -> PageResult:
        """Execute the select.

        Raises:
            ConfigurationError: the next page would be wrong, because two rows are equal in all order columns, or
                the driver returns a value that cannot be compared again.
            InvalidCursorError: the cursor was created on another kind of database.
        """
        width, limit = self._list.width, self._limit
        statement, values = self._list.page(self._beyond, limit, backward=self._backward)
        dialect = _dialect_of(bind, statement)
        of_sqlite = dialect == "sqlite"
        if self._beyond is None:
            result = bind.execute(statement)
        elif self._beyond.of_sqlite is not of_sqlite:
            raise InvalidCursorError("the cursor was made on another kind of database")
        else:
            # A loop over all pages legitimately repeats the same statement from one call site; a first page for
            # each of many parents is N+1.
            with AllowedStatements("*"):
                result = bind.execute(statement, values)
        codes = _type_codes(result, len(self._list.keys)) if dialect == "postgresql" else None
        items, rows = _read(_unique(result), width)
        has_more = len(rows) > limit
        if has_more and rows[limit - 1][width:] == rows[limit][width:]:
            raise ConfigurationError(
                "order_by must identify every row: end it with the primary key",
                parameter="order_by",
            )
        items, rows = items[:limit], rows[:limit]

        def cursor_of(row: int) -> str:
            stored: Sequence[object] = rows[row][width:]
            if codes is not None:
                stored = list(map(_exact_number, stored, codes))
            return write_cursor(self._list.keys, stored, of_sqlite=of_sqlite, seal=self._seal)

        # There are rows on the side from which the cursor came.
        further = cursor_of(-1) if has_more else None
        back = cursor_of(0) if rows and self._beyond is not None else None
        if self._backward:
            return PageResult(items=items[::-1], next_cursor=back, previous_cursor=further)
        return PageResult(items=items, next_cursor=further, previous_cursor=back)

    async def afetch(self, bind: AsyncSession | AsyncConnection) -> PageResult:
        """``fetch`` for asyncio.

        Raises:
            ConfigurationError: as for ``fetch``, or ``bind`` is not asynchronous.
            InvalidCursorError: as for ``fetch``.
        """
        offers(bind, "run_sync", parameter="bind", kind="an AsyncSession or AsyncConnection")
        return await bind.run_sync(self.fetch)

    def count(self, bind: Session | Connection, *, limit: int = 10_000) -> RowCount:
        """Count the rows of the whole list, and stop at a limit.

        Beyond the limit, PostgreSQL's planner is asked for an estimate (``explain``, a few more round trips).

        Args:
            bind: where to execute the statements.
            limit: number of rows from which on the count is not exact.

        Raises:
            ConfigurationError: ``limit`` is invalid.
        """
        whole_number(limit, parameter="limit", minimum=1)
        return count_rows(bind, self._list.given, limit=limit)

    async def acount(self, bind: AsyncSession | AsyncConnection, *, limit: int = 10_000) -> RowCount:
        """``count`` for asyncio.

        Raises:
            ConfigurationError: as for ``count``, or ``bind`` is not asynchronous.
        """
        offers(bind, "run_sync", parameter="bind", kind="an AsyncSession or AsyncConnection")
        return await bind.run_sync(lambda own: self.count(own, limit=limit))


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


@cache
def _select_class() -> type[Any]:
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import Select
    kind: type[Any] = Select
    return kind


def keyset_page(
    select: AnySelect,
    *,
    order_by: Sequence[AnyOrder],
    after: str | None = None,
    before: str | None = None,
    limit: int = 50,
    signing_keys: Iterable[str | bytes] | None = None,
) -> Page:
    """Limit ``select`` to one page, after or before the row that a cursor identifies.

    The cursor is opaque but not secret; it is only used as bound parameters of comparisons with ``order_by``. Rows
    that are inserted or deleted between two pages cause neither duplicates nor gaps. The comparison uses the values
    stored in the database, not their Python conversions: times with and without a fraction, numbers with more
    digits than their scale, and ``real`` columns declared as ``Float`` are paged correctly.

    Args:
        select: a select without its own order or limit. It may be grouped; collections may be loaded by
            ``joinedload`` or ``selectinload`` (``contains_eager`` of a collection, which a limit would cut, is
            rejected). Expressions
            that depend on rows of other pages (window functions, DISTINCT ON) belong in a subquery; with DISTINCT,
            the order may only use selected columns.
        order_by: columns, each plain, ``.asc()`` or ``.desc()``; for a grouped select also aggregates. Nullable
            columns end with ``.nulls_first()`` or ``.nulls_last()``; other values that are NULL, because of an
            outer join or as the sum of no rows, come last. ``fetch`` rejects a PostgreSQL interval: order by
            ``extract("epoch", column)``. Together they must be unique, so the last one is usually the primary key.
        after: ``next_cursor`` of the previous page.
        before: ``previous_cursor`` of the next page; if fewer than ``limit`` rows are left, the page is shorter.
        limit: rows per page, 1 to 1000.
        signing_keys: secrets of at least 16 bytes that sign the cursors; the first one signs, all are accepted. A
            signed cursor is only valid for the same select with the same values, so a value that changes with each
            request, such as the current time, belongs in SQL (``func.now()``). ``None``: cursors are not signed,
            and only bound to the order.

    Raises:
        ConfigurationError: a parameter is invalid.
        InvalidCursorError: the cursor is damaged, forged or belongs to another order or, signed, another select.
    """
    if not isinstance(select, _select_class()):
        raise ConfigurationError(
            f"select must be a select(), not {type(select).__name__}", parameter="select"
        )
    whole_number(limit, parameter="limit", minimum=1, maximum=_LARGEST_PAGE)
    if after is not None and before is not None:
        raise ConfigurationError("before cannot be combined with after", parameter="before")
    cursor = after if before is None else before
    if cursor is not None:
        text_of(cursor, parameter="after" if before is None else "before")
    secrets = signing_secrets(signing_keys)
    order = [clause_of(one) for one in instances(order_by, object, parameter="order_by")]
    paged = paged_list(select, order)
    seal = CursorSeal(secrets, paged.text()) if secrets else None
    beyond = None if cursor is None else read_cursor(cursor, paged.keys, seal=seal)
    return Page(paged, beyond=beyond, backward=before is not None, limit=limit, seal=seal)
