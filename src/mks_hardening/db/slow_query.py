"""Slow statements as structured log records, and statistics of all statements."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from mks_hardening._core import hooks
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.durations import seconds
from mks_hardening._core.redact import default_redactor
from mks_hardening.db.call_site import call_site
from mks_hardening.db.instrument import Execution, attach, detach, dialect_of
from mks_hardening.db.query_stats import QueryStats, StatementStats
from mks_hardening.db.sql_error import describe_error
from mks_hardening.db.sql_fingerprint import Dialect, fingerprint, known_dialect, normalize_sql
from mks_hardening.events import SlowQuery
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mks_hardening.protocols import Clock

__all__ = ["SlowQueryMonitor", "slow_query_record"]

_LONGEST_STATEMENT: Final = 4096
_LONGEST_VALUE: Final = 200
_MOST_VALUES: Final = 50


def slow_query_record(
    statement: str,
    parameters: object,
    *,
    error: BaseException | None = None,
    show_values: bool = False,
    dialect: Dialect = "postgresql",
) -> dict[str, Any]:
    """What may be told about a statement: its shape, never its values unless asked for.

    Args:
        statement: SQL text; literals in it are always replaced.
        parameters: one set of parameters or, for ``executemany``, a sequence of sets.
        error: what the driver or SQLAlchemy raised.
        show_values: add the parameters, redacted by name and pattern, and the driver's full message.
        dialect: how to read the statement.

    Returns:
        ``fingerprint`` and ``statement``; ``parameter_count`` or ``parameters``; ``error`` when there was one.
    """
    text = normalize_sql(statement, dialect=dialect)
    record: dict[str, Any] = {
        "fingerprint": fingerprint(statement, dialect=dialect),
        "statement": text if len(text) <= _LONGEST_STATEMENT else text[:_LONGEST_STATEMENT] + "…",
    }
    if show_values:
        record["parameters"] = default_redactor().redact(_shown(parameters))
    else:
        record["parameter_count"] = len(cast("Any", parameters)) if hasattr(parameters, "__len__") else 0
    if error is not None:
        record["error"] = describe_error(error, show_values=show_values)
    return record


def _shown(value: Any) -> object:
    if hasattr(value, "items"):
        items = list(value.items())[:_MOST_VALUES]
        return {str(name): _shown(one) for name, one in items}
    if isinstance(value, (list, tuple)):
        return [_shown(one) for one in cast("Iterable[Any]", value[:_MOST_VALUES])]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = f"<{len(value)} bytes>" if isinstance(value, (bytes, bytearray)) else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


class SlowQueryMonitor:
    """Times every statement of one engine and logs those above a threshold on ``mks_hardening.db``.

    The time counted is what the driver takes, fetching included. Results whose rows are read one by one cost about
    0.2 microseconds a row more. Nothing happens before ``install``.

    Args:
        engine: an SQLAlchemy ``Engine`` or ``AsyncEngine``.
        threshold: seconds from which a statement is slow.
        show_values: log parameters (redacted) too; for development.
        log_rate: most records a second; the next one tells how many were left out.
        max_fingerprints: statements kept apart in the statistics.
        logger: where to log instead.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is impossible.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        threshold: float | timedelta = 0.1,
        show_values: bool = False,
        log_rate: float = 10.0,
        max_fingerprints: int = 1000,
        logger: logging.Logger | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if max_fingerprints < 1:
            raise ConfigurationError("max_fingerprints must be at least 1", parameter="max_fingerprints")
        self._engine = engine
        self._threshold = seconds(threshold, parameter="threshold")
        self._show_values = show_values
        self._logger = logger or logging.getLogger("mks_hardening.db")
        self._clock = clock
        self._valve = _Valve(seconds(log_rate, parameter="log_rate", allow_zero=False), clock)
        self._dialect: Dialect = known_dialect(dialect_of(engine).name)
        self._stats = QueryStats(self._fingerprint, capacity=max_fingerprints)
        self._installed = False

    def install(self) -> SlowQueryMonitor:
        """Begin to watch; harmless when called twice."""
        if not self._installed:
            attach(self._engine, self._finished, clock=self._clock)
            self._installed = True
        return self

    def uninstall(self) -> None:
        """Stop watching and leave the engine as it was; harmless when called twice."""
        if self._installed:
            detach(self._engine, self._finished)
            self._installed = False

    def stats(self) -> list[StatementStats]:
        """Statistics per fingerprint, those that took most time in total first."""
        return self._stats.snapshot()

    def reset(self) -> None:
        """Forget the statistics."""
        self._stats.reset()

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstall()

    def _fingerprint(self, text: str) -> str:
        return fingerprint(text, dialect=self._dialect)

    def _finished(self, execution: Execution) -> None:
        self._stats.add(
            execution.statement, execution.duration, execution.rows, failed=execution.error is not None
        )
        if execution.duration >= self._threshold:
            self._report(execution)

    def _report(self, execution: Execution) -> None:
        outcome = "error" if execution.error else "ok"
        duration_ms = round(execution.duration * 1000, 3)
        if hooks.observers:
            hooks.emit(SlowQuery(self._fingerprint(execution.statement), duration_ms, outcome))
        left_out = self._valve.open()
        if left_out is None:
            return
        record = slow_query_record(
            execution.statement,
            execution.parameters,
            error=execution.error,
            show_values=self._show_values,
            dialect=self._dialect,
        )
        record |= {
            "duration_ms": duration_ms,
            "rows": execution.rows,
            "outcome": outcome,
            "caller": call_site(),
        }
        if left_out:
            record["left_out"] = left_out
        self._logger.warning("slow query", extra=record)


class _Valve:
    """Lets so many a second through, and counts the others."""

    __slots__ = ("_clock", "_left_out", "_rate", "_refilled", "_tokens")

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = max(1.0, rate)
        self._refilled = clock.monotonic()
        self._left_out = 0

    def open(self) -> int | None:
        """How many were left out since the last one that passed; ``None`` when this one must not pass."""
        now = self._clock.monotonic()
        self._tokens = min(max(1.0, self._rate), self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._tokens < 1:
            self._left_out += 1
            return None
        self._tokens -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out
