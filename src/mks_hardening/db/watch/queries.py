"""Query logs and query budgets for a section of code."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from weakref import WeakKeyDictionary

from mks_hardening._core.checks import choice, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.db.engine.fork_guard import guarded_engines
from mks_hardening.db.statement.fingerprints import fingerprint, known_dialect, normalize_sql
from mks_hardening.db.watch._attempt import TransactionAttempt, current_attempt
from mks_hardening.db.watch._batches import BoundValues, values_of
from mks_hardening.db.watch._call_site import Path, call_path, call_site
from mks_hardening.db.watch._execution import Execution
from mks_hardening.db.watch._instrument import attach, detach, engine_of
from mks_hardening.db.watch._window import WatchWindow
from mks_hardening.db.watch.n_plus_one import (
    NPlusOneError,
    NPlusOneFinding,
    StatementGroup,
    hint_for,
    is_allowed,
    names_a_table,
)
from mks_hardening.exceptions import ConfigurationError, MksHardeningError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = [
    "QueryBudgetError",
    "QueryLog",
    "WatchedStatement",
    "query_budget",
    "watch_queries",
]

Action = Literal["collect", "log", "raise"]

# Transaction control and settings are sent by SQLAlchemy, not by the watched code.
_NOT_QUERIES: Final = frozenset(
    {
        "begin",
        "start",
        "commit",
        "rollback",
        "savepoint",
        "release",
        "end",
        "set",
        "show",
        "pragma",
        "prepare",
    }
)
_logs: Final[ContextVar[tuple[QueryLog, ...]]] = ContextVar("mks_hardening.db.logs", default=())
_logger: Final = logging.getLogger("mks_hardening.db")


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedStatement:
    """One executed statement.

    Attributes:
        fingerprint: identifies the statement regardless of its values.
        statement: the statement without its values.
        duration_ms: time spent in the driver in milliseconds.
        rows: number of rows fetched or changed.
        caller: ``file:line`` of the application.
        failed: whether the statement raised an error.
    """

    fingerprint: str
    statement: str
    duration_ms: float
    rows: int
    caller: str
    failed: bool


class QueryBudgetError(MksHardeningError, AssertionError):
    """A block sent more statements than its budget allows.

    Attributes:
        limit: number of statements allowed.
        statements: statements that were sent.
    """

    def __init__(self, limit: int, statements: tuple[WatchedStatement, ...]) -> None:
        lines = (f"  {one.caller}: {one.statement}" for one in statements)
        super().__init__("\n".join((f"{len(statements)} statements, {limit} allowed:", *lines)))
        self.limit = limit
        self.statements = statements


@dataclass(frozen=True, slots=True)
class _LoggedStatement:
    """A statement with the attempt that sent it and, if it can be part of an N+1 pattern, its group key."""

    statement: WatchedStatement
    attempt: TransactionAttempt | None
    key: tuple[str, Path] | None
    values: BoundValues | None
    hint: str

    @property
    def counts(self) -> bool:
        return self.attempt is None or self.attempt.counts


class _Sender(NamedTuple):
    """Where a statement was sent from, and the attempt of a transaction that it belongs to."""

    caller: str
    path: Path
    attempt: TransactionAttempt | None

    @classmethod
    def current(cls) -> _Sender:
        return cls(call_site(), call_path(), current_attempt())


class QueryLog:
    """Statements executed while the log was open.

    Statements of transaction attempts that ``retry_on_serialization_failure`` repeated are excluded.

    Attributes:
        threshold: minimum number of executions from one call path that make a finding.
    """

    def __init__(self, *, threshold: int) -> None:
        self.threshold: int = whole_number(threshold, parameter="threshold", minimum=1)
        self._noted: list[_LoggedStatement] = []
        # Weak references: an abandoned result is finished by the garbage collector, which frees its cursor.
        self._open: WeakKeyDictionary[Execution, tuple[_Sender, Context]] = WeakKeyDictionary()

    @property
    def statements(self) -> tuple[WatchedStatement, ...]:
        """All statements in order, without transaction control; those whose result is still open come last."""
        return tuple(noted.statement for noted in self._noted if noted.counts)

    @property
    def n_plus_one(self) -> tuple[NPlusOneFinding, ...]:
        """N+1 findings, most frequent first."""
        # Grouped by statement and call path: the same line reached from two places forms two groups.
        groups: dict[tuple[str, Path], StatementGroup] = {}
        for noted in self._noted:
            if noted.counts and noted.key is not None and noted.values is not None:
                groups.setdefault(noted.key, StatementGroup(noted.statement, noted.hint)).add(noted.values)
        found = [group for group in groups.values() if group.count >= self.threshold]
        return tuple(group.finding() for group in sorted(found, key=lambda group: -group.count))

    def open(self, execution: Execution) -> None:
        """Register an execution whose rows are still to be fetched, with its sender and context."""
        self._open[execution] = (_Sender.current(), copy_context())

    def close(self) -> None:
        """Add executions whose rows were not read to the end: they were sent nevertheless."""
        for execution, (sender, context) in list(self._open.items()):
            context.run(self._note, execution, sender)
        self._open.clear()

    def add(self, execution: Execution) -> None:
        """Add an execution that has ended."""
        opened = self._open.pop(execution, None)
        self._note(execution, opened[0] if opened else _Sender.current())

    def _note(self, execution: Execution, sender: _Sender) -> None:
        dialect = known_dialect(execution.context.dialect.name)
        text = normalize_sql(execution.statement, dialect=dialect)
        if text.partition(" ")[0] in _NOT_QUERIES:
            return
        statement = WatchedStatement(
            fingerprint=fingerprint(execution.statement, dialect=dialect),
            statement=text,
            duration_ms=round(execution.duration * 1000, 3),
            rows=execution.rows,
            caller=sender.caller,
            failed=execution.error is not None,
        )
        key, values, hint = None, None, ""
        if not execution.executemany and names_a_table(text) and not is_allowed(statement):
            key = (statement.fingerprint, sender.path)
            values = values_of(execution.statement, execution.sent_parameters, dialect)
            hint = hint_for(execution)
        self._noted.append(_LoggedStatement(statement, sender.attempt, key, values, hint))


def watch_queries(
    *engines: Engine | AsyncEngine, action: Action = "collect", threshold: int = 3
) -> WatchWindow[QueryLog]:
    """Record the statements that this thread or task sends, in a ``with`` block or a decorated function.

    Args:
        engines: SQLAlchemy engines; without arguments, all engines created by ``hardened_engine``.
        action: what to do with N+1 patterns at the end: ``collect`` them in ``n_plus_one``, ``log``, or ``raise``.
        threshold: minimum number of executions of one statement from one call path that make a pattern.

    Raises:
        ConfigurationError: there is no engine, or a parameter is invalid.
        NPlusOneError: at the end of the block, with ``action="raise"``.
    """
    choice(action, ("collect", "log", "raise"), parameter="action")
    whole_number(threshold, parameter="threshold", minimum=2)
    for engine in engines:
        engine_of(engine)

    @contextmanager
    def watch() -> Generator[QueryLog]:
        with _watching(engines, threshold) as log:
            yield log
        findings = log.n_plus_one
        if findings and action == "raise":
            raise NPlusOneError(findings)
        if findings and action == "log":
            for found in findings:
                _logger.warning("N+1 statements", extra=asdict(found))

    return WatchWindow(watch)


def query_budget(limit: int, *engines: Engine | AsyncEngine) -> WatchWindow[QueryLog]:
    """Fail if a ``with`` block or a decorated function sends more than ``limit`` statements.

    Transaction control is not counted.

    Args:
        limit: number of statements allowed.
        engines: as for ``watch_queries``.

    Raises:
        ConfigurationError: there is no engine, or the limit is invalid.
        QueryBudgetError: at the end of the block, if it sent more; an ``AssertionError``.
    """
    whole_number(limit, parameter="limit", minimum=0)

    @contextmanager
    def count() -> Generator[QueryLog]:
        with _watching(engines, threshold=3) as log:
            yield log
        if len(log.statements) > limit:
            raise QueryBudgetError(limit, log.statements)

    return WatchWindow(count)


@contextmanager
def _watching(engines: tuple[Engine | AsyncEngine, ...], threshold: int) -> Generator[QueryLog]:
    log = QueryLog(threshold=threshold)
    watched = engines or guarded_engines()
    if not watched:
        raise ConfigurationError("there is no engine to watch", parameter="engines")

    def ended(execution: Execution) -> None:
        if log in _logs.get():  # sent by this thread or task
            log.add(execution)

    def opened(execution: Execution) -> None:
        if log in _logs.get():
            log.open(execution)

    # A context variable, so that statements of other threads and tasks on the same engine are not counted.
    token = _logs.set((*_logs.get(), log))
    try:
        for engine in watched:
            attach(engine, ended, clock=SYSTEM_CLOCK, opened=opened)
        yield log
    finally:
        for engine in watched:
            detach(engine, ended, opened=opened)
        _logs.reset(token)
        log.close()
