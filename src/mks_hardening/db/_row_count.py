"""Counts of rows that do not read a whole table: exact up to a limit, and the planner's estimate beyond it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mks_hardening.db.plan.query_plan import explain

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select
    from sqlalchemy.orm import Session

__all__ = ["RowCount", "count_rows"]

_DIGITS: Final = 2  # the planner's estimates are often wrong by tens of percent
AnySelect: TypeAlias = "Select[*tuple[Any, ...]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCount:
    """Number of rows of a list; its text is what a page can show.

    Attributes:
        rows: number of rows that were counted.
        is_exact: whether these are all rows; otherwise there are more.
        estimate: estimate of PostgreSQL's planner if there are more, from the statistics of the last ANALYZE;
            ``None`` on SQLite, or if it is below what was counted.
    """

    rows: int
    is_exact: bool
    estimate: int | None = None

    def __str__(self) -> str:
        """``1,234``, ``more than 10,000`` or ``more than 10,000 (about 1,200,000)``."""
        if self.is_exact:
            return f"{self.rows:,}"
        about = "" if self.estimate is None else f" (about {_rounded(self.estimate):,})"
        return f"more than {self.rows:,}{about}"


def _rounded(number: int) -> int:
    return round(number, _DIGITS - len(str(number)))


def count_rows(bind: Session | Connection, select: AnySelect, *, limit: int) -> RowCount:
    """Count the rows of a select.

    Args:
        bind: where to execute it.
        select: a select without order or limit.
        limit: number of rows from which on they are not counted.
    """
    from sqlalchemy import func
    from sqlalchemy import select as sql_select

    bounded = select.limit(limit + 1).subquery()
    rows = bind.execute(sql_select(func.count()).select_from(bounded)).scalar_one()
    if rows <= limit:
        return RowCount(rows=rows, is_exact=True)
    estimate: int | None = None
    if _connection(bind).dialect.name == "postgresql":
        plan = cast("dict[str, Any]", explain(bind, select).tree["Plan"])
        estimate = int(plan["Plan Rows"]) if plan["Plan Rows"] > limit else None
    return RowCount(rows=limit, is_exact=False, estimate=estimate)


def _connection(bind: Session | Connection) -> Connection:
    session = cast("Session", bind)
    return cast("Connection", bind) if hasattr(bind, "dialect") else session.connection()
