"""Watches the executions of one engine without SQLAlchemy events.

Any listener on an engine makes every execution run the whole event bookkeeping (three times the cost of this),
and ``after_cursor_execute`` sees neither failures nor the time rows take to arrive. So the dialect of the engine
at hand gets a subclass of its execution context: it stamps the start, wraps the fetch strategy of the result, and
is told of errors. The names it overrides are private to SQLAlchemy; a canary test holds them on every supported
version.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from mks_hardening._core.clock import SYSTEM_CLOCK
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

    __slots__ = ("_listeners", "_open", "context", "duration", "error", "rows")

    def __init__(self, context: Any, duration: float, listeners: tuple[Listener, ...]) -> None:
        self._listeners = listeners
        self._open = True
        self.context = context
        self.duration = duration
        self.rows = 0
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
        if self._open:
            self._open = False
            for listener in self._listeners:
                with suppress(Exception):
                    listener(self)


Listener: TypeAlias = Callable[[Execution], None]


class _TimedFetch(Execution):
    """Stands in for the fetch strategy of one result and adds up the time and rows of its fetches."""

    __slots__ = ("_monotonic", "_strategy")

    def __init__(
        self,
        context: Any,
        duration: float,
        listeners: tuple[Listener, ...],
        strategy: Any,
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__(context, duration, listeners)
        self._strategy = strategy
        self._monotonic = monotonic

    def fetchone(self, result: Any, cursor: Any, hard_close: bool = False) -> Any:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        started = self._monotonic()
        try:
            row = self._strategy.fetchone(result, cursor, hard_close)
        except BaseException as error:
            self._failed(error, started)
            raise
        self._fetched(result, started, row is not None)
        return row

    def fetchmany(self, result: Any, cursor: Any, size: int | None = None) -> Any:
        return self._fetch(self._strategy.fetchmany, result, cursor, size)

    def fetchall(self, result: Any, cursor: Any) -> Any:
        return self._fetch(self._strategy.fetchall, result, cursor)

    def _fetch(self, fetch: Callable[..., Any], result: Any, *args: Any) -> Any:
        started = self._monotonic()
        try:
            rows = fetch(result, *args)
        except BaseException as error:
            self._failed(error, started)
            raise
        self._fetched(result, started, len(rows))
        return rows

    def _fetched(self, result: Any, started: float, rows: int) -> None:
        self.duration += self._monotonic() - started
        self.rows += rows
        if result.cursor_strategy is not self:  # the last row arrived and the result closed itself
            self.finish()

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


class _Timing:
    """Goes before the dialect's own execution context, whose methods it extends."""

    mks_listeners: tuple[Listener, ...] = ()
    mks_monotonic: Callable[[], float] = staticmethod(SYSTEM_CLOCK.monotonic)
    mks_started: float | None = None  # only while the driver executes; fetches look after themselves

    def pre_exec(self) -> None:
        whole: Any = super()
        whole.pre_exec()
        self.mks_started = self.mks_monotonic()

    def _setup_result_proxy(self) -> Any:
        whole: Any = super()
        result = whole._setup_result_proxy()  # noqa: SLF001 - as the module says
        duration = self._mks_stop()
        if result._soft_closed:  # noqa: SLF001 - as the module says
            execution = Execution(self, duration, self.mks_listeners)
            execution.rows = _rows_changed(self)
            execution.finish()
        else:
            strategy = result.cursor_strategy
            result.cursor_strategy = _TimedFetch(
                self, duration, self.mks_listeners, strategy, self.mks_monotonic
            )
        return result

    def handle_dbapi_exception(self, error: BaseException) -> None:
        whole: Any = super()
        whole.handle_dbapi_exception(error)
        if self.mks_started is not None:
            execution = Execution(self, self._mks_stop(), self.mks_listeners)
            execution.error = error
            execution.finish()

    def _mks_stop(self) -> float:
        started, self.mks_started = self.mks_started, None
        return 0.0 if started is None else self.mks_monotonic() - started


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
            timing = {"mks_listeners": (listener,), "mks_monotonic": staticmethod(clock.monotonic)}
            dialect.execution_ctx_cls = type(f"Timed{current.__name__}", (_Timing, current), timing)


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
