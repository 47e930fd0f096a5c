"""The private parts of SQLAlchemy that monitoring uses, in one place.

SQLAlchemy's events see neither the time that fetching takes nor results that nobody reads to the end, and any
listener for executions triples the cost of monitoring, because it enables the event bookkeeping of the engine.
Therefore the engine's dialect gets a subclass of its execution context, which records the start time and wraps the
fetch strategy of the result.

``missing_parts`` compares these parts with what is known of SQLAlchemy 2.0 and 2.1; where it finds a difference,
monitoring uses the public events (``_instrument``). A canary test names every part.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mks_hardening.db.watch._execution import Execution, Hooks, Listener

if TYPE_CHECKING:
    from sqlalchemy import Pool
    from sqlalchemy.engine.interfaces import DBAPICursor

__all__ = ["TimedFetch", "lazy_load_source", "missing_parts", "pool_capacity", "timed_context"]

# Their private attributes are what this module is about, and the stubs do not have them.
CursorResult: TypeAlias = Any
Context: TypeAlias = Any


# Methods, with the number of their parameters, which SQLAlchemy passes by position.
CONTEXT_METHODS: Final = {"pre_exec": 1, "_setup_result_proxy": 1, "handle_dbapi_exception": 2}
STRATEGY_METHODS: Final = {
    "fetchone": 4,
    "fetchmany": 4,
    "fetchall": 3,
    "yield_per": 4,
    "soft_close": 3,
    "hard_close": 3,
    "handle_exception": 4,
}
_logger: Final = logging.getLogger("mks_hardening.db")


@cache
def missing_parts() -> tuple[str, ...]:
    """Return the private parts that are missing or different in the installed SQLAlchemy; logs them once."""
    import sqlalchemy
    from sqlalchemy.engine.cursor import CursorResult, ResultFetchStrategy
    from sqlalchemy.engine.default import DefaultDialect, DefaultExecutionContext

    methods = {DefaultExecutionContext: CONTEXT_METHODS, ResultFetchStrategy: STRATEGY_METHODS}
    attributes: dict[type, tuple[str, ...]] = {
        DefaultDialect: ("execution_ctx_cls",),
        DefaultExecutionContext: ("_rowcount",),
        CursorResult: ("_soft_closed", "cursor_strategy"),
    }
    found = [
        f"{owner.__name__}.{name}"
        for owner, known in methods.items()
        for name, number in known.items()
        if not _is_method(getattr(owner, name, None), number)
    ]
    found += [
        f"{owner.__name__}.{name}"
        for owner, names in attributes.items()
        for name in names
        if not hasattr(owner, name)
    ]
    # A result would call them on its strategy.
    found += sorted(
        f"ResultFetchStrategy.{name}"
        for name in dir(ResultFetchStrategy)
        if not name.startswith("_") and not hasattr(TimedFetch, name)
    )
    if found:
        _logger.warning(
            "SQLAlchemy %s differs from the versions known to the monitors (%s): their durations do not include "
            "fetching, and each statement costs more",
            sqlalchemy.__version__,
            ", ".join(found),
        )
    return tuple(found)


def _is_method(method: object, number: int) -> bool:
    return callable(method) and len(signature(method).parameters) == number


class TimedFetch(Execution):
    """Proxy for the fetch strategy of one result; adds up the duration and rows of its fetches.

    During a fetch the result has its own strategy again, so that it closes itself without a detour. The methods
    repeat each other because they run for every statement and every row.
    """

    __slots__ = ("_monotonic", "_strategy")

    def __init__(
        self,
        context: Context,
        duration: float,
        listeners: tuple[Listener, ...],
        monotonic: Callable[[], float],
        strategy: Any,
    ) -> None:
        self._listeners = listeners  # without a call of the superclass: as above
        self.context = context
        self.duration = duration
        self.rows = 0
        self.error = None
        self._monotonic = monotonic
        self._strategy = strategy

    def fetchone(self, result: CursorResult, cursor: DBAPICursor, hard_close: bool = False) -> object:  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        result.cursor_strategy = strategy = self._strategy
        started = self._monotonic()
        try:
            row: object = strategy.fetchone(result, cursor, hard_close)
        except BaseException as error:
            self._failed(error, started)
            raise
        self.duration += self._monotonic() - started
        if row is not None:
            self.rows += 1
        if result.cursor_strategy is strategy:
            result.cursor_strategy = self
        else:  # the last row has arrived and the result has closed itself
            self.finish()
        return row

    def fetchmany(
        self, result: CursorResult, cursor: DBAPICursor, size: int | None = None
    ) -> Sequence[object]:
        result.cursor_strategy = strategy = self._strategy
        started = self._monotonic()
        try:
            rows: Sequence[object] = strategy.fetchmany(result, cursor, size)
        except BaseException as error:
            self._failed(error, started)
            raise
        self.duration += self._monotonic() - started
        self.rows += len(rows)
        if result.cursor_strategy is strategy:
            result.cursor_strategy = self
        else:
            self.finish()
        return rows

    def fetchall(self, result: CursorResult, cursor: DBAPICursor) -> Sequence[object]:
        result.cursor_strategy = strategy = self._strategy
        started = self._monotonic()
        try:
            rows: Sequence[object] = strategy.fetchall(result, cursor)
        except BaseException as error:
            self._failed(error, started)
            raise
        self.duration += self._monotonic() - started
        self.rows += len(rows)
        if result.cursor_strategy is strategy:
            result.cursor_strategy = self
        else:
            self.finish()
        return rows

    def _failed(self, error: BaseException, started: float) -> None:
        self.duration += self._monotonic() - started
        self.error = error
        self.finish()

    def yield_per(self, result: CursorResult, cursor: DBAPICursor, number: int) -> None:
        self._strategy.yield_per(result, cursor, number)
        if result.cursor_strategy is not self:
            self._strategy = result.cursor_strategy
            result.cursor_strategy = self

    def soft_close(self, result: CursorResult, cursor: DBAPICursor) -> None:
        self._strategy.soft_close(result, cursor)

    def hard_close(self, result: CursorResult, cursor: DBAPICursor) -> None:
        self._strategy.hard_close(result, cursor)

    def handle_exception(self, result: CursorResult, cursor: DBAPICursor, error: BaseException) -> None:
        self._strategy.handle_exception(result, cursor, error)

    @property
    def alternate_cursor_description(self) -> object:
        return self._strategy.alternate_cursor_description

    def __del__(self) -> None:
        # The result was closed or garbage-collected before its last row.
        if self._listeners:
            self.finish()


def timed_context(base: Context, hooks: Hooks) -> Context:
    """Create a subclass of a dialect's execution context that measures durations and calls the hooks."""
    from sqlalchemy.engine.default import DefaultExecutionContext

    monotonic = hooks.monotonic
    base_pre_exec = None if base.pre_exec is DefaultExecutionContext.pre_exec else base.pre_exec
    base_setup = base._setup_result_proxy  # noqa: SLF001 - see the module docstring
    base_handle = base.handle_dbapi_exception

    def pre_exec(self: Context) -> None:
        if base_pre_exec is not None:  # the default does nothing
            base_pre_exec(self)
        self.mks_started = monotonic()

    def _setup_result_proxy(self: Context) -> Any:
        result = base_setup(self)
        if result._soft_closed:  # noqa: SLF001 - see the module docstring
            hooks.executed(self, self._rowcount or 0)
            return result
        strategy = result.cursor_strategy
        timed = TimedFetch(self, monotonic() - self.mks_started, hooks.ended, monotonic, strategy)
        self.mks_started = None  # from here on TimedFetch measures the fetches
        result.cursor_strategy = timed
        for opened in hooks.opened:
            opened(timed)
        return result

    def handle_dbapi_exception(self: Context, error: BaseException) -> None:
        base_handle(self, error)
        hooks.failed(self, error)

    methods = (pre_exec, _setup_result_proxy, handle_dbapi_exception)
    return type(f"Timed{base.__name__}", (base,), {method.__name__: method for method in methods})


def lazy_load_source(context: Context) -> type | None:
    """Return the class of the object from which the ORM loads lazily, unless ``selectinload`` does it."""
    options = context.execution_options.get("_sa_orm_load_options")
    state: Any = getattr(options, "_lazy_loaded_from", None)
    return None if state is None else state.class_


def pool_capacity(pool: Pool) -> int:
    """Return the maximum number of connections of a ``QueuePool``, including a limited overflow; otherwise 0."""
    of_queue: Any = pool
    overflow: int | None = getattr(pool, "_max_overflow", None)
    return 0 if overflow is None else of_queue.size() + max(0, overflow)
