"""Common clock for the times of all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock

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

    def moment(self) -> ColumnElement[float] | float:
        """Return the current time, for comparison with columns."""
        if self._clock is not None:
            return self._clock.time()
        if self._engine.dialect.name != "postgresql":
            return SYSTEM_CLOCK.time()
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
        moment = self.moment()
        return {"now": moment} if isinstance(moment, (int, float)) else {}

    def read(self) -> float:
        """Return the current time as a number."""
        moment = self.moment()
        if isinstance(moment, (int, float)):
            return float(moment)
        from sqlalchemy import select

        with self._engine.connect() as connection:
            read: float = connection.execute(select(moment)).scalar_one()
            return read
