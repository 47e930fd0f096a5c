"""Signals that tasks were enqueued: by PostgreSQL to all processes, and by the connection pool within this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.process.after_fork import register_after_fork

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["CHANNEL", "NewTaskSignals"]

CHANNEL: Final = "mks_tasks"
"""Channel of all task tables in a database; the payload names the table and the queue."""


class _Subscriber(NamedTuple):
    wake: Callable[[], None]
    queues: frozenset[str]


class NewTaskSignals:
    """Wakes the workers of this process when a connection that enqueued tasks returns to its pool.

    By then its transaction has ended. After a rollback a worker looks at the table in vain, which is harmless.

    Args:
        engine: engine of the table.
        table: created by ``task_table``.
    """

    def __init__(self, engine: Engine, table: Table) -> None:
        self._engine = engine
        self._table = table.fullname
        self._key = f"mks_tasks.{table.fullname}"
        # Replaced and never changed: it is read without the lock, also by a garbage collection in any thread.
        self._subscribers: tuple[_Subscriber, ...] = ()
        self._is_listening = False
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child, because a thread of the parent may hold it."""
        self._lock = threading.RLock()

    def payload(self, queue: str) -> str:
        """Return the payload of a notification for new tasks in this queue."""
        return f"{self._table}:{queue}"

    def mark(self, connection: Connection, queues: Iterable[str]) -> None:
        """Note that the transaction of this connection enqueues tasks that are due at once."""
        if self._subscribers:
            connection.info.setdefault(self._key, set()).update(queues)

    def subscribe(self, wake: Callable[[], None], queues: Iterable[str]) -> None:
        """Call ``wake`` for each transaction that enqueued tasks in one of these queues; it must not block."""
        from sqlalchemy import event

        self.unsubscribe(wake)
        with self._lock:
            self._subscribers += (_Subscriber(wake, frozenset(queues)),)
            if not self._is_listening:
                event.listen(self._engine, "checkin", self._returned)
                self._is_listening = True

    def unsubscribe(self, wake: Callable[[], None]) -> None:
        """Stop calling ``wake``; does nothing if it was never subscribed."""
        with self._lock:
            self._subscribers = tuple(found for found in self._subscribers if found.wake != wake)

    def _returned(self, _connection: object, record: ConnectionPoolEntry) -> None:
        queues = record.info.pop(self._key, None)
        if queues:
            for subscriber in self._subscribers:
                if not subscriber.queues.isdisjoint(queues):
                    subscriber.wake()
