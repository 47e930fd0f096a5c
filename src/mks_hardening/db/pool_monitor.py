"""Who holds the connections: counts of one pool, and an alert that names the holders when it is exhausted."""

from __future__ import annotations

import logging
import os
import threading
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from weakref import WeakKeyDictionary

from mks_hardening._core import hooks
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.durations import seconds
from mks_hardening.db.call_site import call_site
from mks_hardening.db.instrument import dialect_of
from mks_hardening.events import PoolEvent

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mks_hardening.protocols import Clock

__all__ = ["PoolHolder", "PoolMonitor", "PoolStats"]

_MOST_HOLDERS: Final = 20


class PoolHolder(NamedTuple):
    """One connection that is checked out: by whom, in which thread, for how long."""

    caller: str
    thread: str
    seconds: float


class PoolStats(NamedTuple):
    """The pool at this moment.

    Attributes:
        size: connections it may keep.
        checked_out: connections in use.
        checkouts: how often one was taken since the monitor was installed.
        timeouts: how often none could be had in time.
        holders: who holds connections, the longest first.
    """

    size: int
    checked_out: int
    checkouts: int
    timeouts: int
    holders: tuple[PoolHolder, ...]


class _Hold(NamedTuple):
    caller: str
    thread: str
    since: float


class PoolMonitor:
    """Watches the pool of one engine; nothing happens before ``install``.

    When no connection can be had in time, one record on ``mks_hardening.db`` and one ``PoolEvent`` say so; the
    record names who holds the connections. The application gets SQLAlchemy's error as before.

    Args:
        engine: an SQLAlchemy ``Engine`` or ``AsyncEngine``.
        log_every: seconds between two records, as many callers fail at the same time.
        logger: where to log instead.
        clock: source of time.

    Raises:
        ConfigurationError: not an engine, or an impossible parameter.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        log_every: float | timedelta = 10,
        logger: logging.Logger | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        dialect_of(engine)
        self._engine: Any = getattr(engine, "sync_engine", engine)
        self._connect: Any = self._engine.raw_connection
        self._log_every = seconds(log_every, parameter="log_every")
        self._logger = logger or logging.getLogger("mks_hardening.db")
        self._clock = clock
        self._holds: WeakKeyDictionary[Any, _Hold] = WeakKeyDictionary()
        self._pid = os.getpid()
        self._checkouts = self._timeouts = 0
        self._logged_at: float | None = None
        self._installed = False

    def install(self) -> Self:
        """Begin to watch; harmless when called twice."""
        from sqlalchemy import event

        if not self._installed:
            self._installed = True
            event.listen(self._engine, "checkout", self._checked_out)
            event.listen(self._engine, "checkin", self._checked_in)
            # There is no event for "none could be had"; every way to a connection goes through this method.
            self._engine.raw_connection = self._raw_connection
        return self

    def uninstall(self) -> None:
        """Stop watching and leave the engine as it was; harmless when called twice."""
        from sqlalchemy import event

        if self._installed:
            self._installed = False
            event.remove(self._engine, "checkout", self._checked_out)
            event.remove(self._engine, "checkin", self._checked_in)
            del self._engine.raw_connection

    def stats(self) -> PoolStats:
        """The pool at this moment."""
        now = self._clock.monotonic()
        holders = [
            PoolHolder(hold.caller, hold.thread, now - hold.since) for hold in list(self._holds.values())
        ]
        holders.sort(key=lambda holder: -holder.seconds)
        return PoolStats(self._size(), len(holders), self._checkouts, self._timeouts, tuple(holders))

    def _size(self) -> int:
        pool = self._engine.pool
        return pool.size() + max(0, pool._max_overflow) if hasattr(pool, "_max_overflow") else 0  # noqa: SLF001 - has no public name

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstall()

    def _checked_out(self, _connection: object, record: Any, _proxy: object) -> None:
        if self._pid != os.getpid():  # what a forked child inherits is held by its parent
            self._pid = os.getpid()
            self._holds.clear()
        self._checkouts += 1
        self._holds[record] = _Hold(call_site(), threading.current_thread().name, self._clock.monotonic())

    def _checked_in(self, _connection: object, record: Any) -> None:
        self._holds.pop(record, None)

    def _raw_connection(self) -> Any:
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError

        try:
            return self._connect()
        except PoolTimeoutError:
            self._timeouts += 1
            self._tell()
            raise

    def _tell(self) -> None:
        stats = self.stats()
        if hooks.observers:
            hooks.emit(PoolEvent("exhausted", stats.size, stats.checked_out))
        now = self._clock.monotonic()
        if self._logged_at is not None and now - self._logged_at < self._log_every:
            return
        self._logged_at = now
        holders = [f"{holder.caller} ({holder.seconds:.1f} s, {holder.thread})" for holder in stats.holders]
        self._logger.error(
            "no database connection could be had in time",
            extra={
                "pool_size": stats.size,
                "checked_out": stats.checked_out,
                "timeouts": stats.timeouts,
                "holders": holders[:_MOST_HOLDERS],
                "caller": call_site(),
            },
        )
