"""Choice between replicas that have replayed what a read must see, and the primary."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from mks_hardening._core.checks import instance, offers
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.database.error_text import error_summary
from mks_hardening._core.durations import seconds
from mks_hardening._core.operations import Op, Pause, arun, run
from mks_hardening._core.optional_imports import optional
from mks_hardening.db.engine._replica_position import ReadToken, ReplicaPosition, end_of_last_record
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from mks_hardening.protocols import Clock

__all__ = ["ReadReplicas", "ReadToken"]

E = TypeVar("E", bound="Engine | AsyncEngine")

_FIRST_PAUSE: Final = 0.001  # half of all reads on loopback were stale at once, and 2 % after 1 ms
_LONGEST_PAUSE: Final = 0.02
# The inserted position: with synchronous_commit=off, COMMIT returns before the log is written. The name of its file
# begins with the timeline of the primary; the control file would keep the previous one until a checkpoint.
_INSERTED: Final = (
    "SELECT system_identifier, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), "
    "pg_current_wal_insert_lsn() - '0/0'::pg_lsn, CAST(current_setting('wal_block_size') AS int) "
    "FROM pg_control_system()"
)
_REPLAYED: Final = (
    "SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0), "
    "greatest(c.timeline_id, r.min_recovery_end_timeline), s.system_identifier "
    "FROM pg_control_checkpoint() AS c, pg_control_recovery() AS r, pg_control_system() AS s"
)
_logger: Final = logging.getLogger("mks_hardening.db")


class _Query:
    """Effect that runs one statement on an engine of either kind and returns its row."""

    def __init__(self, engine: Any, statement: str) -> None:
        self._engine = engine.execution_options(
            isolation_level="AUTOCOMMIT"
        )  # no BEGIN and ROLLBACK around it
        self._statement = statement

    def run(self) -> Any:
        """Run it in this thread."""
        with self._engine.connect() as connection:
            return connection.exec_driver_sql(self._statement).one()

    async def arun(self) -> Any:
        """Run it on the event loop."""
        async with self._engine.connect() as connection:
            return (await connection.exec_driver_sql(self._statement)).one()


class _Replica(Generic[E]):
    """One replica, with what its last checks have shown."""

    def __init__(self, engine: E) -> None:
        self.engine: E = engine
        self.check = _Query(engine, _REPLAYED)
        self.unavailable_until = 0.0
        self.lags_until = 0.0
        self.is_reported = False


class ReadReplicas(Generic[E]):
    """Choice of the engine for a read: a replica that has replayed what the read must see, or the primary.

    After a write was committed, take a token and pass it to the reads that must see the write::

        token = replicas.token()
        with Session(replicas.engine(after=token)) as session:
            ...

    A replica that does not reach the token within ``max_wait`` is not waited for during the next ``retry_after``
    seconds, and one that cannot be asked is left out for that long; the primary serves their reads. After a
    promotion, tokens of another timeline lead to the primary too. Without a token, the data may be of any age.

    The check precedes the read, so the transaction of the read must begin after it. Session-level advisory locks
    succeed on a replica and exclude nobody elsewhere.

    Args:
        primary: engine of the primary.
        replicas: engines of the same kind (sync or async) for the replicas, which must be PostgreSQL servers.
        max_wait: seconds that one read waits until a replica has replayed its token.
        retry_after: seconds until a replica that failed is asked again.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid, or an engine is not one for PostgreSQL.
        MissingDependencyError: SQLAlchemy is not installed.
    """

    def __init__(
        self,
        primary: E,
        replicas: Iterable[E],
        *,
        max_wait: float | timedelta = 0.05,
        retry_after: float | timedelta = 1.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._max_wait = seconds(max_wait, parameter="max_wait")
        self._retry_after = seconds(retry_after, parameter="retry_after")
        self._clock = offers(clock, "monotonic", parameter="clock", kind="a clock")
        with optional("sqlalchemy", extra="db"):
            from sqlalchemy.exc import SQLAlchemyError

        self._errors = (SQLAlchemyError, OSError)
        self._is_async = hasattr(_postgresql_engine(primary, "primary"), "sync_engine")
        self._primary = primary
        self._token = _Query(primary, _INSERTED)
        offers(replicas, "__iter__", parameter="replicas", kind="engines")
        self._replicas = [_Replica(_postgresql_engine(engine, "replicas")) for engine in replicas]
        if any(hasattr(one.engine, "sync_engine") is not self._is_async for one in self._replicas):
            raise ConfigurationError(
                "replicas must be engines of the same kind as primary, all sync or all async",
                parameter="replicas",
            )
        self._turn = count()

    @property
    def primary(self) -> E:
        """Engine of the primary."""
        return self._primary

    def token(self) -> ReadToken:
        """Return the position of the primary: reads after it see all transactions committed until now.

        Call it after COMMIT; within the transaction the position would be too small.

        Raises:
            ConfigurationError: the engines are asynchronous.
            sqlalchemy.exc.SQLAlchemyError: the primary is not available, or it is not a primary.
        """
        self._require(is_async=False, instead="atoken")
        return run(self._take_token())

    async def atoken(self) -> ReadToken:
        """``token`` for asyncio."""
        self._require(is_async=True, instead="token")
        return await arun(self._take_token())

    def engine(self, *, after: ReadToken | None = None) -> E:
        """Return the engine from which to read.

        Args:
            after: token of the transactions that the read must see; None if data of any age will do.

        Raises:
            ConfigurationError: ``after`` is not a token, or the engines are asynchronous.
        """
        self._require(is_async=False, instead="aengine")
        return run(self._choose(after))

    async def aengine(self, *, after: ReadToken | None = None) -> E:
        """``engine`` for asyncio."""
        self._require(is_async=True, instead="engine")
        return await arun(self._choose(after))

    def _require(self, *, is_async: bool, instead: str) -> None:
        if is_async is not self._is_async:
            kind = "asynchronous" if self._is_async else "synchronous"
            raise ConfigurationError(f"the engines are {kind}: call {instead}", parameter="primary")

    def _take_token(self) -> Op[ReadToken]:
        system, timeline, inserted, block_size = yield self._token
        position = end_of_last_record(int(inserted), block_size)
        return ReadToken(system=system, timeline=int(timeline, 16), position=position)

    def _choose(self, after: ReadToken | None) -> Op[E]:
        if after is not None:
            instance(after, ReadToken, parameter="after")
        until = self._clock.monotonic() + self._max_wait
        for replica in self._in_turn():
            if (yield from self._is_usable(replica, after, until)):
                return replica.engine
        return self._primary

    def _in_turn(self) -> list[_Replica[E]]:
        """Available replicas, each one first in its turn."""
        now = self._clock.monotonic()
        available = [one for one in self._replicas if one.unavailable_until <= now]
        first = next(self._turn) % (len(available) or 1)
        return available[first:] + available[:first]

    def _is_usable(self, replica: _Replica[E], after: ReadToken | None, until: float) -> Op[bool]:
        pause = _FIRST_PAUSE
        while True:
            try:
                is_replica, position, timeline, system = yield replica.check
            except self._errors as error:
                self._mark_unavailable(replica, error)
                return False
            replica.is_reported = False
            found = ReplicaPosition(is_replica, int(position), timeline, system)
            if after is None or not found.can_reach(after):
                return after is None and found.is_replica
            now = self._clock.monotonic()
            if found.has_replayed(after):
                replica.lags_until = 0.0
                return True
            if replica.lags_until > now:
                return False
            if now + pause > until:
                replica.lags_until = now + self._retry_after
                return False
            yield Pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _mark_unavailable(self, replica: _Replica[E], error: BaseException) -> None:
        replica.unavailable_until = self._clock.monotonic() + self._retry_after
        if not replica.is_reported:
            replica.is_reported = True
            _logger.warning(
                "A read replica is unavailable, so others serve its reads: %s", error_summary(error)
            )


def _postgresql_engine(engine: E, parameter: str) -> E:
    dialect: object = getattr(getattr(engine, "sync_engine", engine), "dialect", None)
    if isinstance(engine, type) or getattr(dialect, "name", "") != "postgresql":
        raise ConfigurationError(
            f"{parameter} must be SQLAlchemy engines for PostgreSQL, not {type(engine).__name__}",
            parameter=parameter,
        )
    return engine
