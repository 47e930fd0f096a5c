"""Overview of a time range for administrators: series for the plots, totals, slow statements with their plans."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from knowledge_system.services.operations.metric_counts import MetricCounts, SlowStatement
from mks_hardening.db import explain
from mks_hardening.exceptions import MksHardeningError

_MOST_SLOW = 8


class Overview(NamedTuple):
    """Counts per time step, oldest first, and their total."""

    moments: list[datetime]
    each: list[MetricCounts]
    total: MetricCounts

    @property
    def slowest(self) -> list[SlowStatement]:
        """The slow statements by their total time; those of an earlier release by their longest time."""
        return sorted(self.total.slow.values(), key=lambda each: (-each.total_ms, -each.longest_ms))[
            :_MOST_SLOW
        ]


def overview(
    samples: list[tuple[datetime, MetricCounts]], *, now: datetime, hours: int, step: timedelta
) -> Overview:
    """Group the samples of the last hours into equal time steps; a step without samples is empty."""
    size = step.total_seconds()
    last = now.timestamp() // size
    first = int(last - hours * 3600 / size) + 1
    each = {number: MetricCounts() for number in range(first, int(last) + 1)}
    for at, counts in samples:
        number = int(at.timestamp() // size)
        if number in each:
            each[number].add(counts)
    moments = [datetime.fromtimestamp(number * size, now.tzinfo) for number in each]
    return Overview(moments, list(each.values()), MetricCounts.total(each.values()))


def plan_of(engine: Engine, statement: str) -> str | None:
    """Return the generic plan of a slow statement; ``None`` if the database does not provide one.

    The statement was sent by the application; it is explained without its values, and not executed.
    """
    if ";" in statement or not statement.startswith(("select", "with", "update", "delete", "insert")):
        return None
    try:
        if engine.dialect.name == "sqlite":
            return explain(engine, statement.replace("?", "NULL")).text
        return _generic_plan(engine, statement)
    except (SQLAlchemyError, MksHardeningError, engine.dialect.loaded_dbapi.Error):
        return None


def _generic_plan(engine: Engine, statement: str) -> str:
    """Return PostgreSQL's generic plan, without executing the statement."""
    places = statement.count("?")
    numbers = iter(range(1, places + 1))
    asked = re.sub(r"\?", lambda _: f"${next(numbers)}", statement)
    values = ", ".join(["NULL"] * places)
    with engine.connect() as connection, closing(connection.connection.cursor()) as cursor:
        try:  # bypasses SQLAlchemy, which would always send parameters
            cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            cursor.execute(f"PREPARE slow_statement AS {asked}")
            cursor.execute(f"EXPLAIN (COSTS OFF) EXECUTE slow_statement{f'({values})' if values else ''}")
            lines = [str(line) for (line,) in cursor.fetchall()]
            cursor.execute("DEALLOCATE slow_statement")
        except BaseException:
            connection.invalidate()  # prepared statements survive the transaction, but not the connection
            raise
    return "\n".join(lines)
