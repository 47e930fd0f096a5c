"""What a piece of code asks of the database: its statements, N+1 patterns, and budgets for tests.

N+1 is one statement sent again and again from the same place by the same way: same fingerprint, same call path.
That catches lazy loads, Core and driver SQL, reads and writes alike, and leaves batches (lists of several values)
alone.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.db.call_site import call_path, call_site
from mks_hardening.db.fork import guarded_engines
from mks_hardening.db.instrument import Execution, attach, detach, dialect_of
from mks_hardening.db.sql_fingerprint import Dialect, fingerprint, known_dialect, normalize_sql
from mks_hardening.exceptions import ConfigurationError, MksHardeningError

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = [
    "NPlusOneError",
    "NPlusOneFinding",
    "QueryBudgetError",
    "QueryLog",
    "WatchedStatement",
    "allow_n_plus_one",
    "query_budget",
    "watch_queries",
]

Action = Literal["collect", "log", "raise"]

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
_allowed: Final[ContextVar[tuple[str, ...]]] = ContextVar("mks_hardening.db.allowed", default=())
_logs: Final[ContextVar[tuple[QueryLog, ...]]] = ContextVar("mks_hardening.db.logs", default=())
_logger: Final = logging.getLogger("mks_hardening.db")


class WatchedStatement(NamedTuple):
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


class NPlusOneFinding(NamedTuple):
    """One statement sent several times from one place.

    Attributes:
        times: how often.
        hint: what usually helps.
    """

    fingerprint: str
    statement: str
    times: int
    caller: str
    hint: str


class NPlusOneError(MksHardeningError):
    """Statements were sent one by one where one would do.

    Attributes:
        findings: which, from where, how often.
    """

    def __init__(self, findings: tuple[NPlusOneFinding, ...]) -> None:
        lines = (f"{one.times} times from {one.caller}: {one.statement} ({one.hint})" for one in findings)
        super().__init__("\n".join(("N+1 statements:", *lines)))
        self.findings = findings

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.findings,)


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

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.limit, self.statements)


class _Group:
    """Executions of one statement from one place."""

    __slots__ = ("count", "hint", "statement")

    def __init__(self, statement: WatchedStatement, hint: str) -> None:
        self.statement = statement
        self.hint = hint
        self.count = 0


class QueryLog:
    """What was executed while it was open.

    Attributes:
        threshold: executions from one place that make a finding.
    """

    def __init__(self, *, threshold: int) -> None:
        self.threshold = threshold
        self._statements: list[WatchedStatement] = []
        self._groups: dict[tuple[str, tuple[tuple[CodeType, int], ...]], _Group] = {}

    @property
    def statements(self) -> tuple[WatchedStatement, ...]:
        """All statements in order, transaction control left out."""
        return tuple(self._statements)

    @property
    def n_plus_one(self) -> tuple[NPlusOneFinding, ...]:
        """The findings, most frequent first."""
        found = [group for group in self._groups.values() if group.count >= self.threshold]
        return tuple(
            NPlusOneFinding(*group.statement[:2], group.count, group.statement.caller, group.hint)
            for group in sorted(found, key=lambda group: -group.count)
        )

    def add(self, execution: Execution, dialect: Dialect) -> None:
        """Note one execution."""
        text = normalize_sql(execution.statement, dialect=dialect)
        if text.partition(" ")[0] in _NOT_QUERIES:
            return
        statement = WatchedStatement(
            fingerprint(execution.statement, dialect=dialect),
            text,
            round(execution.duration * 1000, 3),
            execution.rows,
            call_site(),
            execution.error is not None,
        )
        self._statements.append(statement)
        if _can_be_one_of_many(text, execution) and not _is_allowed(statement):
            group = self._groups.setdefault(
                (statement.fingerprint, call_path()), _Group(statement, _hint(execution))
            )
            group.count += 1


def _can_be_one_of_many(text: str, execution: Execution) -> bool:
    """Whether the statement asks for one thing: it names a table, and no list of several values."""
    if execution.context.executemany:
        return False
    if text.startswith("select") and " from " not in text:
        return False
    return " in (?" not in text or len(execution.parameters) < 2


def _is_allowed(statement: WatchedStatement) -> bool:
    names = (statement.caller, statement.fingerprint, statement.statement)
    return any(fnmatchcase(name, pattern) for pattern in _allowed.get() for name in names)


def _hint(execution: Execution) -> str:
    options = execution.context.execution_options.get("_sa_orm_load_options")
    owner = getattr(options, "_lazy_loaded_from", None)
    if owner is not None:
        return f"a lazy load from {owner.class_.__name__}: add selectinload() or joinedload() to the query before"
    if execution.statement.lstrip()[:6].lower() == "select":
        return "fetch all rows with one statement: a join, or IN with a list"
    return "send all rows with one statement: executemany, or a bulk insert or update"


@contextmanager
def watch_queries(*engines: Engine, action: Action = "collect", threshold: int = 3) -> Generator[QueryLog]:
    """Watch what this thread or task asks of the engines in a ``with`` block.

    Args:
        engines: SQLAlchemy engines; all that ``hardened_engine`` made when left out.
        action: what to do with N+1 patterns at the end: only keep them in ``n_plus_one``, ``log``, or ``raise``.
        threshold: executions of one statement from one place that make a pattern.

    Raises:
        ConfigurationError: no engine, or an impossible parameter.
        NPlusOneError: at the end, with ``action="raise"``.
    """
    if action not in {"collect", "log", "raise"}:
        raise ConfigurationError("action must be 'collect', 'log' or 'raise'", parameter="action")
    if type(threshold) is not int or threshold < 2:
        raise ConfigurationError("threshold must be a whole number of at least 2", parameter="threshold")
    log = QueryLog(threshold=threshold)
    with _watching(engines, log):
        yield log
    findings = log.n_plus_one
    if findings and action == "raise":
        raise NPlusOneError(findings)
    if findings and action == "log":
        for found in findings:
            _logger.warning("N+1 statements", extra=found._asdict())


@contextmanager
def query_budget(limit: int, *engines: Engine) -> Generator[QueryLog]:
    """Fail when a ``with`` block sends more than ``limit`` statements; transaction control is not counted.

    Args:
        limit: statements allowed.
        engines: as for ``watch_queries``.

    Raises:
        ConfigurationError: no engine, or an impossible limit.
        QueryBudgetError: at the end, when there were more; an ``AssertionError``.
    """
    if type(limit) is not int or limit < 0:
        raise ConfigurationError("limit must be a whole number of at least 0", parameter="limit")
    log = QueryLog(threshold=3)
    with _watching(engines, log):
        yield log
    if len(log.statements) > limit:
        raise QueryBudgetError(limit, log.statements)


@contextmanager
def allow_n_plus_one(*patterns: str) -> Generator[None]:
    """Do not count statements in this block as N+1.

    Args:
        patterns: shell patterns of ``file:line``, fingerprint or statement; everything when left out.
    """
    token = _allowed.set((*_allowed.get(), *(patterns or ("*",))))
    try:
        yield
    finally:
        _allowed.reset(token)


@contextmanager
def _watching(engines: tuple[Any, ...], log: QueryLog) -> Generator[None]:
    watched = engines or guarded_engines()
    if not watched:
        raise ConfigurationError("there is no engine to watch", parameter="engines")
    listeners = [(engine, _listener(engine, log)) for engine in watched]
    token = _logs.set((*_logs.get(), log))
    try:
        for engine, listener in listeners:
            attach(engine, listener, clock=SYSTEM_CLOCK)
        yield
    finally:
        for engine, listener in listeners:
            detach(engine, listener)
        _logs.reset(token)


def _listener(engine: Any, log: QueryLog) -> Any:
    dialect = known_dialect(dialect_of(engine).name)

    def listen(execution: Execution) -> None:
        if log in _logs.get():  # this thread or task opened it
            log.add(execution, dialect)

    return listen
