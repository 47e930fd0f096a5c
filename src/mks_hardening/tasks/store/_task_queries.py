"""Read-only queries of tasks: status for their owners, lists for operators, statistics for metrics."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, get_args

from mks_hardening._core.checks import choice, whole_number
from mks_hardening.tasks._naming import check_name, check_user_id
from mks_hardening.tasks._payload import load
from mks_hardening.tasks._states import ENDS, State, sources
from mks_hardening.tasks.task_status import TaskStatus
from mks_hardening.tasks.watch.task_stats import RecentRuns, TaskStats

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from mks_hardening.tasks.store._task_store import TaskStore

__all__ = ["TaskQueries"]

_MOST_LISTED: Final = 1_000_000


class TaskQueries:
    """Read-only queries of a task store.

    Args:
        store: the task store.
    """

    def __init__(self, store: TaskStore) -> None:
        self._engine = store.reads
        self._table = store.table
        self._clock = store.clock

    def status(self, task_id: str) -> TaskStatus | None:
        """Return the status of a task, or ``None`` if it does not exist."""
        from sqlalchemy import select

        with self._engine.connect() as connection:
            found = connection.execute(select(self._table).where(self._table.c.id == task_id))
            row = found.mappings().one_or_none()
        return None if row is None else _status(row)

    def listed(
        self, *, state: State | None, name: str | None, user_id: str | None, most: int
    ) -> list[tuple[TaskStatus, str]]:
        """Return the newest tasks, each with its redacted error text for operators."""
        from sqlalchemy import select

        if state is not None:
            choice(state, get_args(State), parameter="state")
        if name is not None:
            check_name(name)
        if user_id is not None:
            check_user_id(user_id)
        whole_number(most, parameter="most", minimum=1, maximum=_MOST_LISTED)
        columns = self._table.c
        question = select(self._table).order_by(columns.created_at.desc(), columns.id).limit(most)
        for column, wanted in ((columns.state, state), (columns.name, name), (columns.user_id, user_id)):
            if wanted is not None:
                question = question.where(column == wanted)
        with self._engine.connect() as connection:
            return [(_status(row), row["error"] or "") for row in connection.execute(question).mappings()]

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        from sqlalchemy import func, select

        columns = self._table.c
        with self._engine.connect() as connection:
            rows = connection.execute(select(columns.state, func.count()).group_by(columns.state))
            return {row[0]: row[1] for row in rows}

    def stats(self, *, window: float) -> TaskStats:
        """Return statistics of the queues; every query uses an index or reads few rows."""
        from sqlalchemy import and_, case, func, or_, select

        columns, now = self._table.c, self._clock.moment()
        # A running row whose lease has expired is due too: its worker is dead, and the task waits for another one.
        is_due = columns.due_at <= now
        waits = columns.state == "waiting"
        free = and_(is_due, columns.state.in_(sources("lease")))
        unknown = and_(waits, columns.unknown_since.is_not(None))
        count = func.count()
        queues = (
            select(
                columns.queue,
                func.sum(case((and_(free, ~unknown), 1), else_=0)),
                func.max(case((and_(free, ~unknown), now - columns.due_at))),
                func.sum(case((and_(waits, ~is_due, ~unknown), 1), else_=0)),
                func.sum(case((and_(columns.state == "running", ~is_due), 1), else_=0)),
                func.sum(case((unknown, 1), else_=0)),
                func.max(case((unknown, now - columns.created_at))),
            )
            # Rows of ended tasks have no due_at, so this reads only active ones, whatever the size of the table.
            .where(columns.due_at.is_not(None))
            .group_by(columns.queue)
        )
        ended = select(columns.state, count).where(columns.state.in_(ENDS)).group_by(columns.state)
        dead = select(columns.name, count).where(columns.state == "dead").group_by(columns.name)
        seconds = columns.finished_at - columns.started_at
        recent = (
            select(
                columns.name,
                func.sum(case((columns.state == "done", 1), else_=0)),
                func.sum(case((columns.state == "dead", 1), else_=0)),
                func.sum(columns.attempts),
                func.avg(seconds),
                func.max(seconds),
            )
            .where(
                # One range of the index (state, finished_at) for each final state; `finished_at` alone would read
                # the whole table.
                or_(*(and_(columns.state == state, columns.finished_at >= now - window) for state in ENDS))
            )
            .group_by(columns.name)
        )
        with self._engine.connect() as connection:
            lines = connection.execute(queues).all()
            ends = {row[0]: row[1] for row in connection.execute(ended)}
            dead_by_name = {row[0]: row[1] for row in connection.execute(dead)}
            runs = connection.execute(recent).all()
        return TaskStats(
            due=sum(line[1] for line in lines),
            oldest_due=max((line[2] for line in lines if line[2] is not None), default=None),
            delayed=sum(line[3] for line in lines),
            running=sum(line[4] for line in lines),
            unknown=sum(line[5] for line in lines),
            oldest_unknown=max((line[6] for line in lines if line[6] is not None), default=None),
            done=ends.get("done", 0),
            dead=ends.get("dead", 0),
            cancelled=ends.get("cancelled", 0),
            queues={line[0]: line[1] for line in lines},
            dead_by_name=dead_by_name,
            recent={
                run[0]: RecentRuns(
                    done=run[1], dead=run[2], retries=run[3], mean_seconds=run[4], longest_seconds=run[5]
                )
                for run in runs
            },
        )


def _status(row: RowMapping) -> TaskStatus:
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(TaskStatus)}
    values["cancel_requested"] = bool(values["cancel_requested"])
    if values["result"] is not None:
        values["result"] = load(values["result"])
    return TaskStatus(**values)
