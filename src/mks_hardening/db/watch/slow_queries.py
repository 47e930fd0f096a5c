"""Slow statements as structured log records, and statistics of all statements."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sized
from datetime import timedelta
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from mks_hardening._core import hooks
from mks_hardening._core.checks import flag, instance, offers, text_of, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.durations import seconds
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening._core.trace_text import safe_text
from mks_hardening.db.statement._error_fields import describe_error
from mks_hardening.db.statement.fingerprints import Dialect, fingerprint, known_dialect, normalize_sql
from mks_hardening.db.watch._call_site import call_site
from mks_hardening.db.watch._instrument import Execution, attach, detach, dialect_of
from mks_hardening.db.watch._stats_table import StatsTable
from mks_hardening.db.watch.statement_stats import StatementStats
from mks_hardening.events import SlowQuery

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from mks_hardening.protocols import Clock

__all__ = ["SlowQueryMonitor", "slow_query_record"]

# A record must stay a line that log collectors take (many cut at 16 kB).
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
    flag(show_values, parameter="show_values")
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
    except Exception as error:  # noqa: BLE001 - a parameter is foreign code, and a log record must come out
        return f"<{kind} that raises {type(error).__name__}>"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    return safe_text(value, limit=_LONGEST_VALUE)


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
        self._show_values = flag(show_values, parameter="show_values")
        self._logger = (
            logging.getLogger("mks_hardening.db")
            if logger is None
            else offers(logger, "log", "isEnabledFor", parameter="logger", kind="a logger")
        )
        self._clock = clock = given_clock(clock)
        self._valve = _Valve(seconds(log_rate, parameter="log_rate", allow_zero=False), clock)
        self._dialect: Dialect = known_dialect(dialect_of(engine).name)
        self._stats = StatsTable(self._fingerprint, capacity=max_fingerprints)
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
        # Every one, also those that the valve keeps out of the log.
        if hooks.observers:
            hooks.emit(SlowQuery(self._fingerprint(execution.statement), duration_ms, outcome))
        # A database that is slow is slow for everyone: the log must not make it worse.
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
            # Only here, above the threshold: walking the stack costs more than the rest of the hook.
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
