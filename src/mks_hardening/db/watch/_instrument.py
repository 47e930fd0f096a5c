"""Instrumentation of the executions of one engine, for all its monitors together.

It works inside of SQLAlchemy (``_sqlalchemy_internals``). If the installed version does not allow that, public
events replace it: they see statements and errors, but not fetching.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakKeyDictionary, ref

from mks_hardening._core.process.after_fork import ModuleLock
from mks_hardening.db.watch._execution import Hooks, Listener
from mks_hardening.db.watch._sqlalchemy_internals import missing_parts, timed_context
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Dialect, Engine, ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

    from mks_hardening.protocols import Clock

__all__ = ["attach", "detach", "dialect_of", "engine_of"]

_lock: Final = ModuleLock()


class _Instrument:
    """The hooks of one dialect, inside of SQLAlchemy or behind its public events."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        from sqlalchemy import event

        self.hooks = Hooks(clock.monotonic)
        self._engine = ref(engine)
        self._timed: Any = None
        # A dialect event, which does not enable the engine's execution events.
        event.listen(engine.dialect, "handle_error", self._on_error, insert=True)
        if missing_parts():
            event.listen(engine, "before_cursor_execute", self._on_start)
            event.listen(engine, "after_cursor_execute", self._on_end)
            return
        self._timed = timed_context(engine.dialect.execution_ctx_cls, self.hooks)
        self._replaced: Any = vars(engine.dialect).get("execution_ctx_cls")
        engine.dialect.execution_ctx_cls = self._timed

    def uninstall(self, dialect: Dialect) -> bool:
        """Restore the dialect; return whether it could be done."""
        from sqlalchemy import event

        engine = self._engine()
        if self._timed is None:
            if engine is not None:
                event.remove(engine, "before_cursor_execute", self._on_start)
                event.remove(engine, "after_cursor_execute", self._on_end)
        elif dialect.execution_ctx_cls is not self._timed:
            # Another tool has subclassed our class since; ours stays in its bases without listeners.
            return False
        elif self._replaced is None:
            del dialect.execution_ctx_cls
        else:
            dialect.execution_ctx_cls = self._replaced
        event.remove(dialect, "handle_error", self._on_error)
        return True

    def _on_start(self, *event: Any) -> None:
        *_, context, _many = event
        context.mks_started = self.hooks.monotonic()

    def _on_end(self, *event: Any) -> None:
        _connection, cursor, *_, context, _many = event
        self.hooks.executed(context, cursor.rowcount)

    def _on_error(self, failure: ExceptionContext) -> None:
        # Inside of SQLAlchemy only for a cancelled task or Ctrl-C, of which the execution context learns nothing.
        self.hooks.failed(failure.execution_context, failure.original_exception)


_instruments: Final[WeakKeyDictionary[Dialect, _Instrument]] = WeakKeyDictionary()


def attach(
    engine: Engine | AsyncEngine, listener: Listener, *, clock: Clock, opened: Listener | None = None
) -> None:
    """Call ``listener`` for each execution of ``engine``.

    Args:
        engine: engine to instrument.
        listener: called with each execution when it has ended.
        clock: source of time for durations in the driver; the first one of an engine is used.
        opened: called with each execution whose rows are still to be fetched, and that ends later or never.

    Raises:
        ConfigurationError: ``engine`` is not an engine.
    """
    dialect = dialect_of(engine)
    with _lock:
        instrument = _instruments.get(dialect)
        if instrument is None:
            instrument = _instruments[dialect] = _Instrument(engine_of(engine), clock)
        hooks = instrument.hooks
        hooks.ended = (*hooks.ended, listener)
        if opened is not None:
            hooks.opened = (*hooks.opened, opened)


def detach(engine: Engine | AsyncEngine, listener: Listener, *, opened: Listener | None = None) -> None:
    """Undo ``attach``; removing the last listener restores the dialect. Unknown listeners are ignored."""
    dialect = dialect_of(engine)
    with _lock:
        instrument = _instruments.get(dialect)
        if instrument is None or listener not in instrument.hooks.ended:
            return
        hooks = instrument.hooks
        hooks.ended = tuple(one for one in hooks.ended if one != listener)
        hooks.opened = tuple(one for one in hooks.opened if one != opened)
        if not hooks.ended and instrument.uninstall(dialect):
            del _instruments[dialect]


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
