"""Which rows a broker's bell is to be rung for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mks_hardening.tasks._states import sources
from mks_hardening.tasks.store._prepared_statements import PRIORITIES, locked, written

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from mks_hardening.tasks.store._task_store import TaskStore

__all__ = ["WakeUp", "WakeUps"]


class WakeUp(NamedTuple):
    """A row whose bell is to be rung."""

    task_id: str
    name: str
    queue: str
    priority: int


class WakeUps:
    """Marks rows as rung; each ring is given to one caller alone.

    Args:
        store: whose rows.
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
        """Rows to ring for now, urgent ones first.

        Each row is rung once. One that was rung and not taken for ``again_after`` seconds is rung again when its
        queue is quiet: a broker that lost its messages is quiet, one that has many waits for its workers, and more
        of the same would only fill it.

        Args:
            queues: where to look.
            again_after: seconds.
            most: how many at most.
            is_quiet: whether the broker holds few messages for a queue; asked only where it matters.
        """
        columns = self._store.table.c
        fresh = [
            (columns.queue == queue)
            & columns.rung_at.is_(None)
            & (columns.priority == written(priority))
            & self._store.is_due()
            for priority in PRIORITIES
            for queue in queues
        ]
        long_ago = columns.rung_at < self._store.clock.moment() - again_after
        stale = {queue: (columns.queue == queue) & long_ago & self._store.is_due() for queue in queues}
        # Asked in one read first: on most looks nothing is due, and an UPDATE that changes nothing still takes
        # SQLite's one writer.
        found = self._fulfilled([*fresh, *stale.values()])
        rings = list[WakeUp]()
        for condition in found:
            queue = next((queue for queue, known in stale.items() if known is condition), None)
            if len(rings) < most and (queue is None or is_quiet(queue)):
                rings += self._mark(condition, most - len(rings))
        return rings

    def _fulfilled(self, conditions: Sequence[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
        """Those conditions that some row fulfils, asked in one statement that changes nothing."""
        from sqlalchemy import select

        columns = self._store.table.c
        # In the order of the index, and not EXISTS: for that one PostgreSQL may read the table from its begin,
        # in the hope of an early row, and finds none as soon as all of them have been rung.
        first = (
            select(columns.id)
            .where(condition)
            .order_by(columns.queue, columns.rung_at, columns.priority, columns.due_at)
            .limit(written(1))
            .scalar_subquery()
            for condition in conditions
        )
        with self._store.engine.connect() as connection:
            found = connection.execute(select(*first)).one()
        return [
            condition for condition, task_id in zip(conditions, found, strict=True) if task_id is not None
        ]

    def _mark(self, condition: ColumnElement[bool], most: int) -> list[WakeUp]:
        from sqlalchemy import select, update

        store = self._store
        columns = store.table.c
        due = select(columns.id).where(condition).order_by(columns.due_at).limit(written(most))
        change = (
            update(store.table)
            .where(columns.id.in_(locked(due, store.engine)))
            .values(rung_at=store.clock.moment())
            .returning(columns.id, columns.name, columns.queue, columns.priority)
        )
        with store.hot.lightly() as connection:
            rows = connection.execute(change).all()
        return [WakeUp(*row) for row in rows]

    def take_back(self, rings: Sequence[WakeUp]) -> None:
        """No broker heard these; they are due anew unless somebody has taken them."""
        from sqlalchemy import update

        if not rings:
            return
        columns = self._store.table.c
        change = (
            update(self._store.table)
            # A row that was taken meanwhile needs no bell; marking it would ring for a task that runs.
            .where(columns.id.in_([ring.task_id for ring in rings]), columns.state.in_(sources("claim")))
            .values(rung_at=None)
        )
        with self._store.hot.lightly() as connection:
            connection.execute(change)
