"""Connection pool monitoring: statistics, and a log record that names the holders if the pool is exhausted."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakKeyDictionary

from mks_hardening._core import hooks
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.durations import seconds
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.db.watch._call_site import call_site
from mks_hardening.db.watch._instrument import engine_of
from mks_hardening.db.watch._monitor import Monitor, monitor_logger
from mks_hardening.db.watch._sqlalchemy_internals import pool_capacity
from mks_hardening.events import PoolEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from mks_hardening.protocols import Clock

__all__ = ["PoolHolder", "PoolMonitor", "PoolStats"]

_MOST_HOLDERS: Final = 20  # limit per log record; ``stats`` returns all


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolHolder:
    """One connection that is checked out.

    Attributes:
        caller: ``file:line`` of the application that checked it out.
        thread: name of the thread.
        seconds: how long it has been checked out, in seconds.
        backend_pid: process of PostgreSQL that serves it (``pg_stat_activity.pid``), or a number of the pooler
            in front of it; ``None`` on SQLite.
    """

    caller: str
    thread: str
    seconds: float
    backend_pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """Snapshot of a connection pool.

    Attributes:
        size: maximum number of connections, including a limited overflow; 0 unless the pool is a ``QueuePool``.
        checked_out: number of connections in use.
        checkouts: number of checkouts since the monitor was installed.
        timeouts: number of checkouts that timed out.
        holders: connections in use, longest first.
    """

    size: int
    checked_out: int
    checkouts: int
    timeouts: int
    holders: tuple[PoolHolder, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hold:
    caller: str
    thread: str
    since: float


class PoolMonitor(Monitor):
    """Monitor for the connection pool of one engine; inactive until ``install``.

    If a checkout times out, the monitor emits one ``PoolEvent`` and logs one record on ``mks_hardening.db`` that
    names the holders of the connections. The application receives SQLAlchemy's error as before.

    Args:
        engine: an SQLAlchemy ``Engine`` or ``AsyncEngine``.
        log_every: minimum interval between two log records in seconds, as many callers fail at the same time.
        logger: logger to use instead of ``mks_hardening.db``.
        clock: source of time.

    Raises:
        ConfigurationError: ``engine`` is not an engine, or a parameter is invalid.
    """

    def __init__(
        self,
        engine: Engine | AsyncEngine,
        *,
        log_every: float | timedelta = 10,
        logger: logging.Logger | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._engine = engine_of(engine)
        self._log_every = seconds(log_every, parameter="log_every")
        self._logger = monitor_logger(logger)
        self._clock = given_clock(clock)
        self._holds: WeakKeyDictionary[ConnectionPoolEntry, _Hold] = WeakKeyDictionary()
        self._before: Callable[[], PoolProxiedConnection] = self._engine.raw_connection
        self._over: Callable[[], PoolProxiedConnection] = self._raw_connection
        self._checkouts = self._timeouts = 0
        self._logged_at: float | None = None
        self._installed = False
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Reset the state in a forked child: inherited connections are held by the parent."""
        self._holds = WeakKeyDictionary()

    def install(self) -> Self:
        """Start monitoring; idempotent."""
        from sqlalchemy import event

        if not self._installed:
            self._installed = True
            # Pool events, which do not enable the engine's execution events.
            event.listen(self._engine, "checkout", self._checked_out)
            event.listen(self._engine, "checkin", self._checked_in)
            # SQLAlchemy has no event for a checkout timeout; every checkout goes through this method.
            self._before = self._engine.raw_connection
            _set_raw_connection(self._engine, self._over)
        return self

    def uninstall(self) -> None:
        """Stop monitoring and restore the engine; idempotent."""
        from sqlalchemy import event

        if self._installed:
            self._installed = False
            event.remove(self._engine, "checkout", self._checked_out)
            event.remove(self._engine, "checkin", self._checked_in)
            # If another tool has wrapped our method since, ours stays and only delegates.
            if vars(self._engine).get("raw_connection") is self._over:
                _set_raw_connection(self._engine, self._before)

    def stats(self) -> PoolStats:
        """Return a snapshot of the pool."""
        now = self._clock.monotonic()
        holders = [
            PoolHolder(
                caller=hold.caller,
                thread=hold.thread,
                seconds=now - hold.since,
                backend_pid=_backend_pid(record),
            )
            for record, hold in list(self._holds.items())
        ]
        holders.sort(key=lambda holder: -holder.seconds)
        return PoolStats(
            size=pool_capacity(self._engine.pool),
            checked_out=len(holders),
            checkouts=self._checkouts,
            timeouts=self._timeouts,
            holders=tuple(holders),
        )

    def _checked_out(self, _connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        self._checkouts += 1
        self._holds[record] = _Hold(
            caller=call_site(), thread=threading.current_thread().name, since=self._clock.monotonic()
        )

    def _checked_in(self, _connection: object, record: ConnectionPoolEntry) -> None:
        self._holds.pop(record, None)

    def _raw_connection(self) -> PoolProxiedConnection:
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError

        try:
            return self._before()
        except PoolTimeoutError:
            if self._installed:
                self._timeouts += 1
                self._report()
            raise

    def _report(self) -> None:
        stats = self.stats()
        if hooks.observers:
            hooks.emit(PoolEvent("exhausted", stats.size, stats.checked_out))
        now = self._clock.monotonic()
        if self._logged_at is not None and now - self._logged_at < self._log_every:
            return
        self._logged_at = now
        holders = [f"{holder.caller} ({holder.seconds:.1f} s, {holder.thread})" for holder in stats.holders]
        self._logger.error(
            "no database connection was available in time",
            extra={
                "pool_size": stats.size,
                "checked_out": stats.checked_out,
                "timeouts": stats.timeouts,
                "holders": holders[:_MOST_HOLDERS],
                "caller": call_site(),
            },
        )


def _backend_pid(record: ConnectionPoolEntry) -> int | None:
    connection: Any = record.driver_connection
    # asyncpg has a method; psycopg and psycopg2 have an attribute of ``info``.
    with suppress(Exception):  # a connection that is being closed, or a wrapper of the driver
        ask: Any = getattr(connection, "get_server_pid", None)
        pid: int | None = ask() if ask else getattr(getattr(connection, "info", None), "backend_pid", None)
        return pid
    return None


def _set_raw_connection(engine: Engine, method: Callable[[], PoolProxiedConnection]) -> None:
    if method == engine.__class__.raw_connection.__get__(engine):
        del engine.raw_connection
    else:
        vars(engine)["raw_connection"] = method
