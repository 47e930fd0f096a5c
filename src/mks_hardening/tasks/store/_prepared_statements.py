"""Statements that run for every task; each is built once per table, since building takes longer than running."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.tasks._states import Step, sources
from mks_hardening.tasks.store._task_rows import LEASED_COLUMNS, LeasedTask

if TYPE_CHECKING:
    from sqlalchemy import CTE, ColumnElement, Connection, Engine, Executable, Select, Table, Update

    from mks_hardening.tasks.store._row_clock import RowClock

__all__ = [
    "PRIORITIES",
    "PreparedStatements",
    "in_source_state",
    "literal_number",
    "lock_rows",
    "single_statement_engine",
]

PRIORITIES: Final = (0, 1, 2)
"""High, normal, low: each is queried by its own index range, so none blocks another."""


def single_statement_engine(engine: Engine) -> Engine:
    """Return the engine for single statements, and for reads that need no common snapshot.

    On PostgreSQL it begins no transactions. They would cost two more round trips, and after the ROLLBACK of a read
    psycopg forgets all statements that it has prepared on the connection, so that PostgreSQL plans them again.
    """
    return (
        engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="AUTOCOMMIT")
    )


class PreparedStatements:
    """Statements for finding, leasing and finishing tasks.

    Args:
        engine: engine of the table.
        table: created by ``task_table``.
        clock: clock of the rows.
    """

    def __init__(self, engine: Engine, table: Table, clock: RowClock) -> None:
        self._engine = engine
        self._table = table
        self._clock = clock
        self._one_writer = engine.dialect.name == "sqlite"
        self._single = single_statement_engine(engine)
        self._due_queries: dict[tuple[str, ...], Executable] = {}
        self._lease_statements: dict[tuple[int, int], Update] = {}
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child, because a thread of the parent may hold it."""
        self._lock = RLock()

    def write_lock(self) -> AbstractContextManager[object]:
        """Lock for SQLite's single writer: threads of one process queue for it instead of polling."""
        return self._lock if self._one_writer else nullcontext()

    @contextmanager
    def asynchronous_commit(self) -> Generator[Connection]:
        """Open a transaction that does not wait for PostgreSQL's disk (asynchronous commit).

        A crash of the database host may lose it, so it is only for changes that matter less than the work: after a
        lost lease nobody has leased the task, after a lost renewal the lease expires. Results are never written
        this way.
        """
        with self.write_lock(), self._engine.begin() as connection:
            if not self._one_writer:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection

    def lease(self, queues: Sequence[str], *, owner: str, lease: float, most: int) -> list[LeasedTask]:
        """Lease due tasks of these queues, sorted by priority, then by queue with the longest due time."""
        leased, wanted = list[LeasedTask](), tuple(dict.fromkeys(queues))
        # One connection for all statements: its check at the checkout costs as much as a statement.
        with self._single.connect() as connection:
            if most == len(wanted) == 1 and not self._one_writer:
                given = {"queue_is": wanted[0], "owner_is": owner, "lease": lease}
                return self._leased(connection, self._lease_first_statement, given)
            for priority, queue in self._due_queues(connection, wanted):
                if len(leased) < most:
                    statement = self._lease_statement(priority, most - len(leased))
                    given = {"queue_is": queue, "owner_is": owner, "lease": lease}
                    leased += self._leased(connection, statement, given)
        return leased

    def _due_queues(self, connection: Connection, wanted: tuple[str, ...]) -> list[tuple[int, str]]:
        """Return the priorities and queues with due tasks, sorted by priority, then by the longest due time.

        This is a read, so idle workers do not queue for SQLite's single writer. Each priority and queue has its own
        index range: a single query for several queues would sort all due tasks in them.
        """
        found = connection.execute(self._due_query(wanted), self._clock.values()).one()
        # Ends the transaction of the read: SQLite would reject the write if another writer was faster.
        connection.rollback()
        places = [(priority, queue) for priority in PRIORITIES for queue in wanted]
        due = zip(found, places, strict=True)
        oldest = sorted((priority, since, queue) for since, (priority, queue) in due if since is not None)
        return [(priority, queue) for priority, _, queue in oldest]

    def lease_one(self, task_id: str, *, owner: str, lease: float) -> LeasedTask | None:
        """Lease this task if it is due and not leased."""
        given = {"task_id": task_id, "owner_is": owner, "lease": lease}
        with self._single.connect() as connection:
            found = self._leased(connection, self._lease_one_statement, given)
        return found[0] if found else None

    def finish(self, task: LeasedTask, *, result: str, connection: Connection | None) -> bool:
        """Record a result, in the given transaction or in its own; return whether the lease was still held."""
        values = {**_finish_values(task, result), **self._clock.values()}
        if connection is not None:
            return connection.execute(self._finish_statement, values).rowcount == 1
        with self.write_lock(), self._single.begin() as own:
            return own.execute(self._finish_statement, values).rowcount == 1

    def finish_and_lease(
        self, task: LeasedTask, *, result: str, queue: str, owner: str, lease: float
    ) -> tuple[bool, LeasedTask | None]:
        """Record a result, and lease the next task of a queue, in one statement of PostgreSQL."""
        given = {"queue_is": queue, "owner_is": owner, "lease": lease, **_finish_values(task, result)}
        with self._single.connect() as connection:
            row = connection.execute(
                self._finish_and_lease_statement, {**given, **self._clock.values()}
            ).one()
        finished, *leased = row
        return finished == 1, None if row.id is None else _leased_task(leased, row.unknown_for)

    def _leased(
        self, connection: Connection, change: Update, values: Mapping[str, object]
    ) -> list[LeasedTask]:
        with self.write_lock(), connection.begin():
            rows = connection.execute(change, {**values, **self._clock.values()}).all()
        # RETURNING guarantees no order.
        rows = sorted(rows, key=lambda row: (row.created_at, row.id))
        return [_leased_task(row, row.unknown_for) for row in rows]

    def _is(self, step: Step) -> ColumnElement[bool]:
        return in_source_state(self._table.c.state, step)

    def _due_query(self, queues: tuple[str, ...]) -> Executable:
        from sqlalchemy import select

        if queues not in self._due_queries:
            due_at = self._table.c.due_at
            self._due_queries[queues] = select(
                *(
                    select(due_at)
                    .where(*self._due(literal_number(priority), queue))
                    .order_by(due_at)
                    .limit(literal_number(1))
                    .scalar_subquery()
                    for priority in PRIORITIES
                    for queue in queues
                )
            )
        return self._due_queries[queues]

    @cached_property
    def _lease_first_statement(self) -> Update:
        """Lease one task of one queue, for PostgreSQL: the first that is due and not locked, by priority.

        Each priority has its own index range, as in ``_due_queues``; a range is read only if all before it had
        nothing.
        """
        return self._lease_where(self._is_first())

    @cached_property
    def _finish_and_lease_statement(self) -> Select[Any]:
        """Do both in one transaction that waits for the disk, as a result requires."""
        from sqlalchemy import bindparam, func, select, true

        columns = self._table.c
        finished = self._finish_statement.returning(columns.id).cte("finished")
        # Both parts see the rows as they were: the finished task may be due again, if its lease has expired.
        others = columns.id != bindparam("finished_id")
        leased = self._lease_where(self._is_first(others), asynchronous=False).cte("leased")
        count = select(func.count().label("finished")).select_from(finished).subquery("count")
        return select(count.c.finished, leased).select_from(count.outerjoin(leased, true()))

    def _is_first(self, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        from sqlalchemy import String, bindparam, exists, select, union_all

        found: list[CTE] = []
        for priority in PRIORITIES:
            due = (
                select(self._table.c.id)
                .where(*self._due(literal_number(priority), bindparam("queue_is", type_=String)), *conditions)
                .where(*(~exists(select(urgent.c.id)) for urgent in found))
                .order_by(self._table.c.due_at)
                .limit(literal_number(1))
                .with_for_update(skip_locked=True)
            )
            found.append(due.cte(f"due_{priority}").prefix_with("MATERIALIZED", dialect="postgresql"))
        return self._table.c.id.in_(union_all(*(select(due.c.id) for due in found)))

    def _lease_statement(self, priority: int, most: int) -> Update:
        from sqlalchemy import String, bindparam, select

        if (priority, most) not in self._lease_statements:
            columns = self._table.c
            due = (
                select(columns.id)
                .where(*self._due(literal_number(priority), bindparam("queue_is", type_=String)))
                .order_by(columns.due_at)
                .limit(literal_number(most))
            )
            change = self._lease_where(columns.id.in_(lock_rows(due, self._engine)))
            self._lease_statements[priority, most] = change
        return self._lease_statements[priority, most]

    def _due(
        self, priority: ColumnElement[int], queue: ColumnElement[str] | str
    ) -> tuple[ColumnElement[bool], ...]:
        columns = self._table.c
        return (
            columns.queue == queue,
            columns.priority == priority,
            columns.due_at <= self._clock.parameter(),
            self._is("lease"),
        )

    @cached_property
    def _lease_one_statement(self) -> Update:
        from sqlalchemy import bindparam

        columns = self._table.c
        is_due = (columns.due_at <= self._clock.parameter()) & self._is("lease")
        return self._lease_where((columns.id == bindparam("task_id")) & is_due)

    def _lease_where(self, condition: ColumnElement[bool], *, asynchronous: bool = True) -> Update:
        from sqlalchemy import Float, bindparam, func, select, true, update

        columns = self._table.c
        now = self._clock.parameter()
        # As in asynchronous_commit(), but within the one statement; a subquery is evaluated once, not for each row.
        off = select(func.set_config("synchronous_commit", "off", true())).scalar_subquery() == "off"
        is_asynchronous = off if asynchronous and not self._one_writer else true()
        change: Update = (
            update(self._table)
            .where(condition, is_asynchronous)
            .values(
                state="running",
                owner=bindparam("owner_is"),
                due_at=now + bindparam("lease", type_=Float(53)),
                started_at=now,
                deliveries=columns.deliveries + 1,
                rung_at=None,  # the wake-up for this task has been handled
            )
            .returning(
                *(columns[name] for name in LEASED_COLUMNS),
                columns.created_at,
                (now - columns.unknown_since).label("unknown_for"),
            )
        )
        return change

    @cached_property
    def _finish_statement(self) -> Update:
        from sqlalchemy import bindparam, update

        columns = self._table.c
        return (
            update(self._table)
            .where(
                columns.id == bindparam("finished_id"),
                # A worker that lost its lease changes nothing, however late it is: each lease has a new owner
                # value.
                columns.owner == bindparam("finished_by"),
                self._is("finish"),
            )
            .values(
                state="done",
                result=bindparam("result_is"),
                progress=1.0,
                due_at=None,
                owner=None,
                finished_at=self._clock.parameter(),
                rung_at=None,
            )
        )


def in_source_state(state: ColumnElement[str], step: Step) -> ColumnElement[bool]:
    """Condition that a step is allowed in this state.

    With literals, because SQLAlchemy would expand the parameters of ``IN`` at each execution.
    """
    from sqlalchemy import literal_column

    return state.in_([literal_column(f"'{source}'") for source in sources(step)])


def literal_number(number: int) -> ColumnElement[int]:
    """Return a number as a part of the statement instead of a bound parameter.

    psycopg prepares a statement after five executions, and PostgreSQL then uses one plan for all values. For an
    unknown limit it expects a tenth of the rows, for an unknown priority a third, and reads the whole table.
    """
    from sqlalchemy import Integer, literal_column

    # Not literal(..., literal_execute=True), whose text is replaced at each execution.
    return literal_column(str(int(number)), Integer())


def lock_rows(due: Select[tuple[str]], engine: Engine) -> Select[tuple[str]]:
    """Select the ids, with row locks if supported; evaluated once: a planner may run a plain subquery again."""
    from sqlalchemy import select

    if engine.dialect.name == "postgresql":
        # SKIP LOCKED: workers lease different rows instead of waiting for each other.
        due = due.with_for_update(skip_locked=True)
    return select(due.cte("due").prefix_with("MATERIALIZED", dialect="postgresql").c.id)


def _finish_values(task: LeasedTask, result: str) -> dict[str, object]:
    return {"finished_id": task.id, "finished_by": task.owner, "result_is": result}


def _leased_task(row: Iterable[Any], unknown_for: float | None) -> LeasedTask:
    values: dict[str, Any] = dict(zip(LEASED_COLUMNS, row, strict=False))
    return LeasedTask(unknown_for=unknown_for, **values)
