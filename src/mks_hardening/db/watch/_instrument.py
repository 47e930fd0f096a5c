"""Instrumentation of the executions of one engine without SQLAlchemy events.

Any listener on an engine enables SQLAlchemy's event bookkeeping for every execution (three times the cost of this
module), and ``after_cursor_execute`` sees neither failures nor the time that fetching takes. Therefore the engine's
dialect gets a subclass of its execution context, which records the start time, wraps the fetch strategy of the
result, and is notified of errors. The overridden names are private to SQLAlchemy; a canary test checks them with
every supported version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

from mks_hardening._core.process.after_fork import ModuleLock
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Dialect, Engine, ExceptionContext
    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.engine.interfaces import DBAPICursor
    from sqlalchemy.ext.asyncio import AsyncEngine

    from mks_hardening.protocols import Clock

__all__ = ["Execution", "Listener", "attach", "detach", "dialect_of", "engine_of"]

Result: TypeAlias = "_Result"
Row: TypeAlias = "Sequence[object]"
Parameters: TypeAlias = "Sequence[object] | Mapping[str, object]"


class _Strategy(Protocol):
    """Source of a result's rows: SQLAlchemy's ``ResultFetchStrategy``, or its replacement."""

    @property
    def alternate_cursor_description(self) -> object: ...
    def fetchone(self, result: Result, cursor: DBAPICursor, hard_close: bool) -> Row | None: ...  # noqa: FBT001 - SQLAlchemy's signature
    def fetchmany(self, result: Result, cursor: DBAPICursor, size: int | None) -> Sequence[Row]: ...
    def fetchall(self, result: Result, cursor: DBAPICursor) -> Sequence[Row]: ...
    def yield_per(self, result: Result, cursor: DBAPICursor, number: int) -> None: ...
    def soft_close(self, result: Result, cursor: DBAPICursor) -> None: ...
    def hard_close(self, result: Result, cursor: DBAPICursor) -> None: ...
    def handle_exception(self, result: Result, cursor: DBAPICursor, error: BaseException) -> None: ...


class _Result(Protocol):
    """A ``CursorResult``, whose strategy is replaced."""

    cursor_strategy: _Strategy


_lock: Final = ModuleLock()


class Execution:
    """One statement, from sending it to receiving its last row or failing.

    Attributes:
        context: SQLAlchemy's execution context (statement, parameters, dialect).
        duration: seconds spent in the driver, executing and fetching, without the application's time in between.
        rows: number of rows fetched or changed; for ``executemany`` the number of parameter sets.
        error: exception of the driver, or the one that interrupted it (a cancelled task, Ctrl-C).
    """

    __slots__ = ("__weakref__", "_listeners", "context", "duration", "error", "rows")

    def __init__(
        self, context: DefaultExecutionContext, duration: float, listeners: tuple[Listener, ...]
    ) -> None:
        self._listeners = listeners
        self.context: DefaultExecutionContext = context
        self.duration: float = duration
        self.rows: int = 0
        self.error: BaseException | None = None

    @property
    def statement(self) -> str:
        """Text sent to the driver."""
        return self.context.statement or ""

    @property
    def executemany(self) -> bool:
        """Whether the statement was sent with several sets of parameters."""
        return bool(self.context.executemany)

    @property
    def sent_parameters(self) -> Parameters:
        """One set of parameters as passed to the driver."""
        return cast(Parameters, self.context.parameters[0] if self.context.parameters else ())

    @property
    def parameters(self) -> object:
        """Parameters: one set, or a list of sets for ``executemany``; by name if they have names."""
        named = self.context.compiled_parameters if self.context.compiled else self.context.parameters
        return named if self.context.executemany else named[0] if named else ()

    def finish(self) -> None:
        """Call the listeners once; a failing listener must not break the statement."""
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            try:
                listener(self)
            except Exception:  # noqa: BLE001, S112 - see the docstring
                continue


Listener: TypeAlias = Callable[[Execution], None]


class _TimedFetch(Execution):
    """Proxy for the fetch strategy of one result; adds up the duration and rows of its fetches.

    The methods duplicate code because they run for every row or result of a statement.
    """

    __slots__ = ("_monotonic", "_strategy")
    _monotonic: Callable[[], float]
    _strategy: _Strategy

    def fetchone(self, result: Result, cursor: DBAPICursor, hard_close: bool = False) -> Row | None:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        started = self._monotonic()
        try:
            row = self._strategy.fetchone(result, cursor, hard_close)
        except BaseException as error:
            self._failed(error, started)
            raise
        self.duration += self._monotonic() - started
        self.rows += row is not None
        if result.cursor_strategy is not self:  # the last row has arrived and the result has closed itself
            self.finish()
        return row

    def fetchmany(self, result: Result, cursor: DBAPICursor, size: int | None = None) -> Sequence[Row]:
        started = self._monotonic()
        try:
            rows = self._strategy.fetchmany(result, cursor, size)
        except BaseException as error:
            self._failed(error, started)
            raise
        self.duration += self._monotonic() - started
        self.rows += len(rows)
        if result.cursor_strategy is not self:
            self.finish()
        return rows

    def fetchall(self, result: Result, cursor: DBAPICursor) -> Sequence[Row]:
        started = self._monotonic()
        try:
            rows = self._strategy.fetchall(result, cursor)
        except BaseException as error:
            self._failed(error, started)
            raise
        self.duration += self._monotonic() - started
        self.rows += len(rows)
        if result.cursor_strategy is not self:
            self.finish()
        return rows

    def _failed(self, error: BaseException, started: float) -> None:
        self.duration += self._monotonic() - started
        self.error = error
        self.finish()

    def yield_per(self, result: Result, cursor: DBAPICursor, number: int) -> None:
        self._strategy.yield_per(result, cursor, number)
        if result.cursor_strategy is not self:
            self._strategy = result.cursor_strategy
            result.cursor_strategy = self

    def soft_close(self, result: Result, cursor: DBAPICursor) -> None:
        self._strategy.soft_close(result, cursor)

    def hard_close(self, result: Result, cursor: DBAPICursor) -> None:
        self._strategy.hard_close(result, cursor)

    def handle_exception(self, result: Result, cursor: DBAPICursor, error: BaseException) -> None:
        self._strategy.handle_exception(result, cursor, error)

    @property
    def alternate_cursor_description(self) -> object:
        return self._strategy.alternate_cursor_description

    def __del__(self) -> None:
        # The result was closed or garbage-collected before its last row.
        self.finish()


def _timed_context(base: Any, clock: Clock) -> Any:
    """Create a subclass of the dialect's execution context that measures durations."""
    monotonic = clock.monotonic
    base_pre_exec = base.pre_exec
    base_setup = base._setup_result_proxy  # noqa: SLF001 - see the module docstring
    base_handle = base.handle_dbapi_exception

    def pre_exec(self: Any) -> None:
        base_pre_exec(self)
        self.mks_started = monotonic()

    def _setup_result_proxy(self: Any) -> Any:
        result = base_setup(self)
        duration = monotonic() - self.mks_started
        self.mks_started = None  # from here on _TimedFetch measures the fetches
        if result._soft_closed:  # noqa: SLF001 - see the module docstring
            execution = Execution(self, duration, self.mks_listeners)
            execution.rows = _rows_changed(self)
            execution.finish()
        else:
            timed = _TimedFetch(self, duration, self.mks_listeners)
            timed._monotonic = monotonic  # noqa: SLF001 - saves a constructor call for every statement
            timed._strategy = result.cursor_strategy  # noqa: SLF001 - as above
            result.cursor_strategy = timed
            for opened in self.mks_opened:
                opened(timed)
        return result

    def handle_dbapi_exception(self: Any, error: BaseException) -> None:
        base_handle(self, error)
        _failed(self, error, monotonic)

    methods = (pre_exec, _setup_result_proxy, handle_dbapi_exception)
    names = {method.__name__: method for method in methods}
    added = {
        "mks_listeners": (),
        "mks_opened": (),
        "mks_started": None,
        "mks_base": base,
        "mks_monotonic": staticmethod(monotonic),
    }
    return type(f"Timed{base.__name__}", (base,), {**added, **names})


def _failed(context: Any, error: BaseException, monotonic: Callable[[], float]) -> None:
    if context.mks_started is not None:
        execution = Execution(context, monotonic() - context.mks_started, context.mks_listeners)
        execution.error = error
        context.mks_started = None
        execution.finish()


def _on_interrupted(failure: ExceptionContext) -> None:
    """Handle a cancelled task or Ctrl-C, which SQLAlchemy does not report to the execution context."""
    context: Any = failure.execution_context
    if context is not None and failure.sqlalchemy_exception is None and hasattr(context, "mks_started"):
        _failed(context, failure.original_exception, context.mks_monotonic)


def _rows_changed(context: DefaultExecutionContext) -> int:
    """Row count of the driver; for ``executemany`` the number of sets, which some drivers do not add up."""
    if context.executemany:
        return len(context.parameters)
    return max(0, context._rowcount or 0)  # noqa: SLF001 - see the module docstring


def attach(
    engine: Engine | AsyncEngine, listener: Listener, *, clock: Clock, opened: Listener | None = None
) -> None:
    """Call ``listener`` for each execution of ``engine``.

    Args:
        engine: engine to instrument.
        listener: called with each execution when it has ended.
        clock: source of time for durations in the driver.
        opened: called with each execution whose rows are still to be fetched, and that ends later or never.

    Raises:
        ConfigurationError: ``engine`` is not an engine.
    """
    from sqlalchemy import event

    dialect = dialect_of(engine)
    with _lock:
        timed = _timed_class(dialect)
        if timed is None:
            timed = _timed_context(dialect.execution_ctx_cls, clock)
            timed.mks_had_own = "execution_ctx_cls" in vars(dialect)
            dialect.execution_ctx_cls = timed
            # A dialect event, which does not enable the engine's execution events.
            if not event.contains(engine_of(engine), "handle_error", _on_interrupted):
                event.listen(engine_of(engine), "handle_error", _on_interrupted, insert=True)
        timed.mks_listeners = (*timed.mks_listeners, listener)
        if opened is not None:
            timed.mks_opened = (*timed.mks_opened, opened)


def detach(engine: Engine | AsyncEngine, listener: Listener, *, opened: Listener | None = None) -> None:
    """Undo ``attach``; removing the last listener restores the dialect. Unknown listeners are ignored."""
    from sqlalchemy import event

    dialect = dialect_of(engine)
    with _lock:
        timed = _timed_class(dialect)
        if timed is None or listener not in timed.mks_listeners:
            return
        timed.mks_listeners = tuple(one for one in timed.mks_listeners if one != listener)
        timed.mks_opened = tuple(one for one in timed.mks_opened if one != opened)
        # If another tool has subclassed our class since, ours stays in its bases without listeners.
        on_top: bool = dialect.execution_ctx_cls is timed
        if timed.mks_listeners or not on_top:
            return
        event.remove(engine_of(engine), "handle_error", _on_interrupted)
        if timed.mks_had_own:
            dialect.execution_ctx_cls = timed.mks_base
        else:
            del dialect.execution_ctx_cls


def _timed_class(dialect: Dialect) -> Any:
    """The class created by ``attach``, anywhere in the MRO of the current execution context class."""
    lineage: tuple[Any, ...] = dialect.execution_ctx_cls.__mro__
    return next((one for one in lineage if "mks_listeners" in vars(one)), None)


def engine_of(engine: Engine | AsyncEngine) -> Engine:
    """Return the engine, or the sync engine of an ``AsyncEngine``.

    Raises:
        ConfigurationError: ``engine`` is not an engine.
    """
    found = getattr(engine, "sync_engine", engine)
    if not hasattr(found, "dialect"):
        raise ConfigurationError(
            f"engine must be an SQLAlchemy Engine or AsyncEngine, not {type(engine).__name__}",
            parameter="engine",
        )
    return cast("Engine", found)


def dialect_of(engine: Engine | AsyncEngine) -> Dialect:
    """Return the dialect of an engine.

    Raises:
        ConfigurationError: ``engine`` is not an engine.
    """
    return engine_of(engine).dialect
