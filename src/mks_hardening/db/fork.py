"""Engines that survive ``fork``: the child starts with an empty pool and cannot speak on its parent's sockets.

A pooled connection that two processes share mixes their answers, and closing it in the child says goodbye to the
server in the parent's name. So every socket the child inherited is replaced by ``/dev/null`` before the pool is
exchanged, and the inherited connection objects are kept, not closed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["guard_fork", "guarded_engines"]

# Engine -> connection records of its pools. Filled by pool events, read in the child only.
_guarded: WeakKeyDictionary[Engine, WeakSet[Any]] = WeakKeyDictionary()
_inherited: list[Any] = []
_registered = False


def guard_fork(engine: Engine) -> None:
    """Make ``engine`` usable in every child forked from now on, without disturbing this process.

    Calling it twice changes nothing. ``hardened_engine`` has done it already.
    """
    from sqlalchemy import event

    global _registered  # noqa: PLW0603 - os.register_at_fork cannot be undone, so it is done once per process
    if engine in _guarded:
        return
    records: WeakSet[Any] = WeakSet(_idle_records(engine))
    _guarded[engine] = records

    def remember(_connection: object, record: object) -> None:
        records.add(record)

    event.listen(engine.pool, "connect", remember)
    if not _registered:
        os.register_at_fork(after_in_child=_start_over)
        _registered = True


def guarded_engines() -> tuple[Engine, ...]:
    """The engines that are guarded and still in use."""
    return tuple(_guarded)


def _idle_records(engine: Engine) -> list[Any]:
    """Connections opened before the guard; the queue is private, and absent in pools that keep none."""
    return list(getattr(getattr(engine.pool, "_pool", None), "queue", ()))


def _start_over() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for engine, records in list(_guarded.items()):
        for record in list(records):
            _disconnect(record.dbapi_connection, nowhere)
        records.clear()
        engine.dispose(close=False)
    os.close(nowhere)


def _disconnect(connection: Any, nowhere: int) -> None:
    if connection is None:
        return
    _inherited.append(connection)
    # Drivers without a socket of their own (SQLite) have no fileno; a closed connection refuses to give it.
    with suppress(Exception):
        os.dup2(nowhere, connection.fileno())
