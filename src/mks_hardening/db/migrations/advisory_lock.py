"""One migrator at a time: an advisory lock of PostgreSQL, held on a connection of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from mks_hardening._core.checks import function, instance, text_of
from mks_hardening._core.clock import given_clock
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from mks_hardening.protocols import Clock

__all__ = ["migration_lock"]

_POLL = 0.5


def migration_lock(
    engine: Engine,
    name: str = "migrations",
    *,
    wait: float | timedelta = 60,
    sleep: Callable[[float], object] | None = None,
    clock: Clock | None = None,
) -> AbstractContextManager[None]:
    """Hold a lock that only one process has, while migrations run on other connections.

    The lock ends with its connection, so a killed process leaves none behind. Waiting is polling without an open
    transaction, because an open one would block ``CREATE INDEX CONCURRENTLY`` of the process that holds the lock.

    Args:
        engine: engine of a PostgreSQL database, connected to the server itself.
        name: name of the lock within the database.
        wait: seconds to wait for another process.
        sleep: function that waits a number of seconds; ``time.sleep`` by default.
        clock: clock that measures ``wait``.

    Raises:
        BackendUnavailableError: another process holds the lock.
        ConfigurationError: a parameter is invalid, the database is not PostgreSQL, or a pooler in transaction mode
            is between: the lock would belong to whichever client uses that server connection next.
    """
    from sqlalchemy import Engine

    instance(engine, Engine, parameter="engine")
    text_of(name, parameter="name", empty=False)
    longest = seconds(wait, parameter="wait")
    if sleep is not None:
        function(sleep, parameter="sleep")
    monotonic = given_clock(clock).monotonic
    if engine.dialect.name != "postgresql":
        raise ConfigurationError("engine must be of PostgreSQL", parameter="engine")
    return _held_lock(engine, name, longest, sleep or time.sleep, monotonic)


@contextmanager
def _held_lock(
    engine: Engine,
    name: str,
    longest: float,
    sleep: Callable[[float], object],
    monotonic: Callable[[], float],
) -> Generator[None]:
    key = int.from_bytes(blake2b(name.encode(), digest_size=8, person=b"mks-migrate").digest(), signed=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        _check_session(connection)
        started = monotonic()
        while not _try_lock(connection, key):
            if monotonic() - started >= longest:
                raise BackendUnavailableError(
                    "database", "error", detail="another process is running migrations"
                )
            sleep(_POLL)
        try:
            yield
        finally:
            with suppress(Exception):  # the connection may be lost, and the lock with it
                connection.exec_driver_sql(f"SELECT pg_advisory_unlock({key})")
            connection.invalidate()  # the lock cannot outlive its session


def _try_lock(connection: Connection, key: int) -> bool:
    return bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({key})").scalar())


def _check_session(connection: Connection) -> None:
    """Compare the process id that the driver was told with that of the server: a pooler answers with its own."""
    driver: Any = connection.connection.dbapi_connection
    info = getattr(driver, "info", None)
    told = getattr(info, "backend_pid", None)
    if told is not None and told != connection.exec_driver_sql("SELECT pg_backend_pid()").scalar():
        raise ConfigurationError(
            "a connection pooler is between: use the URL of the PostgreSQL server itself for migrations",
            parameter="engine",
        )
