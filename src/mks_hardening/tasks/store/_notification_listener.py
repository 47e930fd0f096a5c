"""Receives PostgreSQL's notifications of new tasks, over a connection of its own."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.database.error_text import error_summary
from mks_hardening._core.resilience.outage_log import OutageLog
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.tasks.store._new_task_signals import CHANNEL

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["NotificationListener"]

_CHECK_EVERY: Final = 30.0
"""Seconds without a notification after which the connection is checked; a lost one can look idle forever."""


class NotificationListener:
    """Calls ``wake`` at each notification, and after each gap in which there may have been one.

    It only saves time: workers also poll. So nothing depends on the connection: it is opened again after a failure,
    with growing pauses. Behind a pooler that gives each transaction another session (PgBouncer in transaction mode)
    it receives nothing: if the engine rejects LISTEN, ``run`` logs that and ends.

    Args:
        engine: engine of the task table; the connection is taken from its pool and replaced there.
        payloads: payloads to react to.
        wake: called without arguments; must not block.
    """

    def __init__(self, engine: Engine, payloads: Iterable[str], wake: Callable[[], None]) -> None:
        self._engine = engine
        self._payloads = frozenset(payloads)
        self._wake = wake
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._descriptor: int | None = None
        self._outage = OutageLog(
            logging.getLogger("mks_hardening.tasks"),
            began="PostgreSQL does not announce new tasks (%s); they are found by polling",
            ended="PostgreSQL announces new tasks again",
            level=logging.WARNING,
        )

    @staticmethod
    def supports(engine: Engine) -> bool:
        """Return whether notifications can be received with the driver of this engine."""
        return engine.dialect.name == "postgresql" and engine.dialect.driver in _RECEIVERS

    def run(self) -> None:
        """Receive notifications until ``close`` is called, on a thread of the caller."""
        while not self._stopping.is_set():
            try:
                with self._engine.connect() as connection:
                    self._listen(connection.execution_options(isolation_level="AUTOCOMMIT"))
            except (
                ConfigurationError
            ) as error:  # the engine rejects LISTEN, at this attempt and at every other
                self._outage.failed(str(error))
                return
            except Exception as error:  # noqa: BLE001 - retry after any error of the database
                if not self._stopping.is_set():
                    self._stopping.wait(self._outage.failed(error_summary(error)))

    def close(self) -> None:
        """End ``run``, also if it waits for a server that does not respond."""
        self._stopping.set()
        with self._lock:
            if self._descriptor is not None:
                # Closing the connection in this thread would not wake the one that waits for it.
                with suppress(OSError), closing(socket.socket(fileno=os.dup(self._descriptor))) as own:
                    own.shutdown(socket.SHUT_RDWR)

    def _listen(self, connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        # The pool opens another one instead: its size is planned for queries.
        connection.detach()
        try:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            with self._lock:
                self._descriptor = driver.fileno()
            self._outage.succeeded()
            self._wake()
            self._receive(connection, driver)
        finally:
            with self._lock:
                self._descriptor = None
            driver.close()
            # Otherwise SQLAlchemy would send a ROLLBACK to the closed connection, and log that this failed.
            connection.invalidate()

    def _receive(self, connection: Connection, driver: Any) -> None:
        received = _RECEIVERS[self._engine.dialect.driver]
        with selectors.DefaultSelector() as selector:
            selector.register(driver.fileno(), selectors.EVENT_READ)
            while not self._stopping.is_set():
                if selector.select(_CHECK_EVERY):
                    is_new = not self._payloads.isdisjoint(received(driver))
                else:
                    connection.exec_driver_sql("SELECT 1")
                    # The driver may have consumed notifications together with the response.
                    is_new = True
                if is_new:
                    self._wake()


def _by_psycopg(driver: Any) -> list[str]:
    driver.pgconn.consume_input()
    found = list[str]()
    while notification := driver.pgconn.notifies():
        found.append(notification.extra.decode())
    return found


def _by_psycopg2(driver: Any) -> list[str]:
    driver.poll()
    found = [notification.payload for notification in driver.notifies]
    del driver.notifies[:]
    return found


_RECEIVERS: Final[dict[str, Callable[[Any], list[str]]]] = {"psycopg": _by_psycopg, "psycopg2": _by_psycopg2}
