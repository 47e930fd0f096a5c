"""What a piece of code asks of the database: its statements, and budgets for tests."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal
from weakref import WeakKeyDictionary

from mks_hardening._core.checks import choice, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.db.engine.fork_guard import guarded_engines
from mks_hardening.db.statement.fingerprints import Dialect, fingerprint, known_dialect, normalize_sql
from mks_hardening.db.watch._attempt import TransactionAttempt, current_attempt
from mks_hardening.db.watch._batches import BoundValues, values_of
from mks_hardening.db.watch._call_site import Path, call_path, call_site
from mks_hardening.db.watch._instrument import Execution, Listener, attach, detach, dialect_of, engine_of
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

# Transaction control and settings: SQLAlchemy sends them, not the code that is watched.
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
    """One statement that was executed.

    Attributes:
        fingerprint: names the statement whatever its values are.
        statement: the statement without its values.
        duration_ms: time the driver took.
        rows: rows fetched or changed.
        caller: ``file:line`` of the application.
        failed: whether the database refused it.
    """

    fingerprint: str
    statement: str
    duration_ms: float
    rows: int
    caller: str
    failed: bool


class QueryBudgetError(MksHardeningError, AssertionError):
    """A block sent more statements than it was given.

    Attributes:
        limit: the budget.
        statements: what was sent.
    """

    def __init__(self, limit: int, statements: tuple[WatchedStatement, ...]) -> None:
        lines = (f"  {one.caller}: {one.statement}" for one in statements)
        super().__init__("\n".join((f"{len(statements)} statements, {limit} allowed:", *lines)))
        self.limit = limit
        self.statements = statements


@dataclass(frozen=True, slots=True)
class _Noted:
    """A statement, the attempt that sent it, and, where it may be one of many, what it is grouped by."""

    statement: WatchedStatement
    attempt: TransactionAttempt | None
    key: tuple[str, Path] | None
    values: BoundValues | None
    hint: str

    @property
    def counts(self) -> bool:
        return self.attempt is None or self.attempt.counts


class QueryLog:
    """What was executed while it was open.

    Statements of a transaction that ``retry_on_serialization_failure`` has run again are left out.

    Attributes:
        threshold: executions from one place that make a finding.
    """

    def __init__(self, *, threshold: int) -> None:
        self.threshold: int = whole_number(threshold, parameter="threshold", minimum=1)
        self._noted: list[_Noted] = []
        # Not held: a result that nobody refers to any more ends by itself, and gives its cursor back.
        self._open: WeakKeyDictionary[
            Execution, tuple[str, Path, TransactionAttempt | None, Dialect, Context]
        ] = WeakKeyDictionary()

    @property
    def statements(self) -> tuple[WatchedStatement, ...]:
        """All statements in order, transaction control left out; those whose result is still open come last."""
        return tuple(noted.statement for noted in self._noted if noted.counts)

    @property
    def n_plus_one(self) -> tuple[NPlusOneFinding, ...]:
        """The findings, most frequent first."""
        # By statement and by the way the code came to it: the same line called from two places is two groups.
        groups: dict[tuple[str, Path], StatementGroup] = {}
        for noted in self._noted:
            if noted.counts and noted.key is not None and noted.values is not None:
                groups.setdefault(noted.key, StatementGroup(noted.statement, noted.hint)).add(noted.values)
        found = [group for group in groups.values() if group.count >= self.threshold]
        return tuple(group.finding() for group in sorted(found, key=lambda group: -group.count))

    def open(self, execution: Execution, dialect: Dialect) -> None:
        """Remember an execution whose rows are yet to be fetched, and what is allowed where it began."""
        self._open[execution] = (call_site(), call_path(), current_attempt(), dialect, copy_context())

    def close(self) -> None:
        """Note what has not been read to its end: it was sent all the same."""
        for execution, (caller, path, attempt, dialect, context) in list(self._open.items()):
            context.run(self._note, execution, caller, path, attempt, dialect)
        self._open.clear()

    def add(self, execution: Execution, dialect: Dialect) -> None:
        """Note an execution that has ended."""
        began = self._open.pop(execution, None)
        caller, path, attempt = began[:3] if began else (call_site(), call_path(), current_attempt())
        self._note(execution, caller, path, attempt, dialect)

    def _note(
        self,
        execution: Execution,
        caller: str,
        path: Path,
        attempt: TransactionAttempt | None,
        dialect: Dialect,
    ) -> None:
        text = normalize_sql(execution.statement, dialect=dialect)
        if text.partition(" ")[0] in _NOT_QUERIES:
            return
        statement = WatchedStatement(
            fingerprint=fingerprint(execution.statement, dialect=dialect),
            statement=text,
            duration_ms=round(execution.duration * 1000, 3),
            rows=execution.rows,
            caller=caller,
            failed=execution.error is not None,
        )
        key, values, hint = None, None, ""
        if not execution.executemany and names_a_table(text) and not is_allowed(statement):
            key = (statement.fingerprint, path)
            values = values_of(execution.statement, execution.sent_parameters, dialect)
            hint = hint_for(execution)
        self._noted.append(_Noted(statement, attempt, key, values, hint))


def watch_queries(
    *engines: Engine | AsyncEngine, action: Action = "collect", threshold: int = 3
) -> WatchWindow[QueryLog]:
    """Watch what this thread or task asks of the engines, in a ``with`` block or a decorated function.

    Args:
        engines: SQLAlchemy engines; all that ``hardened_engine`` made when left out.
        action: what to do with N+1 patterns at the end: only keep them in ``n_plus_one``, ``log``, or ``raise``.
        threshold: executions of one statement from one place that make a pattern.

    Raises:
        ConfigurationError: no engine, or an impossible parameter.
        NPlusOneError: at the end, with ``action="raise"``.
    """
    choice(action, ("collect", "log", "raise"), parameter="action")
    whole_number(threshold, parameter="threshold", minimum=2)
    for engine in engines:
        engine_of(engine)

    @contextmanager
    def watch() -> Generator[QueryLog]:
        log = QueryLog(threshold=threshold)
        with _watching(engines, log):
            yield log
        findings = log.n_plus_one
        if findings and action == "raise":
            raise NPlusOneError(findings)
        if findings and action == "log":
            for found in findings:
                _logger.warning("N+1 statements", extra=asdict(found))

    return WatchWindow(watch)


def query_budget(limit: int, *engines: Engine | AsyncEngine) -> WatchWindow[QueryLog]:
    """Fail when a ``with`` block or a decorated function sends more than ``limit`` statements.

    Transaction control is not counted.

    Args:
        limit: statements allowed.
        engines: as for ``watch_queries``.

    Raises:
        ConfigurationError: no engine, or an impossible limit.
        QueryBudgetError: at the end, when there were more; an ``AssertionError``.
    """
    whole_number(limit, parameter="limit", minimum=0)

    @contextmanager
    def count() -> Generator[QueryLog]:
        log = QueryLog(threshold=3)
        with _watching(engines, log):
            yield log
        if len(log.statements) > limit:
            raise QueryBudgetError(limit, log.statements)

    return WatchWindow(count)


@contextmanager
def _watching(engines: tuple[Engine | AsyncEngine, ...], log: QueryLog) -> Generator[None]:
    watched = engines or guarded_engines()
    if not watched:
        raise ConfigurationError("there is no engine to watch", parameter="engines")
    listeners = [(engine, *_listeners(engine, log)) for engine in watched]
    # A context variable, so that other threads and tasks that share the engine are not counted.
    token = _logs.set((*_logs.get(), log))
    try:
        for engine, ended, opened in listeners:
            attach(engine, ended, clock=SYSTEM_CLOCK, opened=opened)
        yield
    finally:
        for engine, ended, opened in listeners:
            detach(engine, ended, opened=opened)
        _logs.reset(token)
        log.close()


def _listeners(engine: Engine | AsyncEngine, log: QueryLog) -> tuple[Listener, Listener]:
    dialect = known_dialect(dialect_of(engine).name)

    def ended(execution: Execution) -> None:
        if log in _logs.get():  # this thread or task opened it
            log.add(execution, dialect)

    def opened(execution: Execution) -> None:
        if log in _logs.get():
            log.open(execution, dialect)

    return ended, opened
