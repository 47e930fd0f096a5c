"""Fork-safe engines: a child starts with an empty pool and cannot use its parent's sockets.

If two processes share a pooled connection, they mix up each other's results, and closing it in the child terminates
the parent's session on the server. Therefore every inherited socket is replaced by ``/dev/null`` before the pool is
replaced, and the inherited connection objects are kept open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol, cast
from weakref import WeakKeyDictionary, WeakSet

from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["guard_fork"]


class _HasSocket(Protocol):
    def fileno(self) -> int: ...


class _Guard:
    """All guarded engines with the connection records of their pools, and who wants to know of new ones."""

    def __init__(self) -> None:
        self.observers: list[Callable[[Engine], None]] = []
        self.engines: WeakKeyDictionary[Engine, WeakSet[ConnectionPoolEntry]] = WeakKeyDictionary()
        self._inherited: list[object] = []  # keeps references: garbage collection would close them

    def reset_after_fork(self) -> None:
        """Disconnect the child from its parent's connections."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for engine, records in list(self.engines.items()):
            for record in list(records):
                self._disconnect(record.driver_connection, nowhere)
            records.clear()
            # close=True would terminate the parent's sessions on the server.
            engine.dispose(close=False)
        os.close(nowhere)

    def _disconnect(self, connection: object, nowhere: int) -> None:
        if connection is None:
            return
        self._inherited.append(connection)
        # Drivers without a socket (SQLite) have no fileno; a closed connection raises.
        with suppress(Exception):
            os.dup2(nowhere, _socket_of(connection).fileno())


_guard: Final = _Guard()


def guard_fork(engine: Engine | AsyncEngine) -> None:
    """Make ``engine`` safe to use in children forked from now on, without affecting this process.

    Idempotent. ``hardened_engine`` already calls it.

    Raises:
        ConfigurationError: ``engine`` is not an engine.
    """
    from sqlalchemy import event

    guarded = cast("Engine", getattr(engine, "sync_engine", engine))
    if not hasattr(guarded, "pool"):
        raise ConfigurationError(
            f"engine must be an SQLAlchemy Engine or AsyncEngine, not {type(engine).__name__}",
            parameter="engine",
        )
    if guarded in _guard.engines:
        return
    register_after_fork(_guard)
    records: WeakSet[ConnectionPoolEntry] = WeakSet(_idle_records(guarded))
    _guard.engines[guarded] = records

    def remember(_connection: object, record: ConnectionPoolEntry) -> None:
        records.add(record)

    event.listen(guarded.pool, "connect", remember)
    for observe in tuple(_guard.observers):
        observe(guarded)


@contextmanager
def each_guarded_engine(observe: Callable[[Engine], None]) -> Generator[None]:
    """Call ``observe`` for each guarded engine: those that exist, and those that are guarded in the block."""
    _guard.observers.append(observe)
    try:
        for engine in tuple(_guard.engines):
            observe(engine)
        yield
    finally:
        _guard.observers.remove(observe)


def _idle_records(engine: Engine) -> list[ConnectionPoolEntry]:
    """Connections opened before the guard; the queue is private, and missing in pools that hold no connections."""
    return list(getattr(getattr(engine.pool, "_pool", None), "queue", ()))


def _socket_of(connection: object) -> _HasSocket:
    """Object that holds the socket: the transport for asyncpg, the connection itself for other drivers."""
    transport = getattr(connection, "_transport", None)
    return cast(_HasSocket, transport.get_extra_info("socket") if transport else connection)
