"""One execution of a statement, and what is called when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    from sqlalchemy.engine.default import DefaultExecutionContext

__all__ = ["Execution", "Hooks", "Listener"]

Parameters: TypeAlias = "Sequence[object] | Mapping[str, object]"


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


class Hooks:
    """Listeners of one dialect, and their source of time.

    While a statement runs in the driver, its execution context has the start time in ``mks_started``.

    Attributes:
        ended: called with each execution when it has ended.
        opened: called with each execution whose rows are still to be fetched, and that ends later or never.
        monotonic: seconds, for durations.
    """

    __slots__ = ("ended", "monotonic", "opened")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.ended: tuple[Listener, ...] = ()
        self.opened: tuple[Listener, ...] = ()
        self.monotonic = monotonic

    def executed(self, context: Any, rows: int) -> None:
        """End the execution of a context that has no more rows to fetch."""
        execution = Execution(context, self.monotonic() - context.mks_started, self.ended)
        context.mks_started = None
        execution.rows = len(context.parameters) if context.executemany else max(0, rows)
        execution.finish()

    def failed(self, context: Any, error: BaseException) -> None:
        """End the execution of a context with an error, unless it has ended."""
        if getattr(context, "mks_started", None) is not None:
            execution = Execution(context, self.monotonic() - context.mks_started, self.ended)
            context.mks_started = None
            execution.error = error
            execution.finish()
