"""Statements that change tasks: compare-and-set by state and owner, each in one short transaction.

The condition of a statement is the left side of the transition table, so a step that is not allowed changes no row.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mks_hardening._core.checks import instance
from mks_hardening.protocols import Clock
from mks_hardening.tasks._naming import SLOT
from mks_hardening.tasks._states import ENDS, State, Step, sources
from mks_hardening.tasks.store._enqueue_statements import EnqueueStatements
from mks_hardening.tasks.store._new_task_signals import NewTaskSignals
from mks_hardening.tasks.store._notification_listener import NotificationListener
from mks_hardening.tasks.store._prepared_statements import PreparedStatements, single_statement_engine
from mks_hardening.tasks.store._row_clock import RowClock
from mks_hardening.tasks.store._task_rows import (
    LEASED_COLUMNS,
    NEW_COLUMNS,
    LeasedTask,
    NewTask,
    released_values,
    renewed_values,
)

if TYPE_CHECKING:
    from sqlalchemy import URL, ColumnElement, Connection, Engine, Table, UpdateBase

__all__ = ["TaskStore"]


class TaskStore:
    """Store of the task rows in one table.

    Args:
        engine: engine of the table.
        table: created by ``task_table``.
        clock: clock to use instead of the database's or the host's.
        notify: whether PostgreSQL announces new tasks to the workers of all processes.
    """

    def __init__(
        self, engine: Engine, table: Table, *, clock: Clock | None = None, notify: bool = True
    ) -> None:
        from sqlalchemy import Table

        self.engine: Engine = engine
        self.reads: Engine = single_statement_engine(engine)
        self.table: Table = instance(table, Table, parameter="table")
        self.clock: RowClock = RowClock(engine, clock)
        self._postgresql = engine.dialect.name == "postgresql"
        self.signals: NewTaskSignals = NewTaskSignals(engine, table)
        self.notify: bool = notify
        self._prepare()
        self.in_memory: bool = not self._postgresql and _in_memory(engine.url)

    def _prepare(self) -> None:
        """Build the statements, which depend on the clock."""
        self.statements: PreparedStatements = PreparedStatements(self.engine, self.table, self.clock)
        self._enqueuing = EnqueueStatements(
            self.engine, self.table, self.clock, signals=self.signals, notify=self.notify
        )

    def listener(self, wake: Callable[[], None], queues: Iterable[str]) -> NotificationListener | None:
        """Return a listener for new tasks in these queues; ``None`` if PostgreSQL does not announce them.

        Args:
            wake: called without arguments; must not block.
            queues: names of queues.
        """
        if not (self.notify and NotificationListener.supports(self.engine)):
            return None
        return NotificationListener(self.engine, map(self.signals.payload, queues), wake)

    # --- enqueuing -----------------------------------------------------------------------------

    def add(self, connection: Connection, new: NewTask) -> str:
        """Insert a task in the caller's transaction; return its id, or that of the task with the same key.

        If that task is dead, it is run again with the new values.
        """
        return self._enqueuing.add(connection, new)

    def add_many(self, connection: Connection, new: Sequence[NewTask]) -> list[str]:
        """Insert many tasks in the caller's transaction; return their ids in the same order, as ``add`` would."""
        return self._enqueuing.add_many(connection, new)

    # --- leasing -------------------------------------------------------------------------------

    def lease(self, *, owner: str, lease: float, queues: Sequence[str], most: int) -> list[LeasedTask]:
        """Lease due tasks; the delivery is counted now, before any code of the task runs.

        Args:
            owner: a fresh id that was never used before.
            lease: seconds until another worker may lease the tasks, unless the lease is renewed.
            queues: queues to search.
            most: maximum number of tasks.
        """
        return self.statements.lease(queues, owner=owner, lease=lease, most=most)

    def lease_one(self, task_id: str, *, owner: str, lease: float) -> LeasedTask | None:
        """Lease this task, whatever its queue, if it is due and not leased."""
        return self.statements.lease_one(task_id, owner=owner, lease=lease)

    def leased_by(self, owner: str) -> LeasedTask | None:
        """Return the task that this owner holds, for a caller that did not get the response to its lease."""
        from sqlalchemy import select

        columns = self.table.c
        unknown_for = (self.clock.moment() - columns.unknown_since).label("unknown_for")
        question = select(*(columns[name] for name in LEASED_COLUMNS), unknown_for).where(
            columns.owner == owner, columns.state == "running", columns.due_at > self.clock.moment()
        )
        with self.reads.connect() as connection:
            row = connection.execute(question).mappings().one_or_none()
        return None if row is None else LeasedTask(**row)

    def ended_by(self, task: LeasedTask) -> State | None:
        """Return the state in which the run of a leased task ended, or ``None`` if that run did not end it.

        A later run has a higher delivery count, or another number of attempts.
        """
        from sqlalchemy import select

        columns = self.table.c
        question = select(columns.state).where(
            columns.id == task.id,
            columns.deliveries == task.deliveries,
            columns.attempts == task.attempts,
            columns.state.in_(ENDS),
        )
        with self.reads.connect() as connection:
            found: State | None = connection.execute(question).scalar_one_or_none()
        return found

    def is_due(self) -> ColumnElement[bool]:
        """Condition that a task may be leased: its time has come, or its lease has expired."""
        columns = self.table.c
        return (columns.due_at <= self.clock.moment()) & columns.state.in_(sources("lease"))

    # --- renewing and ending -------------------------------------------------------------------

    def renew(self, tasks: Sequence[LeasedTask], *, lease: float) -> set[str]:
        """Extend leases by ``lease`` seconds; return the owners of those that were still held."""
        from sqlalchemy import tuple_, update

        columns = self.table.c
        change = (
            update(self.table)
            .where(tuple_(columns.id, columns.owner).in_([(task.id, task.owner) for task in tasks]))
            .where(columns.state.in_(sources("renew")))
            .values(due_at=self.clock.moment() + lease)
            .returning(columns.owner)
        )
        with self.statements.asynchronous_commit() as connection:
            return set(connection.execute(change).scalars())

    def report(self, task: LeasedTask, *, progress: float, stage: str) -> bool | None:
        """Store the progress; return whether the task should stop, or ``None`` if the lease is no longer held."""
        from sqlalchemy import update

        columns = self.table.c
        change = (
            update(self.table)
            .where(columns.id == task.id, columns.owner == task.owner, columns.state == "running")
            .values(progress=progress, stage=stage)
            .returning(columns.cancel_requested)
        )
        with self.statements.asynchronous_commit() as connection:
            found = connection.execute(change).scalar_one_or_none()
        return None if found is None else bool(found)

    def holds(self, task: LeasedTask) -> bool | None:
        """Return whether the task should stop, or ``None`` if the lease is no longer held or has expired."""
        from sqlalchemy import select

        columns = self.table.c
        question = select(columns.cancel_requested).where(
            columns.id == task.id,
            columns.owner == task.owner,
            columns.state == "running",
            columns.due_at > self.clock.moment(),
        )
        with self.reads.connect() as connection:
            found = connection.execute(question).scalar_one_or_none()
        return None if found is None else bool(found)

    def finish(self, task: LeasedTask, *, result: str, connection: Connection | None = None) -> bool:
        """Record a result, in the given transaction or in its own; return whether the lease was still held."""
        return self.statements.finish(task, result=result, connection=connection)

    def finish_and_lease(
        self, task: LeasedTask, *, result: str, owner: str, lease: float, queues: Sequence[str]
    ) -> tuple[bool, LeasedTask | None]:
        """Record a result as ``finish`` does, and lease the next task, if one statement can do both.

        That halves what a task costs on PostgreSQL with one queue. Otherwise no task is leased.
        """
        wanted = set(queues)
        if self._postgresql and len(wanted) == 1:
            return self.statements.finish_and_lease(
                task, result=result, queue=wanted.pop(), owner=owner, lease=lease
            )
        return self.finish(task, result=result), None

    def retry(self, task: LeasedTask, *, delay: float, error: str, context: str | None = None) -> bool:
        """Return the task to the queue for a retry, with a new context if given; resets the delivery count."""
        values = {
            "context": task.context if context is None else context,
            "state": "waiting",
            "due_at": self.clock.moment() + delay,
            "deliveries": 0,
            "attempts": task.attempts + 1,
            "unknown_since": None,
            **released_values(error),
        }
        return self._step(task, "retry", values)

    def put_back(self, task: LeasedTask, *, delay: float, error: str, unknown: bool = False) -> bool:
        """Return the task to the queue for another worker, without counting an attempt or delivery.

        Args:
            task: the leased task.
            delay: seconds until it is due again.
            error: error text for operators.
            unknown: whether this worker does not know the task or does not accept its arguments.
        """
        from sqlalchemy import func

        values = {
            "state": "waiting",
            "due_at": self.clock.moment() + delay,
            # Leasing has counted it; a worker that could not run the task is not a crash of the task.
            "deliveries": max(0, task.deliveries - 1),
            # The first time is kept: how long a task has been unknown distinguishes a deployment from a mistake.
            "unknown_since": func.coalesce(self.table.c.unknown_since, self.clock.moment())
            if unknown
            else None,
            **released_values(error),
        }
        return self._step(task, "put_back", values)

    def give_up(self, task: LeasedTask, *, error: str) -> bool:
        """Mark the task as dead."""
        return self._step(task, "give_up", {"state": "dead", "error": error, **self._ended()})

    def stop(self, task: LeasedTask) -> bool:
        """End the task as cancelled, as requested."""
        return self._step(task, "stop", {"state": "cancelled", **self._ended()})

    def _step(self, task: LeasedTask, step: Step, values: dict[str, object]) -> bool:
        from sqlalchemy import update

        columns = self.table.c
        change = (
            update(self.table)
            .where(columns.id == task.id, columns.owner == task.owner, columns.state.in_(sources(step)))
            .values(values)
        )
        return self._changed(change) == 1

    def _ended(self) -> dict[str, object]:
        # Clearing due_at removes the row from the index that workers search.
        return {"due_at": None, "owner": None, "finished_at": self.clock.moment(), "rung_at": None}

    # --- for tests -----------------------------------------------------------------------------

    def accepted(self) -> list[NewTask]:
        """Return all tasks, oldest first, with the values that they were enqueued with."""
        from sqlalchemy import literal_column, select

        columns = self.table.c
        # Test clocks may stand still, so times alone do not define an order.
        order: ColumnElement[str] = columns.id if self._postgresql else literal_column("rowid")
        with self.reads.connect() as connection:
            rows = connection.execute(select(self.table).order_by(columns.created_at, order)).all()
        return [NewTask(delay=0.0, **{name: getattr(row, name) for name in NEW_COLUMNS}) for row in rows]

    def next_due(self) -> str | None:
        """Return the id of the task that a worker would lease next, in any queue."""
        from sqlalchemy import select

        columns = self.table.c
        question = select(columns.id).where(self.is_due()).order_by(columns.priority, columns.due_at).limit(1)
        with self.reads.connect() as connection:
            return connection.execute(question).scalar_one_or_none()

    @contextmanager
    def on_clock(self, clock: Clock) -> Generator[None]:
        """Use another clock within the block."""
        before = self.clock.replace(clock)
        self._prepare()
        try:
            yield
        finally:
            self.clock.replace(before)
            self._prepare()

    # --- administration ------------------------------------------------------------------------

    def cancel(self, task_id: str, *, connection: Connection | None = None) -> bool:
        """Cancel a waiting task, or request a running one to stop; return whether there was anything to do.

        In the given transaction, or in its own.
        """
        from sqlalchemy import case, update

        columns = self.table.c
        waits = columns.state == "waiting"
        change = (
            update(self.table)
            .where(columns.id == task_id, columns.state.in_(sources("cancel")))
            .values(
                # One statement for both: between a read and an update a worker may lease the task.
                state=case((waits, "cancelled"), else_=columns.state),
                due_at=case((waits, None), else_=columns.due_at),
                finished_at=case((waits, self.clock.moment()), else_=columns.finished_at),
                cancel_requested=True,
            )
        )
        if connection is not None:
            return connection.execute(change).rowcount == 1
        return self._changed(change) == 1

    def has_slot(self, name: str) -> bool:
        """Return whether a scheduled run of this task exists."""
        from sqlalchemy import exists, select

        with self.reads.connect() as connection:
            found = exists().where(
                self.table.c.name == name, self.table.c.unique_key.startswith(SLOT, autoescape=True)
            )
            return bool(connection.execute(select(found)).scalar_one())

    def replay(self, task_id: str) -> bool:
        """Run a dead or cancelled task again, as if it were new; return whether there was one."""
        from sqlalchemy import update

        columns = self.table.c
        change = (
            update(self.table)
            .where(columns.id == task_id, columns.state.in_(sources("replay")))
            .values(
                state="waiting",
                due_at=self.clock.moment(),
                **renewed_values(),
            )
        )
        return self._changed(change) == 1

    def discard(self, task_id: str) -> bool:
        """Delete a task that has ended; return whether there was one."""
        from sqlalchemy import delete

        columns = self.table.c
        return self._changed(delete(self.table).where(columns.id == task_id, columns.state.in_(ENDS))) == 1

    def clean(self, *, state: State, older_than: float, keyed: bool) -> int:
        """Delete tasks that ended more than ``older_than`` seconds ago, with or without a key; return their number.

        The newest slot of a schedule is kept: it tells a scheduler that the schedule is not new.
        """
        from sqlalchemy import delete, exists

        columns = self.table.c
        old = columns.finished_at < self.clock.moment() - older_than
        change = delete(self.table).where(columns.state == state, old)
        if not keyed:
            return self._changed(change.where(columns.unique_key.is_(None)))
        later = self.table.alias("later")
        newer = exists().where(
            later.c.name == columns.name,
            later.c.unique_key.startswith(SLOT, autoescape=True),
            later.c.created_at > columns.created_at,
        )
        is_slot = columns.unique_key.startswith(SLOT, autoescape=True)
        return self._changed(change.where(columns.unique_key.is_not(None), ~is_slot | newer))

    def _changed(self, change: UpdateBase) -> int:
        with self.statements.write_lock(), self.engine.begin() as connection:
            changed: int = connection.execute(change).rowcount
            return changed


def _in_memory(url: URL) -> bool:
    """Whether SQLite gives each connection its own database, or shares one that threads cannot use."""
    name = url.database or ""
    # Each connection to ":memory:" has its own database; another thread would not see the table.
    return name in {"", ":memory:"} or name.startswith("file::memory:") or url.query.get("mode") == "memory"
