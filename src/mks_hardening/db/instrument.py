"""Watches the executions of one engine without SQLAlchemy events.

Any listener on an engine makes every execution run the whole event bookkeeping (three times the cost of this),
and ``after_cursor_execute`` sees neither failures nor the time rows take to arrive. So the dialect of the engine
at hand gets a subclass of its execution context: it stamps the start, wraps the fetch strategy of the result, and
is told of errors. The names it overrides are private to SQLAlchemy; a canary test holds them on every supported
version.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["Execution", "Listener", "attach", "detach", "dialect_of"]

_lock = Lock()


class Execution:
    """One statement from the moment it is sent until its last row has arrived, or until it failed.

    Attributes:
        context: SQLAlchemy's execution context (statement, parameters, dialect).
        duration: seconds spent in the driver: executing and fetching, not the application's pauses between.
        rows: rows fetched, or changed; for ``executemany`` the number of parameter sets.
        error: what the driver raised.
    """

    __slots__ = ("_listeners", "context", "duration", "error", "rows")

    def __init__(self, context: Any, duration: float, listeners: tuple[Listener, ...]) -> None:
        self._listeners = listeners
        self.context: Any = context
        self.duration: float = duration
        self.rows: int = 0
        self.error: BaseException | None = None

    @property
    def statement(self) -> str:
        """The text sent to the driver."""
        text: str = self.context.statement
        return text

    @property
    def parameters(self) -> Any:
        """The parameters sent: one set, or a list of them for ``executemany``; by name where they have names."""
        compiled = self.context.compiled
        parameters = self.context.parameters if compiled is None else self.context.compiled_parameters
        return parameters if self.context.executemany else parameters[0] if parameters else ()

    def finish(self) -> None:
        """Tell the listeners, once; one that fails must not break the statement it watches."""
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            try:
                listener(self)
            except Exception:  # noqa: BLE001, S112 - as the first line says
                continue


Listener: TypeAlias = Callable[[Execution], None]


class _TimedFetch(Execution):
    """Stands in for the fetch strategy of one result and adds up the time and rows of its fetches.

    The methods repeat each other because a statement passes through here once for each row or result.
    """

    __slots__ = ("_monotonic", "_strategy")
    _monotonic: Callable[[], float]
    _strategy: Any

    def fetchone(self, result: Any, cursor: Any, hard_close: bool = False) -> Any:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        started = self._monotonic()
        try:
            row = self._strategy.fetchone(result, cursor, hard_close)
        except BaseException as error:
            self._failed(error, started)
            raise
        self.duration += self._monotonic() - started
        self.rows += row is not None
        if result.cursor_strategy is not self:  # the last row arrived and the result closed itself
            self.finish()
        return row

    def fetchmany(self, result: Any, cursor: Any, size: int | None = None) -> Any:
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

    def fetchall(self, result: Any, cursor: Any) -> Any:
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

    def yield_per(self, result: Any, cursor: Any, number: int) -> None:
        self._strategy.yield_per(result, cursor, number)
        if result.cursor_strategy is not self:
            self._strategy, result.cursor_strategy = result.cursor_strategy, self

    def soft_close(self, result: Any, cursor: Any) -> None:
        self._strategy.soft_close(result, cursor)

    def hard_close(self, result: Any, cursor: Any) -> None:
        self._strategy.hard_close(result, cursor)

    def handle_exception(self, result: Any, cursor: Any, error: BaseException) -> None:
        self._strategy.handle_exception(result, cursor, error)

    @property
    def alternate_cursor_description(self) -> Any:
        return self._strategy.alternate_cursor_description

    def __del__(self) -> None:
        # A result that was closed or dropped before its last row.
        self.finish()


def _timed_context(base: Any, listener: Listener, clock: Clock) -> type[Any]:
    """The dialect's execution context with a stopwatch."""
    monotonic = clock.monotonic
    base_pre_exec = base.pre_exec
    base_setup = base._setup_result_proxy  # noqa: SLF001 - as the module says
    base_handle = base.handle_dbapi_exception

    def pre_exec(self: Any) -> None:
        base_pre_exec(self)
        self.mks_started = monotonic()

    def _setup_result_proxy(self: Any) -> Any:
        result = base_setup(self)
        duration = monotonic() - self.mks_started
        self.mks_started = None  # from here on fetches look after themselves
        if result._soft_closed:  # noqa: SLF001 - as the module says
            execution = Execution(self, duration, self.mks_listeners)
            execution.rows = _rows_changed(self)
            execution.finish()
        else:
            timed = _TimedFetch(self, duration, self.mks_listeners)
            timed._monotonic = monotonic  # noqa: SLF001 - spares a constructor on the way of every statement
            timed._strategy = result.cursor_strategy  # noqa: SLF001 - as above
            result.cursor_strategy = timed
        return result

    def handle_dbapi_exception(self: Any, error: BaseException) -> None:
        base_handle(self, error)
        if self.mks_started is not None:
            execution = Execution(self, monotonic() - self.mks_started, self.mks_listeners)
            execution.error = error
            self.mks_started = None
            execution.finish()

    methods = (pre_exec, _setup_result_proxy, handle_dbapi_exception)
    names = {method.__name__: method for method in methods}
    return type(
        f"Timed{base.__name__}", (base,), {"mks_listeners": (listener,), "mks_started": None, **names}
    )


def _rows_changed(context: Any) -> int:
    """What the driver counted; drivers that do not add up an ``executemany`` are helped out."""
    if context.executemany:
        return len(context.parameters)
    return max(0, context._rowcount or 0)  # noqa: SLF001 - as the module says


def attach(engine: Any, listener: Listener, *, clock: Clock) -> None:
    """Call ``listener`` for each execution of ``engine`` (an ``Engine`` or ``AsyncEngine``).

    Raises:
        ConfigurationError: not an engine.
    """
    dialect = dialect_of(engine)
    with _lock:
        current = dialect.execution_ctx_cls
        listeners = getattr(current, "mks_listeners", ())
        if listeners:
            current.mks_listeners = (*listeners, listener)
        else:
            dialect.execution_ctx_cls = _timed_context(current, listener, clock)


def detach(engine: Any, listener: Listener) -> None:
    """Undo ``attach``; with the last listener the dialect is as it was. Unknown listeners are ignored."""
    dialect = dialect_of(engine)
    with _lock:
        current = dialect.execution_ctx_cls
        known = getattr(current, "mks_listeners", ())
        listeners = tuple(one for one in known if one != listener)
        if listeners:
            current.mks_listeners = listeners
        elif known:
            del dialect.execution_ctx_cls


def dialect_of(engine: Any) -> Any:
    """The dialect of an ``Engine`` or ``AsyncEngine``.

    Raises:
        ConfigurationError: not an engine.
    """
    dialect = getattr(getattr(engine, "sync_engine", engine), "dialect", None)
    if dialect is None:
        raise ConfigurationError(
            f"engine must be an SQLAlchemy Engine or AsyncEngine, not {type(engine).__name__}",
            parameter="engine",
        )
    return dialect
