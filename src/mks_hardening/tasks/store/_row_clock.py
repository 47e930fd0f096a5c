"""Common clock for the times of all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening.tasks.store._prepared_statements import single_statement_engine

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Engine

    from mks_hardening.protocols import Clock

__all__ = ["RowClock"]


class RowClock:
    """Current time of the rows: from the database (PostgreSQL), from this host (SQLite), or from ``clock``.

    Args:
        engine: engine of the table.
        clock: clock to use instead of the database or host.
    """

    def __init__(self, engine: Engine, clock: Clock | None) -> None:
        self._clock = None if clock is None else given_clock(clock)
        self._engine = engine

    def replace(self, clock: Clock | None) -> Clock | None:
        """Replace the clock; return the previous one."""
        before, self._clock = self._clock, clock
        return before

    @property
    def _is_in_database(self) -> bool:
        return self._clock is None and self._engine.dialect.name == "postgresql"

    def moment(self) -> ColumnElement[float] | float:
        """Return the current time, for comparison with columns."""
        if not self._is_in_database:
            return self.values()["now"]
        from sqlalchemy import Float, cast, extract, func

        # Stable within a statement, unlike clock_timestamp(), and therefore usable for an index range.
        return cast(extract("epoch", func.statement_timestamp()), Float(53))

    def parameter(self) -> ColumnElement[float]:
        """Return the current time for a prepared statement; ``values`` returns its value at each execution."""
        moment = self.moment()
        if not isinstance(moment, (int, float)):
            return moment
        from sqlalchemy import Float, bindparam

        return bindparam("now", type_=Float(53))

    def values(self) -> dict[str, float]:
        """Return the values for ``parameter``."""
        # Without building the expression of moment(): this runs for every statement.
        if self._is_in_database:
            return {}
        return {"now": (SYSTEM_CLOCK if self._clock is None else self._clock).time()}

    def read(self) -> float:
        """Return the current time as a number."""
        moment = self.moment()
        if isinstance(moment, (int, float)):
            return float(moment)
        from sqlalchemy import select

        with single_statement_engine(self._engine).connect() as connection:
            read: float = connection.execute(select(moment)).scalar_one()
            return read
