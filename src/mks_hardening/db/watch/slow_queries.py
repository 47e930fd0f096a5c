"""Structured log records for slow statements, and statistics of all statements."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sized
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Self, cast

from mks_hardening._core import hooks
from mks_hardening._core.checks import boolean, instance, text_of, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.durations import seconds
from mks_hardening._core.exception_text import safe_text
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening.db.statement._error_fields import describe_error
from mks_hardening.db.statement.fingerprints import Dialect, fingerprint, known_dialect, normalize_sql
from mks_hardening.db.watch._call_site import call_site
from mks_hardening.db.watch._execution import Execution
from mks_hardening.db.watch._instrument import attach, detach, dialect_of
from mks_hardening.db.watch._monitor import Monitor, monitor_logger
from mks_hardening.db.watch._stats_table import StatsTable
from mks_hardening.db.watch.statement_stats import StatementStats
from mks_hardening.events import SlowQuery

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from mks_hardening.protocols import Clock

__all__ = ["SlowQueryMonitor", "slow_query_record"]

# Keeps the record short enough for log collectors (many truncate at 16 kB).
_LONGEST_STATEMENT: Final = 4096
_LONGEST_VALUE: Final = 200
_MOST_VALUES: Final = 50
_DEEPEST_VALUE: Final = 5


def slow_query_record(
    statement: str,
    parameters: object,
    *,
    error: BaseException | None = None,
    show_values: bool = False,
    dialect: Dialect = "postgresql",
) -> dict[str, object]:
    """Describe a statement for a log record, without its values unless requested.

    Args:
        statement: SQL text; literals in it are always replaced.
        parameters: one set of parameters or, for ``executemany``, a sequence of sets.
        error: exception raised by the driver or SQLAlchemy.
        show_values: include the parameters, redacted by name and pattern, and the driver's full message.
        dialect: SQL dialect of the statement.

    Returns:
        ``fingerprint`` and ``statement``; ``parameter_count`` or ``parameters``; ``error`` if there was one.
    """
    boolean(show_values, parameter="show_values")
    if error is not None:
        instance(error, BaseException, parameter="error")
    text = normalize_sql(text_of(statement, parameter="statement"), dialect=dialect)
    record: dict[str, object] = {
        "fingerprint": fingerprint(statement, dialect=dialect),
        "statement": text if len(text) <= _LONGEST_STATEMENT else text[:_LONGEST_STATEMENT] + "…",
    }
    if show_values:
        record["parameters"] = default_redactor().redact(_shown(parameters, _DEEPEST_VALUE))
    else:
        record["parameter_count"] = len(parameters) if isinstance(parameters, Sized) else 0
    if error is not None:
        record["error"] = describe_error(error, show_values=show_values)
    return record


def _shown(value: object, depth: int) -> object:
    kind = type(value).__name__
    try:
        if depth > 0 and isinstance(value, Mapping):
            items = islice(cast("Mapping[object, object]", value).items(), _MOST_VALUES)
            return {safe_text(name): _shown(one, depth - 1) for name, one in items}
        if depth > 0 and isinstance(value, (list, tuple)):
            return [_shown(one, depth - 1) for one in islice(cast("Iterable[object]", value), _MOST_VALUES)]
    except Exception as error:  # noqa: BLE001 - a parameter is foreign code, and the log record must be written
        return f"<{kind} that raises {type(error).__name__}>"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    return safe_text(value, limit=_LONGEST_VALUE)


class SlowQueryMonitor(Monitor):
    """Measure every statement of one engine and log slow ones on ``mks_hardening.db``.

    The duration is the time spent in the driver, including fetching. Results whose rows are read one by one cost
    about 0.2 microseconds more per row. The monitor is inactive until ``install``.

    Args:
        engine: an SQLAlchemy ``Engine`` or ``AsyncEngine``.
        threshold: duration in seconds from which a statement is slow.
        show_values: also log parameters (redacted); for development.
        log_rate: maximum number of records per second; the next record contains the number of omitted ones.
        max_fingerprints: maximum number of statements with separate statistics.
        logger: logger to use instead of ``mks_hardening.db``.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid.
    """

    def __init__(
        self,
        engine: Engine | AsyncEngine,
        *,
        threshold: float | timedelta = 0.1,
        show_values: bool = False,
        log_rate: float = 10.0,
        max_fingerprints: int = 1000,
        logger: logging.Logger | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        whole_number(max_fingerprints, parameter="max_fingerprints", minimum=1)
        self._engine = engine
        self._threshold = seconds(threshold, parameter="threshold")
        self._show_values = boolean(show_values, parameter="show_values")
        self._logger = monitor_logger(logger)
        self._clock = clock = given_clock(clock)
        self._log_limit = _LogRateLimit(seconds(log_rate, parameter="log_rate", allow_zero=False), clock)
        self._dialect: Dialect = known_dialect(dialect_of(engine).name)
        self._stats = StatsTable(
            self._fingerprint,
            capacity=max_fingerprints,
            normalize=partial(normalize_sql, dialect=self._dialect),
        )
        self._installed = False

    def install(self) -> Self:
        """Start monitoring; idempotent."""
        if not self._installed:
            attach(self._engine, self._finished, clock=self._clock)
            self._installed = True
        return self

    def uninstall(self) -> None:
        """Stop monitoring and restore the engine; idempotent."""
        if self._installed:
            detach(self._engine, self._finished)
            self._installed = False

    def stats(self) -> list[StatementStats]:
        """Return the statistics per fingerprint, sorted by total time in descending order."""
        return self._stats.snapshot()

    def reset(self) -> None:
        """Delete the statistics."""
        self._stats.reset()

    def _fingerprint(self, text: str) -> str:
        return fingerprint(text, dialect=self._dialect)

    def _finished(self, execution: Execution) -> None:
        duration = execution.duration
        text = execution.context.statement or ""
        self._stats.add(text, duration, execution.rows, failed=execution.error is not None)
        if duration >= self._threshold:
            self._report(execution)

    def _report(self, execution: Execution) -> None:
        outcome = "error" if execution.error else "ok"
        duration_ms = round(execution.duration * 1000, 3)
        # Emitted for every slow statement, including those omitted from the log.
        if hooks.observers:
            hooks.emit(SlowQuery(self._fingerprint(execution.statement), duration_ms, outcome))
        # A slow database slows down all statements at once: logging must not make it worse.
        left_out = self._log_limit.acquire()
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
            # Only above the threshold: walking the stack costs more than the rest of the hook.
            "caller": call_site(),
        }
        if left_out:
            record["left_out"] = left_out
        self._logger.warning("slow query", extra=record)


class _LogRateLimit:
    """Rate limit (token bucket) that counts what it rejects."""

    __slots__ = ("_clock", "_left_out", "_rate", "_refilled", "_tokens")

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = max(1.0, rate)
        self._refilled = clock.monotonic()
        self._left_out = 0

    def acquire(self) -> int | None:
        """Number of records omitted since the last one that passed; ``None`` if this one must not pass."""
        now = self._clock.monotonic()
        self._tokens = min(max(1.0, self._rate), self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._tokens < 1:
            self._left_out += 1
            return None
        self._tokens -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out
