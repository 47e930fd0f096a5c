"""Selection of the tasks that a broker sends wake-up messages for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mks_hardening.tasks._states import sources
from mks_hardening.tasks.store._prepared_statements import PRIORITIES, literal_number, lock_rows

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from mks_hardening.tasks.store._task_store import TaskStore

__all__ = ["WakeUp", "WakeUps"]


class WakeUp(NamedTuple):
    """A task that needs a wake-up message."""

    task_id: str
    name: str
    queue: str
    priority: int


class WakeUps:
    """Marks tasks whose wake-up message is sent; each wake-up is returned to one caller only.

    Args:
        store: the task store.
    """

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    def due(
        self,
        *,
        queues: Sequence[str],
        again_after: float,
        most: int,
        is_quiet: Callable[[str], bool] = lambda _: True,
    ) -> list[WakeUp]:
        """Return the tasks that need a wake-up message now, urgent ones first, and mark them.

        Each task gets one message. If it is not leased within ``again_after`` seconds, another message is sent if
        its queue is quiet: a broker that lost its messages is quiet, while one with many messages is waiting for
        its workers, and more messages would only fill it.

        Args:
            queues: queues to search.
            again_after: seconds until a message is repeated.
            most: maximum number of tasks.
            is_quiet: whether the broker holds few messages for a queue; called only if needed.
        """
        columns = self._store.table.c
        fresh = [
            (columns.queue == queue)
            & columns.rung_at.is_(None)
            & (columns.priority == literal_number(priority))
            & self._store.is_due()
            for priority in PRIORITIES
            for queue in queues
        ]
        long_ago = columns.rung_at < self._store.clock.moment() - again_after
        stale = {queue: (columns.queue == queue) & long_ago & self._store.is_due() for queue in queues}
        # Checked with one read first: usually nothing is due, and an UPDATE that changes no row still locks
        # SQLite's single writer.
        found = self._fulfilled([*fresh, *stale.values()])
        queue_of = {id(condition): queue for queue, condition in stale.items()}
        # Before anything is marked, as the broker may fail to respond: marked rows would wait for `again_after`.
        wanted = [each for each in found if id(each) not in queue_of or is_quiet(queue_of[id(each)])]
        wake_ups = list[WakeUp]()
        for condition in wanted:
            if len(wake_ups) < most:
                wake_ups += self._mark(condition, most - len(wake_ups))
        return wake_ups

    def _fulfilled(self, conditions: Sequence[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
        """Return the conditions that some row matches, using one read-only statement."""
        from sqlalchemy import select

        columns = self._store.table.c
        # Ordered by the index instead of EXISTS: for EXISTS PostgreSQL may scan the table from the start, expecting
        # an early match, and finds none once all rows have been marked.
        first = (
            select(columns.id)
            .where(condition)
            .order_by(columns.queue, columns.rung_at, columns.priority, columns.due_at)
            .limit(literal_number(1))
            .scalar_subquery()
            for condition in conditions
        )
        with self._store.reads.connect() as connection:
            found = connection.execute(select(*first)).one()
        return [
            condition for condition, task_id in zip(conditions, found, strict=True) if task_id is not None
        ]

    def _mark(self, condition: ColumnElement[bool], most: int) -> list[WakeUp]:
        from sqlalchemy import select, update

        store = self._store
        columns = store.table.c
        due = select(columns.id).where(condition).order_by(columns.due_at).limit(literal_number(most))
        change = (
            update(store.table)
            .where(columns.id.in_(lock_rows(due, store.engine)))
            .values(rung_at=store.clock.moment())
            .returning(columns.id, columns.name, columns.queue, columns.priority)
        )
        with store.statements.asynchronous_commit() as connection:
            rows = connection.execute(change).all()
        return [WakeUp(*row) for row in rows]

    def unmark(self, wake_ups: Sequence[WakeUp]) -> None:
        """Unmark tasks whose message did not reach a broker; they are due again unless they have been leased."""
        from sqlalchemy import update

        if not wake_ups:
            return
        columns = self._store.table.c
        change = (
            update(self._store.table)
            # Only waiting tasks and expired leases: a task that runs by now needs no message.
            .where(
                columns.id.in_([wake_up.task_id for wake_up in wake_ups]), columns.state.in_(sources("lease"))
            )
            .values(rung_at=None)
        )
        with self._store.statements.asynchronous_commit() as connection:
            connection.execute(change)
