"""Every statement that changes a task: compare-and-set by state and owner, each in one short transaction.

The condition of a statement is the left side of the transition table, so a step that is not possible changes no
row.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mks_hardening._core.checks import instance
from mks_hardening.protocols import Clock
from mks_hardening.tasks._naming import SLOT
from mks_hardening.tasks._states import ENDS, State, Step, sources
from mks_hardening.tasks.store._prepared_statements import PreparedStatements
from mks_hardening.tasks.store._row_clock import RowClock
from mks_hardening.tasks.store._task_rows import LeasedTask, NewTask

if TYPE_CHECKING:
    from sqlalchemy import URL, ColumnElement, Connection, Engine, Executable, Table, UpdateBase

__all__ = ["TaskStore"]


class TaskStore:
    """The rows of one table.

    Args:
        engine: where the table is.
        table: made by ``task_table``.
        clock: instead of the database's or the host's.
    """

    def __init__(self, engine: Engine, table: Table, *, clock: Clock | None = None) -> None:
        from sqlalchemy import Table

        self.engine: Engine = engine
        self.table: Table = instance(table, Table, parameter="table")
        self.clock: RowClock = RowClock(engine, clock)
        self._postgresql = engine.dialect.name == "postgresql"
        self.hot: PreparedStatements = PreparedStatements(engine, table, self.clock)
        self.in_memory: bool = not self._postgresql and _in_memory(engine.url)

    # --- accepting -----------------------------------------------------------------------------

    def add(self, connection: Connection, new: NewTask) -> str:
        """Accept a task in the caller's transaction; the id of the one that has the same key, if there is one.

        If that one is dead, it runs anew with what is given now.
        """
        from sqlalchemy import select

        columns = self.table.c
        now = self.clock.moment()
        values = {
            "id": new.id,
            "name": new.name,
            "arguments": new.arguments,
            "context": new.context,
            "state": "waiting",
            "queue": new.queue,
            "priority": new.priority,
            "due_at": now + new.delay if new.due_at is None else new.due_at,
            "created_at": now,
            "unique_key": new.unique_key,
            "user_id": new.user_id,
        }
        if new.unique_key is None:
            connection.execute(self.table.insert().values(values))
            return new.id
        accepted: str | None = connection.execute(self._insert_unless_there(values)).scalar_one_or_none()
        if accepted is not None:
            return accepted
        # Read in the caller's transaction: on PostgreSQL the insert has waited for the other one to commit.
        same = (columns.name == new.name) & (columns.unique_key == new.unique_key)
        found: str = connection.execute(select(columns.id).where(same)).scalar_one()
        return found

    def _insert_unless_there(self, values: Mapping[str, object]) -> Executable:
        from sqlalchemy import false
        from sqlalchemy.dialects import postgresql, sqlite

        columns = self.table.c
        insert = (postgresql.insert if self._postgresql else sqlite.insert)(self.table).values(values)
        # Every scheduler that starts enqueues the slot at hand, so a dead one must stay dead.
        is_slot = str(values["unique_key"]).startswith(SLOT)
        anew = {
            **{name: value for name, value in values.items() if name not in {"id", "name", "unique_key"}},
            **self._renewed(),
        }
        return insert.on_conflict_do_update(
            index_elements=["name", "unique_key"],
            set_=anew,
            where=false() if is_slot else columns.state.in_(sources("enqueue")),
        ).returning(columns.id)

    # --- taking --------------------------------------------------------------------------------

    def claim(self, *, owner: str, lease: float, queues: Sequence[str], most: int) -> list[LeasedTask]:
        """Take what is due; the delivery counts from now on, before any code of the task runs.

        Args:
            owner: a fresh id, which nobody has used before.
            lease: seconds until somebody else may take them, unless it is renewed.
            queues: where to look.
            most: how many at most.
        """
        taken = list[LeasedTask]()
        for priority, queue in self.hot.due_places(queues):
            if len(taken) < most:
                left = most - len(taken)
                taken += self.hot.take(priority, queue=queue, owner=owner, lease=lease, most=left)
        return taken

    def claim_one(self, task_id: str, *, owner: str, lease: float) -> LeasedTask | None:
        """Take this task if it is due and nobody has it, whatever its queue."""
        return self.hot.take_one(task_id, owner=owner, lease=lease)

    def is_due(self) -> ColumnElement[bool]:
        """It may be taken now: its time has come, or its lease has run out."""
        columns = self.table.c
        return (columns.due_at <= self.clock.moment()) & columns.state.in_(sources("claim"))

    # --- holding and ending --------------------------------------------------------------------

    def renew(self, tasks: Sequence[LeasedTask], *, lease: float) -> set[str]:
        """Hold tasks for so many seconds more; the owners of those that were still held."""
        from sqlalchemy import tuple_, update

        columns = self.table.c
        change = (
            update(self.table)
            .where(tuple_(columns.id, columns.owner).in_([(task.id, task.owner) for task in tasks]))
            .where(columns.state.in_(sources("renew")))
            .values(due_at=self.clock.moment() + lease)
            .returning(columns.owner)
        )
        with self.hot.lightly() as connection:
            return set(connection.execute(change).scalars())

    def report(self, task: LeasedTask, *, progress: float, stage: str) -> bool | None:
        """Write how far it is; whether it should stop, or ``None`` when it is not ours any more."""
        from sqlalchemy import update

        columns = self.table.c
        change = (
            update(self.table)
            .where(columns.id == task.id, columns.owner == task.owner, columns.state == "running")
            .values(progress=progress, stage=stage)
            .returning(columns.cancel_requested)
        )
        with self.hot.lightly() as connection:
            found = connection.execute(change).scalar_one_or_none()
        return None if found is None else bool(found)

    def holds(self, task: LeasedTask) -> bool | None:
        """Whether it should stop, or ``None`` when the lease is not ours or has run out."""
        from sqlalchemy import select

        columns = self.table.c
        question = select(columns.cancel_requested).where(
            columns.id == task.id,
            columns.owner == task.owner,
            columns.state == "running",
            columns.due_at > self.clock.moment(),
        )
        with self.engine.connect() as connection:
            found = connection.execute(question).scalar_one_or_none()
        return None if found is None else bool(found)

    def finish(self, task: LeasedTask, *, result: str, connection: Connection | None = None) -> bool:
        """Record the result, in the given transaction or in one of its own; whether it was still ours."""
        return self.hot.finish(task, result=result, connection=connection)

    def retry(self, task: LeasedTask, *, delay: float, error: str, context: str | None = None) -> bool:
        """Let it wait and be tried again, with another context if one is given; crashes are counted anew."""
        values = {
            "context": task.context if context is None else context,
            "state": "waiting",
            "due_at": self.clock.moment() + delay,
            "deliveries": 0,
            "attempts": task.attempts + 1,
            "unknown_since": None,
            **self._released(error),
        }
        return self._step(task, "retry", values)

    def put_back(self, task: LeasedTask, *, delay: float, error: str, unknown: bool = False) -> bool:
        """Leave it to another worker, or to one that knows the name where it is unknown; nothing is counted."""
        from sqlalchemy import func

        values = {
            "state": "waiting",
            "due_at": self.clock.moment() + delay,
            # The taking counted it; a worker that could not begin is no crash of the task.
            "deliveries": max(0, task.deliveries - 1),
            # The first time stays: how long a name has been unknown is what tells a deploy from a mistake.
            "unknown_since": func.coalesce(self.table.c.unknown_since, self.clock.moment())
            if unknown
            else None,
            **self._released(error),
        }
        return self._step(task, "put_back", values)

    def give_up(self, task: LeasedTask, *, error: str) -> bool:
        """Put it on the list of dead tasks."""
        return self._step(task, "give_up", {"state": "dead", "error": error, **self._ended()})

    def stop(self, task: LeasedTask) -> bool:
        """End it, as was asked."""
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
        # due_at goes with the end, and takes the row out of the index that workers look into.
        return {"due_at": None, "owner": None, "finished_at": self.clock.moment(), "rung_at": None}

    def _renewed(self) -> dict[str, object]:
        return {
            "deliveries": 0,
            "attempts": 0,
            "finished_at": None,
            "cancel_requested": False,
            "unknown_since": None,
            **self._released(""),
        }

    def _released(self, error: str) -> dict[str, object]:
        return {"owner": None, "error": error, "progress": 0.0, "stage": "", "rung_at": None}

    # --- for tests -----------------------------------------------------------------------------

    def accepted(self) -> list[NewTask]:
        """Every task that there is, oldest first, as it was accepted."""
        from sqlalchemy import literal_column, select

        columns = self.table.c
        # Clocks of tests stand still, so times alone do not tell.
        order: ColumnElement[str] = columns.id if self._postgresql else literal_column("rowid")
        with self.engine.connect() as connection:
            rows = connection.execute(select(self.table).order_by(columns.created_at, order)).all()
        return [
            NewTask(
                id=row.id,
                name=row.name,
                arguments=row.arguments,
                context=row.context,
                queue=row.queue,
                priority=row.priority,
                due_at=row.due_at,
                delay=0.0,
                unique_key=row.unique_key,
                user_id=row.user_id,
            )
            for row in rows
        ]

    def next_due(self) -> str | None:
        """The task that any worker would take next, in whatever queue."""
        from sqlalchemy import select

        columns = self.table.c
        question = select(columns.id).where(self.is_due()).order_by(columns.priority, columns.due_at).limit(1)
        with self.engine.connect() as connection:
            return connection.execute(question).scalar_one_or_none()

    @contextmanager
    def on_clock(self, clock: Clock) -> Generator[None]:
        """Go by this clock meanwhile."""
        before = self.clock.replace(clock)
        self.hot = PreparedStatements(self.engine, self.table, self.clock)
        try:
            yield
        finally:
            self.clock.replace(before)
            self.hot = PreparedStatements(self.engine, self.table, self.clock)

    # --- from outside --------------------------------------------------------------------------

    def cancel(self, task_id: str, *, connection: Connection | None = None) -> bool:
        """Cancel what waits, ask what runs to stop; whether there was anything to do.

        In the given transaction, or in one of its own.
        """
        from sqlalchemy import case, update

        columns = self.table.c
        waits = columns.state == "waiting"
        change = (
            update(self.table)
            .where(columns.id == task_id, columns.state.in_(sources("cancel")))
            .values(
                # One statement for both: between a look and a change a worker may take it.
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
        """Whether a run of this task was ever scheduled."""
        from sqlalchemy import exists, select

        with self.engine.connect() as connection:
            found = exists().where(
                self.table.c.name == name, self.table.c.unique_key.startswith(SLOT, autoescape=True)
            )
            return bool(connection.execute(select(found)).scalar_one())

    def replay(self, task_id: str) -> bool:
        """Run a dead or cancelled task once more, as if it were new; whether there was one."""
        from sqlalchemy import update

        columns = self.table.c
        change = (
            update(self.table)
            .where(columns.id == task_id, columns.state.in_(sources("replay")))
            .values(
                state="waiting",
                due_at=self.clock.moment(),
                **self._renewed(),
            )
        )
        return self._changed(change) == 1

    def discard(self, task_id: str) -> bool:
        """Remove a task that has ended; whether there was one."""
        from sqlalchemy import delete

        columns = self.table.c
        return self._changed(delete(self.table).where(columns.id == task_id, columns.state.in_(ENDS))) == 1

    def clean(self, *, state: State, older_than: float, keyed: bool) -> int:
        """Remove tasks that ended so many seconds ago, either those with a key or those without; how many.

        The newest slot of a schedule stays: it tells a scheduler that the schedule is not new.
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
        with self.hot.writing(), self.engine.begin() as connection:
            changed: int = connection.execute(change).rowcount
            return changed


def _in_memory(url: URL) -> bool:
    """Whether each connection of SQLite has a database of its own, or all of them one that threads cannot share."""
    name = url.database or ""
    # Each connection of ":memory:" has a database of its own; a thread would see no table.
    return name in {"", ":memory:"} or name.startswith("file::memory:") or url.query.get("mode") == "memory"
