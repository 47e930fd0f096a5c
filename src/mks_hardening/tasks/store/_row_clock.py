"""The one clock that the times of all rows are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Engine

    from mks_hardening.protocols import Clock

__all__ = ["RowClock"]


class RowClock:
    """Now as an expression or number: by the database on PostgreSQL, by this host on SQLite, or by what is given.

    Args:
        engine: where the rows are.
        clock: instead of the two.
    """

    def __init__(self, engine: Engine, clock: Clock | None) -> None:
        self._clock = None if clock is None else given_clock(clock)
        self._engine = engine

    def replace(self, clock: Clock | None) -> Clock | None:
        """Go by another clock from now on; the one before."""
        before, self._clock = self._clock, clock
        return before

    def moment(self) -> ColumnElement[float] | float:
        """Now, to be compared with columns."""
        if self._clock is not None:
            return self._clock.time()
        if self._engine.dialect.name != "postgresql":
            return SYSTEM_CLOCK.time()
        from sqlalchemy import Float, cast, extract, func

        # Stable within a statement, unlike clock_timestamp(), and so fit for a range of an index.
        return cast(extract("epoch", func.statement_timestamp()), Float(53))

    def parameter(self) -> ColumnElement[float]:
        """Now, in a statement that is built once: its value comes from ``values`` at each execution."""
        moment = self.moment()
        if not isinstance(moment, (int, float)):
            return moment
        from sqlalchemy import Float, bindparam

        return bindparam("now", type_=Float(53))

    def values(self) -> dict[str, float]:
        """The values for ``parameter``."""
        moment = self.moment()
        return {"now": moment} if isinstance(moment, (int, float)) else {}

    def read(self) -> float:
        """Now, as a number."""
        moment = self.moment()
        if isinstance(moment, (int, float)):
            return float(moment)
        from sqlalchemy import select

        with self._engine.connect() as connection:
            read: float = connection.execute(select(moment)).scalar_one()
            return read
