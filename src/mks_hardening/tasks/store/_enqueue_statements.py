"""Statements that insert new tasks; each is built once per table, since building takes longer than running."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from mks_hardening.tasks._naming import SLOT
from mks_hardening.tasks.store._new_task_signals import CHANNEL, NewTaskSignals
from mks_hardening.tasks.store._prepared_statements import in_source_state
from mks_hardening.tasks.store._task_rows import NEW_COLUMNS, NewTask, renewed_values

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, Executable, Select, Table
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.sql.base import ReadOnlyColumnCollection

    from mks_hardening.tasks.store._row_clock import RowClock

__all__ = ["EnqueueStatements"]

_GIVEN: Final = (*NEW_COLUMNS, "delay")
"""Values of a new task, in the order in which a batch sends them."""
_values: Final[Callable[[NewTask], tuple[object, ...]]] = attrgetter(*_GIVEN)
_ROWS: Final = 1000
"""Rows per statement: with the longest arguments, 64 MB."""
_KEYS: Final = 500
"""Keys per query, below SQLite's limit of 999 parameters before version 3.32."""


class EnqueueStatements:
    """Statements that insert new tasks in the caller's transaction.

    Of several tasks with the same name and key only the first is inserted. A later one changes nothing, unless the
    first one is dead: then it is run again with the new values.

    Args:
        engine: engine of the table.
        table: created by ``task_table``.
        clock: clock of the rows.
        signals: signals to workers.
        notify: whether PostgreSQL tells the workers of other processes.
    """

    def __init__(
        self, engine: Engine, table: Table, clock: RowClock, *, signals: NewTaskSignals, notify: bool
    ) -> None:
        self._table = table
        self._clock = clock
        self._signals = signals
        self._postgresql = engine.dialect.name == "postgresql"
        self._notify = notify and self._postgresql

    def add(self, connection: Connection, new: NewTask) -> str:
        """Insert one task; return its id, or that of the task with the same key."""
        values = {f"{name}_is": value for name, value in zip(_GIVEN, _values(new), strict=True)}
        given = {**values, **self._clock.values()}
        statement = self._insert_one
        if _is_due_at_once(new):
            self._signals.mark(connection, [new.queue])
            if self._notify:
                statement = self._insert_and_notify
                given["payload"] = self._signals.payload(new.queue)
        accepted: str | None = connection.execute(statement, given).scalar_one_or_none()
        if accepted is not None:
            return accepted
        # Read in the caller's transaction: on PostgreSQL the insert has waited for the other transaction to commit.
        return self._found(connection, [new])[new.name, new.unique_key]

    def add_many(self, connection: Connection, new: Sequence[NewTask]) -> list[str]:
        """Insert many tasks with few statements; return their ids in the same order, as ``add`` would."""
        first = dict[tuple[str, str | None], NewTask]()
        for task in new:
            if task.unique_key is not None:
                first.setdefault((task.name, task.unique_key), task)
        # Sorted, because an insert waits for another transaction with the same key: two that insert the same keys
        # in different orders would wait for each other.
        keyed = [first[key] for key in sorted(first, key=str)]
        self._insert(connection, [task for task in new if task.unique_key is None] + keyed)
        queues = dict.fromkeys(task.queue for task in new if _is_due_at_once(task))
        if queues:
            self._signals.mark(connection, queues)
            if self._notify:
                self._send_notifications(connection, queues)
        ids = self._found(connection, keyed)
        return [task.id if task.unique_key is None else ids[task.name, task.unique_key] for task in new]

    def _insert(self, connection: Connection, new: Sequence[NewTask]) -> None:
        now = self._clock.values()
        for start in range(0, len(new), _ROWS):
            rows = [_values(task) for task in new[start : start + _ROWS]]
            if self._postgresql:
                # One parameter for all rows: each one of its own would cost more than the insert.
                connection.execute(self._insert_rows, {"rows": json.dumps(_records(rows)), **now})
            else:
                names = [f"{name}_is" for name in _GIVEN]
                connection.execute(
                    self._insert_each, [dict(zip(names, row, strict=True)) | now for row in rows]
                )

    def _send_notifications(self, connection: Connection, queues: Iterable[str]) -> None:
        from sqlalchemy import func, select

        sent = (func.pg_notify(CHANNEL, self._signals.payload(queue)) for queue in queues)
        connection.execute(select(*sent))

    def _found(self, connection: Connection, keyed: Sequence[NewTask]) -> dict[tuple[str, str | None], str]:
        """Return the ids of the tasks with these names and keys."""
        from sqlalchemy import select

        columns, found = self._table.c, dict[tuple[str, str | None], str]()
        for name in dict.fromkeys(task.name for task in keyed):
            keys = [task.unique_key for task in keyed if task.name == name]
            for start in range(0, len(keys), _KEYS):
                same = (columns.name == name) & columns.unique_key.in_(keys[start : start + _KEYS])
                rows = connection.execute(select(columns.unique_key, columns.id).where(same))
                found |= {(name, row[0]): row[1] for row in rows}
        return found

    @cached_property
    def _insert_one(self) -> Executable:
        return self._insert_each.returning(self._table.c.id)

    @cached_property
    def _insert_and_notify(self) -> Executable:
        from sqlalchemy import String, bindparam, func

        # In the same statement, which saves a round trip; PostgreSQL sends it when the transaction is committed.
        sent = func.pg_notify(CHANNEL, bindparam("payload", type_=String))
        return self._insert_each.returning(self._table.c.id, sent)

    @cached_property
    def _insert_each(self) -> postgresql.Insert | sqlite.Insert:
        from sqlalchemy import Float, bindparam

        columns = self._table.c
        given: dict[str, ColumnElement[Any]] = {
            name: bindparam(f"{name}_is", type_=columns[name].type) for name in NEW_COLUMNS
        }
        given["delay"] = bindparam("delay_is", type_=Float(53))
        return self._unless_there(self._new_insert().values(self._row(given)))

    @cached_property
    def _insert_rows(self) -> postgresql.Insert | sqlite.Insert:
        from sqlalchemy import JSON, Float, Text, bindparam, cast, column, func, select

        columns = self._table.c
        shape = [column(name, columns[name].type) for name in NEW_COLUMNS]
        rows = (
            func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON))
            .table_valued(*shape, column("delay", Float(53)), name="given")
            .render_derived(with_types=True)
        )
        row = self._row(rows.c)
        source: Select[Any] = select(*row.values())
        return self._unless_there(self._new_insert().from_select(list(row), source))

    def _new_insert(self) -> postgresql.Insert | sqlite.Insert:
        from sqlalchemy.dialects import postgresql, sqlite

        return (postgresql.insert if self._postgresql else sqlite.insert)(self._table)

    def _row(
        self, given: ReadOnlyColumnCollection[str, Any] | Mapping[str, ColumnElement[Any]]
    ) -> dict[str, ColumnElement[Any]]:
        from sqlalchemy import func, literal_column

        now = self._clock.parameter()
        return {
            **{name: given[name] for name in NEW_COLUMNS},
            "due_at": func.coalesce(given["due_at"], now + given["delay"]),
            "state": literal_column("'waiting'"),
            "created_at": now,
        }

    def _unless_there(self, insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
        columns, kept = self._table.c, {"id", "name", "unique_key"}
        anew = {
            name: insert.excluded[name] for name in (*NEW_COLUMNS, "state", "created_at") if name not in kept
        }
        # Every scheduler that starts enqueues the current slot, so a dead task of that slot must stay dead.
        is_slot = insert.excluded.unique_key.startswith(SLOT, autoescape=True)
        return insert.on_conflict_do_update(
            index_elements=["name", "unique_key"],
            set_={**anew, **renewed_values()},
            where=in_source_state(columns.state, "enqueue") & ~is_slot,
        )


def _is_due_at_once(new: NewTask) -> bool:
    # A worker that is notified of a delayed task would look at the table too early.
    return new.due_at is None and not new.delay


def _records(rows: Sequence[tuple[object, ...]]) -> list[dict[str, object]]:
    return [dict(zip(_GIVEN, row, strict=True)) for row in rows]
