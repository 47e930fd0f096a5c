"""Query logs and query budgets for a section of code."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from weakref import ref

from mks_hardening._core.checks import choice, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.memo import Memo
from mks_hardening.db.engine.fork_guard import each_guarded_engine
from mks_hardening.db.statement.fingerprints import (
    Dialect,
    fingerprint,
    known_dialect,
    normalize_sql,
)
from mks_hardening.db.watch._attempt import TransactionAttempt, current_attempt
from mks_hardening.db.watch._batches import BoundValues, ValueReader
from mks_hardening.db.watch._call_site import CallStack, Path, call_path, call_site, call_stack
from mks_hardening.db.watch._execution import Execution
from mks_hardening.db.watch._instrument import attach, detach, engine_of
from mks_hardening.db.watch._sqlalchemy_internals import lazy_load_source
from mks_hardening.db.watch._window import WatchWindow
from mks_hardening.db.watch.n_plus_one import (
    NPlusOneError,
    NPlusOneFinding,
    StatementGroup,
    accepted_patterns,
    allowed_patterns,
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


class _Text:
    """One text of a statement, analysed once for all its executions."""

    __slots__ = ("can_repeat", "fingerprint", "is_counted", "statement", "values")

    def __init__(self, sql: str, dialect: Dialect) -> None:
        self.statement: str = normalize_sql(sql, dialect=dialect)
        self.fingerprint: str = fingerprint(sql, dialect=dialect)
        self.is_counted: bool = self.statement.partition(" ")[0] not in _NOT_QUERIES
        self.can_repeat: bool = names_a_table(self.statement)
        self.values = ValueReader(sql, dialect)


def _texts_of(dialect: str) -> Memo[str, _Text]:
    return Memo(partial(_Text, dialect=known_dialect(dialect)), entries=512, longest=4096)


_texts: Final[Memo[str, Memo[str, _Text]]] = Memo(_texts_of)


class _LoggedStatement(NamedTuple):
    """An execution, as cheap as possible: what it means is computed only when somebody asks."""

    text: _Text
    stack: CallStack
    attempt: TransactionAttempt | None
    allowed: tuple[str, ...]
    duration: float
    rows: int
    failed: bool
    values: BoundValues | None  # None for executemany and statements without a table
    loads_from: type | None

    def counts(self) -> bool:
        return self.attempt is None or self.attempt.counts

    def shown(self) -> WatchedStatement:
        return WatchedStatement(
            fingerprint=self.text.fingerprint,
            statement=self.text.statement,
            duration_ms=round(self.duration * 1000, 3),
            rows=self.rows,
            caller=call_site(self.stack),
            failed=self.failed,
        )


class QueryLog:
    """Statements executed while the log was open.

    Statements of transaction attempts that ``retry_on_serialization_failure`` repeated are excluded.

    Attributes:
        threshold: minimum number of executions from one call path that make a finding.
        accepted: patterns of findings that are not reported, with the reason of each.
    """

    def __init__(self, *, threshold: int) -> None:
        self.accepted: Mapping[str, str] = {}
        self.threshold: int = whole_number(threshold, parameter="threshold", minimum=1)
        self._logged: list[_LoggedStatement] = []
        # Weak references: an abandoned result is finished by the garbage collector, which frees its cursor.
        self._open: dict[
            int, tuple[ref[Execution], CallStack, TransactionAttempt | None, tuple[str, ...]]
        ] = {}

    @property
    def statements(self) -> tuple[WatchedStatement, ...]:
        """All statements in order, without transaction control; those whose result is still open come last."""
        return tuple(logged.shown() for logged in self._logged if logged.counts())

    @property
    def n_plus_one(self) -> tuple[NPlusOneFinding, ...]:
        """N+1 findings that the baseline does not accept, most frequent first."""
        # Grouped by statement and call path: the same line reached from two places forms two groups.
        groups: dict[tuple[str, Path], StatementGroup] = {}
        for logged in self._logged:
            if logged.values is None or not logged.counts():
                continue
            if logged.allowed and is_allowed(logged.shown(), logged.allowed):
                continue
            key = (logged.text.fingerprint, call_path(logged.stack))
            group = groups.get(key)
            if group is None:
                hint = hint_for(logged.text.statement, logged.loads_from)
                group = groups[key] = StatementGroup(logged.shown(), hint)
            group.add(logged.values, logged.rows)
        found = [group.finding() for group in groups.values() if group.count >= self.threshold]
        found = [finding for finding in found if not is_allowed(finding, self.accepted)]
        return tuple(sorted(found, key=lambda finding: -finding.times))

    def open(self, execution: Execution) -> None:
        """Register an execution whose rows are still to be fetched, with where it was sent."""
        self._open[id(execution)] = (ref(execution), call_stack(), current_attempt(), allowed_patterns())

    def close(self) -> None:
        """Add executions whose rows were not read to the end: they were sent nevertheless."""
        for reference, stack, attempt, allowed in self._open.values():
            execution = reference()
            if execution is not None:
                self._note(execution, stack, attempt, allowed)
        self._open.clear()

    def add(self, execution: Execution) -> None:
        """Add an execution that has ended."""
        opened = self._open.pop(id(execution), None)
        if opened is None:
            self._note(execution, call_stack(), current_attempt(), allowed_patterns())
        else:
            self._note(execution, opened[1], opened[2], opened[3])

    def _note(
        self,
        execution: Execution,
        stack: CallStack,
        attempt: TransactionAttempt | None,
        allowed: tuple[str, ...],
    ) -> None:
        context = execution.context
        text = _texts[context.dialect.name][context.statement or ""]
        if not text.is_counted:
            return
        values, loads_from = None, None
        if text.can_repeat and not context.executemany:
            values = text.values.read(execution.sent_parameters)
            loads_from = lazy_load_source(context)
        self._logged.append(
            _LoggedStatement(
                text,
                stack,
                attempt,
                allowed,
                execution.duration,
                execution.rows,
                execution.error is not None,
                values,
                loads_from,
            )
        )


def watch_queries(
    *engines: Engine | AsyncEngine,
    action: Action = "collect",
    threshold: int = 3,
    baseline: Mapping[str, str] | str | FilePath | None = None,
) -> WatchWindow[QueryLog]:
    """Record the statements that this thread or task sends, in a ``with`` block or a decorated function.

    Args:
        engines: SQLAlchemy engines; without arguments, all engines created by ``hardened_engine``, also those that
            are created in the block.
        action: what to do with N+1 patterns at the end: ``collect`` them in ``n_plus_one``, ``log``, or ``raise``.
        threshold: minimum number of executions of one statement from one call path that make a pattern.
        baseline: findings that are accepted, as shell patterns of ``file:line``, fingerprint or statement with the
            reason of each, or the path of a TOML file that contains them in its table ``accepted``.

    Raises:
        ConfigurationError: a parameter is invalid, or there was no engine until the end of the block.
        NPlusOneError: at the end of the block, with ``action="raise"``.
    """
    choice(action, ("collect", "log", "raise"), parameter="action")
    whole_number(threshold, parameter="threshold", minimum=2)
    accepted = accepted_patterns(baseline)
    for engine in engines:
        engine_of(engine)

    @contextmanager
    def watch() -> Generator[QueryLog]:
        log = QueryLog(threshold=threshold)
        log.accepted = accepted
        with _watching(engines, log):
            yield log
        findings = log.n_plus_one
        if findings and action == "raise":
            raise NPlusOneError(findings)
        if findings and action == "log":
            for found in findings:
                _logger.warning("N+1 statements", extra=asdict(found))

    return WatchWindow(watch)


def query_budget(
    limit: int, *engines: Engine | AsyncEngine, action: Literal["raise", "log"] = "raise"
) -> WatchWindow[QueryLog]:
    """Fail if a ``with`` block or a decorated function, such as a view, sends more than ``limit`` statements.

    Transaction control is not counted.

    Args:
        limit: number of statements allowed.
        engines: as for ``watch_queries``.
        action: whether to raise an error or, in production, to ``log`` a warning on ``mks_hardening.db``.

    Raises:
        ConfigurationError: as for ``watch_queries``.
        QueryBudgetError: at the end of the block, if it sent more and ``action`` is ``raise``; an
            ``AssertionError``.
    """
    whole_number(limit, parameter="limit", minimum=0)
    choice(action, ("raise", "log"), parameter="action")

    @contextmanager
    def count() -> Generator[QueryLog]:
        with _watching(engines, QueryLog(threshold=3)) as log:
            yield log
        sent = log.statements
        if len(sent) > limit and action == "raise":
            raise QueryBudgetError(limit, sent)
        if len(sent) > limit:
            most, times = Counter(one.statement for one in sent).most_common(1)[0]
            _logger.warning(
                "more statements than the query budget",
                extra={
                    "statements": len(sent),
                    "limit": limit,
                    "most_frequent": most,
                    "times": times,
                    "caller": sent[-1].caller,
                },
            )

    return WatchWindow(count)


@contextmanager
def _watching(engines: tuple[Engine | AsyncEngine, ...], log: QueryLog) -> Generator[QueryLog]:
    watched: list[Engine | AsyncEngine] = []

    def ended(execution: Execution) -> None:
        if log in _logs.get():  # sent by this thread or task
            log.add(execution)

    def opened(execution: Execution) -> None:
        if log in _logs.get():
            log.open(execution)

    def watch(engine: Engine | AsyncEngine) -> None:
        if engine not in watched:
            watched.append(engine)
            attach(engine, ended, clock=SYSTEM_CLOCK, opened=opened)

    # A context variable, so that statements of other threads and tasks on the same engine are not counted.
    token = _logs.set((*_logs.get(), log))
    try:
        for engine in engines:
            watch(engine)
        with nullcontext() if engines else each_guarded_engine(watch):
            yield log
    finally:
        for engine in watched:
            detach(engine, ended, opened=opened)
        _logs.reset(token)
        log.close()
    if not watched:
        raise ConfigurationError("there is no engine to watch", parameter="engines")
