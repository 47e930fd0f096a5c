"""Registration of task functions, and enqueuing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from inspect import Signature
from typing import TYPE_CHECKING, Concatenate, Final, Generic, ParamSpec, TypeVar

from mks_hardening._core.checks import boolean, choice, function, instance, number, whole_number
from mks_hardening._core.durations import seconds
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.process.context import current
from mks_hardening.exceptions import ConfigurationError, TaskRefusedError
from mks_hardening.tasks._back_off import checked_delay
from mks_hardening.tasks._naming import check_key, check_name, check_queue, check_user_id, id_text
from mks_hardening.tasks._payload import dump, storable
from mks_hardening.tasks._signatures import mismatch, signature_of
from mks_hardening.tasks._states import State
from mks_hardening.tasks.schedule import ScheduleRule
from mks_hardening.tasks.store._task_queries import TaskQueries
from mks_hardening.tasks.store._task_rows import NewTask
from mks_hardening.tasks.store._task_store import TaskStore
from mks_hardening.tasks.store.schema import task_table
from mks_hardening.tasks.task_run import TaskRun
from mks_hardening.tasks.task_status import TaskStatus
from mks_hardening.tasks.transient import is_transient
from mks_hardening.tasks.watch.task_stats import TaskStats

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection, Engine, Table
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

    from mks_hardening.protocols import Clock

__all__ = ["Task", "TaskCall", "Tasks"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_PRIORITY: Final = {"high": 0, "normal": 1, "low": 2}
_LATEST: Final = 100_000_000_000.0
"""Wall time, in the year 5138: larger values are milliseconds by mistake."""
_RULE: Final[type] = ScheduleRule
# Only these: other context fields may be personal data, and rows are stored for weeks.
_CARRIED: Final = ("request_id", "trace_id")
"""Context fields of the request that are added to the log records of the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    queue: str = "default"
    priority: int = 1
    key: str | None = None
    delay: float = 0.0
    due_at: float | None = None
    user_id: str | None = None


class TaskCall:
    """One run of a task with its arguments, from ``Task.call``, to be enqueued together with others.

    Attributes:
        tasks: the ``Tasks`` that the task belongs to.
        name: name of the task.
        args: positional arguments, without the run.
        kwargs: keyword arguments.
    """

    __slots__ = ("_options", "_signature", "args", "kwargs", "name", "tasks")

    def __init__(
        self,
        tasks: Tasks,
        name: str,
        signature: Signature,
        *,
        options: _Options,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> None:
        self.tasks: Tasks = tasks
        self.name: str = name
        self._signature = signature
        self._options = options
        self.args: tuple[object, ...] = args
        self.kwargs: Mapping[str, object] = kwargs

    def checked(self, context: str) -> NewTask:
        """Return the values of its row.

        Raises:
            TaskRefusedError: the arguments do not fit the function, or cannot be stored.
        """
        # Both checks run in the request that enqueues: errors in the worker would be noticed too late.
        arguments = dump([list(self.args), dict(self.kwargs)], what="arguments")
        if problem := mismatch(self._signature, self.args, self.kwargs):
            raise TaskRefusedError(f"{self.name}: {problem}")
        options = self._options
        return NewTask(
            # Random, as it appears in URLs: it must reveal neither the number of tasks nor the next id.
            id=secrets.token_hex(16),
            name=self.name,
            arguments=arguments,
            context=context,
            queue=options.queue,
            priority=options.priority,
            due_at=options.due_at,
            delay=options.delay,
            unique_key=options.key,
            user_id=options.user_id,
        )

    def __repr__(self) -> str:
        # Without the arguments, which may be personal data.
        return f"TaskCall({self.name!r})"


class Task(Generic[P, R]):
    """A function that can be enqueued; calling it runs it directly, like any function.

    Attributes:
        name: name of the task in its rows.
        signature: signature of its function, including the run.
        max_deliveries: number of workers that may die while running the task before it is dead.
        max_attempts: maximum number of runs if it fails with transient errors.
        timeout: seconds after which a run counts as stuck; a Celery worker ends it, an embedded worker logs it.
        schedule: schedule on which it runs automatically.
    """

    def __init__(
        self,
        tasks: Tasks,
        work: Callable[Concatenate[TaskRun, P], R],
        options: _Options,
        *,
        name: str,
        max_deliveries: int,
        max_attempts: int,
        timeout: float,
        retry_on: Callable[[BaseException], bool],
        schedule: ScheduleRule | None,
    ) -> None:
        self._tasks = tasks
        self.signature: Signature = signature_of(name, work, scheduled=schedule is not None)
        self._options = options
        self.work: Callable[Concatenate[TaskRun, P], R] = work
        self.name: str = name
        self.max_deliveries: int = max_deliveries
        self.max_attempts: int = max_attempts
        self.timeout: float = timeout
        self.retry_on: Callable[[BaseException], bool] = retry_on
        self.schedule: ScheduleRule | None = schedule

    def __call__(self, run: TaskRun, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function directly."""
        return self.work(run, *args, **kwargs)

    def enqueue(self, connection: Connection | Session, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Enqueue one run in the caller's transaction: it exists if and only if the transaction is committed.

        Args:
            connection: a connection or ORM session of the task database, with the transaction.
            args: arguments of the function, JSON.
            kwargs: arguments of the function, JSON.

        Returns:
            The id, known before the commit; the id of the earlier run, if one with the same key exists.

        Raises:
            TaskRefusedError: the arguments are not JSON, are longer than 64 kB, or do not match the function.
        """
        return self._tasks.accept(self, connection, self._options, args, kwargs)

    async def aenqueue(
        self, connection: AsyncConnection | AsyncSession, /, *args: P.args, **kwargs: P.kwargs
    ) -> str:
        """Call ``enqueue`` in the transaction of an asyncio connection or session.

        Args:
            connection: an ``AsyncConnection`` or ``AsyncSession`` of the task database, with the transaction.
            args: arguments of the function, JSON.
            kwargs: arguments of the function, JSON.

        Returns:
            The id, as ``enqueue`` returns it.

        Raises:
            ConfigurationError: the connection is not one of asyncio.
            TaskRefusedError: as for ``enqueue``.
        """
        return await _run_sync(
            connection, lambda own: self._tasks.accept(self, own, self._options, args, kwargs)
        )

    def call(self, *args: P.args, **kwargs: P.kwargs) -> TaskCall:
        """Return one run with its arguments, for ``Tasks.enqueue_many``; nothing is checked or stored yet."""
        return TaskCall(
            self._tasks, self.name, self.signature, options=self._options, args=args, kwargs=kwargs
        )

    def using(
        self,
        *,
        key: str | None = None,
        delay: float | timedelta | None = None,
        due_at: float | None = None,
        priority: str | None = None,
        user_id: str | None = None,
    ) -> Task[P, R]:
        """Return the task with other options for enqueuing: ``task.using(key="report-7").enqueue(...)``.

        Omitted options keep their values.

        Args:
            key: idempotency key; of several runs with the same key only the first exists, even after it has ended.
                If it is dead, it is run again with the arguments of this call. Enqueuing waits for open
                transactions with the same key; enqueue several keys in one call of ``enqueue_many``,
                which orders them: several calls in two transactions can still deadlock.
            delay: seconds until it may run.
            due_at: wall time from which it may run, seconds since the epoch, instead of ``delay``.
            priority: ``high``, ``normal`` or ``low``.
            user_id: user who owns the task; for other users the task does not exist.

        Raises:
            ConfigurationError: the priority is unknown or the delay is invalid.
            TaskRefusedError: the key is invalid.
        """
        was = self._options
        options = replace(
            was,
            key=was.key if key is None else check_key(key),
            delay=was.delay if delay is None else checked_delay(delay, parameter="delay"),
            due_at=was.due_at
            if due_at is None
            else number(due_at, parameter="due_at", minimum=0.0, maximum=_LATEST),
            priority=was.priority if priority is None else _priority(priority),
            user_id=was.user_id if user_id is None else check_user_id(user_id),
        )
        bound = copy(self)
        bound._options = options  # noqa: SLF001 - the copy is of this class
        return bound

    def __repr__(self) -> str:
        return f"Task({self.name!r})"


class Tasks:
    """Registry of background tasks, and the table that stores their runs.

    Args:
        engine: engine of the application's database; SQLite or PostgreSQL.
        table: created by ``task_table`` in the application's metadata, or the name of a table.
        clock: clock to use instead of the database's (PostgreSQL) or this host's.
        notify: whether PostgreSQL announces new tasks (``NOTIFY``), so that waiting workers of all processes run
            them at once instead of at their next poll. Disable it if the transactions that enqueue are prepared
            (two-phase commit, which PostgreSQL refuses after ``NOTIFY``), or if thousands of them commit per second
            (PostgreSQL commits transactions with ``NOTIFY`` one after the other).

    Raises:
        ConfigurationError: the database is neither SQLite nor PostgreSQL.
        MissingDependencyError: SQLAlchemy is not installed.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        table: Table | str = "mks_task",
        clock: Clock | None = None,
        notify: bool = True,
    ) -> None:
        with optional("sqlalchemy", extra="tasks"):
            from sqlalchemy import MetaData
        if getattr(getattr(engine, "dialect", None), "name", None) not in {"postgresql", "sqlite"}:
            raise ConfigurationError("engine must be of PostgreSQL or SQLite", parameter="engine")
        self._known: dict[str, Task[..., object]] = {}
        # With its own MetaData, so that create_all() of an application does not create a table that it did not
        # define.
        made = task_table(MetaData(), name=table) if isinstance(table, str) else table
        self.store: TaskStore = TaskStore(
            engine, made, clock=clock, notify=boolean(notify, parameter="notify")
        )
        self._overview = TaskQueries(self.store)

    def task(
        self,
        name: str,
        *,
        queue: str = "default",
        priority: str = "normal",
        max_deliveries: int = 5,
        max_attempts: int = 5,
        timeout: float | timedelta = 300.0,
        retry_on: Callable[[BaseException], bool] = is_transient,
        schedule: ScheduleRule | None = None,
    ) -> Callable[[Callable[Concatenate[TaskRun, P], R]], Task[P, R]]:
        """Decorate a function as a task: its first parameter is the ``TaskRun``, the others are JSON.

        Args:
            name: name of the task in its rows; must not change while runs are waiting.
            queue: queue of the task; workers can serve selected queues.
            priority: ``high``, ``normal`` or ``low``.
            max_deliveries: number of workers that may die while running the task before it is dead.
            max_attempts: maximum number of runs if it fails with transient errors.
            timeout: seconds after which a run counts as stuck.
            retry_on: returns whether an exception is transient, so that the task is retried.
            schedule: schedule on which it runs automatically, without arguments.

        Raises:
            ConfigurationError: the name is already registered, an option is invalid, or the function does not
                accept a run.
        """
        options = _Options(queue=check_queue(queue), priority=_priority(priority))
        deliveries = whole_number(max_deliveries, parameter="max_deliveries", minimum=1, maximum=100)
        attempts = whole_number(max_attempts, parameter="max_attempts", minimum=1, maximum=1000)
        longest = seconds(timeout, parameter="timeout", allow_zero=False)
        if schedule is not None:
            instance(schedule, _RULE, parameter="schedule")
        if check_name(name) in self._known:
            raise ConfigurationError(f"there is a task named {name} already", parameter="name")

        def register(work: Callable[Concatenate[TaskRun, P], R]) -> Task[P, R]:
            made = Task(
                self,
                function(work, parameter="work"),
                options,
                name=name,
                max_deliveries=deliveries,
                max_attempts=attempts,
                timeout=longest,
                retry_on=function(retry_on, parameter="retry_on"),
                schedule=schedule,
            )
            self._known[name] = made  # type: ignore[assignment]  # parameters are checked when it is enqueued
            return made

        return register

    @property
    def known(self) -> Mapping[str, Task[..., object]]:
        """Registered tasks by name."""
        return self._known

    @contextmanager
    def begin(self) -> Generator[Connection]:
        """Open a transaction to enqueue in, for callers without one."""
        with self.store.engine.begin() as connection:
            yield connection

    def enqueue_many(self, connection: Connection | Session, calls: Iterable[TaskCall]) -> list[str]:
        """Enqueue many runs in the caller's transaction with few statements: all of them, or none.

        ``tasks.enqueue_many(connection, [welcome.using(key=user).call(user) for user in users])``. Each run has the
        checks, the key and the options that ``enqueue`` would give it; the tasks may differ.

        Args:
            connection: a connection or ORM session of the task database, with the transaction.
            calls: results of ``Task.call``; all are checked before the first is inserted.

        Returns:
            The ids in the same order; for a key that exists already, also earlier in ``calls``, that run's id.

        Raises:
            ConfigurationError: an item is not a ``TaskCall`` of these tasks.
            TaskRefusedError: the arguments of a run are not JSON, are longer than 64 kB, or do not match the
                function; the message names the index of the item.
        """
        checked = self._checked(calls)
        own = _connection_of(connection)
        return self.store.add_many(own, checked) if checked else []

    async def aenqueue_many(
        self, connection: AsyncConnection | AsyncSession, calls: Iterable[TaskCall]
    ) -> list[str]:
        """Call ``enqueue_many`` in the transaction of an asyncio connection or session.

        Args:
            connection: an ``AsyncConnection`` or ``AsyncSession`` of the task database, with the transaction.
            calls: results of ``Task.call``.

        Returns:
            The ids in the same order.

        Raises:
            ConfigurationError: the connection is not one of asyncio, or an item is no ``TaskCall`` of these tasks.
            TaskRefusedError: as for ``enqueue_many``.
        """
        return await _run_sync(connection, lambda own: self.enqueue_many(own, calls))

    def _checked(self, calls: Iterable[TaskCall]) -> list[NewTask]:
        if not isinstance(calls, Iterable):
            raise ConfigurationError(
                f"calls must be a collection of task.call(...), not {type(calls).__name__}", parameter="calls"
            )
        context, checked = _carried_context(), list[NewTask]()
        for index, call in enumerate(calls):
            if not isinstance(call, TaskCall) or call.tasks is not self:
                found = repr(call) if isinstance(call, TaskCall) else type(call).__name__
                raise ConfigurationError(
                    f"calls[{index}] must be task.call(...) of a task of these Tasks, not {found}",
                    parameter="calls",
                )
            try:
                checked.append(call.checked(context))
            except TaskRefusedError as error:
                raise TaskRefusedError(f"calls[{index}]: {error}") from None
        return checked

    def accept(
        self,
        task: Task[P, R],
        connection: Connection | Session,
        options: _Options,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> str:
        """Insert the row of one run; see ``Task.enqueue``.

        Raises:
            TaskRefusedError: the arguments do not fit the function, or cannot be stored.
        """
        call = TaskCall(self, task.name, task.signature, options=options, args=args, kwargs=kwargs)
        return self.store.add(_connection_of(connection), call.checked(_carried_context()))

    def create_table(self) -> None:
        """Create the table if it is missing, for applications without migrations; safe for concurrent processes."""
        from sqlalchemy import inspect
        from sqlalchemy.exc import DBAPIError

        table, engine = self.store.table, self.store.engine
        if inspect(engine).has_table(table.name, schema=table.schema):
            return
        try:
            # No second check: in SQLite, a transaction that has read must not wait for another writer.
            table.create(engine, checkfirst=False)
        except DBAPIError:
            # Another process has created it since the check.
            if not inspect(engine).has_table(table.name, schema=table.schema):
                raise

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        return self._overview.counts()

    def stats(self, *, window: float | timedelta = 86_400.0) -> TaskStats:
        """Return statistics of the queues: length, age of the oldest task, dead tasks, and recently ended tasks.

        Args:
            window: period in seconds that counts as recent.
        """
        return self._overview.stats(window=seconds(window, parameter="window"))

    def status(self, task_id: str, *, user_id: str | None = None) -> TaskStatus | None:
        """Return the status of a task; ``None`` if it does not exist or belongs to another user.

        Args:
            task_id: returned by ``enqueue``.
            user_id: user who asks; without it, tasks of all users are visible.
        """
        found = self._overview.status(id_text(task_id))
        # The same response for "does not exist" and "not yours" (ASVS 5.0, 8.2.2), so that ids cannot be probed.
        mine = user_id is None or check_user_id(user_id) == (None if found is None else found.user_id)
        return found if mine else None

    def listed(
        self,
        *,
        state: State | None = None,
        name: str | None = None,
        user_id: str | None = None,
        most: int = 100,
    ) -> list[tuple[TaskStatus, str]]:
        """Return the newest tasks with class and redacted text of the last error: for operators, not for users."""
        return self._overview.listed(state=state, name=name, user_id=user_id, most=most)

    def cancel(self, task_id: str) -> bool:
        """Cancel a waiting task, or request a running one to stop; return whether there was anything to do."""
        return self.store.cancel(id_text(task_id))

    def replay(self, task_id: str) -> bool:
        """Run a dead or cancelled task again; return whether there was one."""
        return self.store.replay(id_text(task_id))

    def discard(self, task_id: str) -> bool:
        """Delete a task that has ended; return whether there was one."""
        return self.store.discard(id_text(task_id))

    def clean(
        self, *, older_than: float | timedelta = 7 * 86_400.0, keyed: float | timedelta = 90 * 86_400.0
    ) -> int:
        """Delete tasks that were done or cancelled long ago; dead tasks are kept until an operator deals with them.

        Args:
            older_than: seconds since their end.
            keyed: the same for tasks with a key, including scheduled ones; after the deletion the key can be used
                again.

        Returns:
            The number of deleted tasks.
        """
        # Keyed tasks are kept longer: as long as the row exists, its key prevents a duplicate.
        ages = {False: seconds(older_than, parameter="older_than"), True: seconds(keyed, parameter="keyed")}
        return sum(
            self.store.clean(state=state, older_than=age, keyed=has_key)
            for state in ("done", "cancelled")
            for has_key, age in ages.items()
        )

    def __repr__(self) -> str:
        return f"Tasks({self.store.table.name!r}, {len(self._known)} known)"


def _priority(name: str) -> int:
    return _PRIORITY[choice(name, _PRIORITY, parameter="priority")]


def _carried_context() -> str:
    bound = current()
    carried = {name: storable(str(bound[name]), most=200) for name in _CARRIED if bound.get(name)}
    return dump(carried, what="context")


async def _run_sync(
    connection: AsyncConnection | AsyncSession, work: Callable[[Connection | Session], T]
) -> T:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    if isinstance(connection, AsyncConnection):
        return await connection.run_sync(work)
    if isinstance(connection, AsyncSession):
        return await connection.run_sync(work)
    raise ConfigurationError(
        f"connection must be an AsyncConnection or an AsyncSession, not {type(connection).__name__}",
        parameter="connection",
    )


def _connection_of(connection: Connection | Session) -> Connection:
    from sqlalchemy import Connection

    if isinstance(connection, Connection):
        found = connection
    elif callable(getattr(connection, "connection", None)):
        found = connection.connection()
    else:
        raise ConfigurationError(
            f"connection must be a Connection or a Session, not {type(connection).__name__}",
            parameter="connection",
        )
    # Such a connection cannot guarantee that the task exists if and only if the transaction is committed.
    if found.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        raise ConfigurationError(
            "connection must be in a transaction; this one is in autocommit mode", parameter="connection"
        )
    return found
