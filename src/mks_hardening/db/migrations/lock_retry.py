"""Limited waits for locks: a short ``lock_timeout`` that grows, with a random pause between two attempts."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import function, number
from mks_hardening._core.clock import given_clock
from mks_hardening._core.database.error_text import code_of
from mks_hardening.exceptions import ConfigurationError, MksHardeningError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mks_hardening.protocols import Clock

__all__ = ["LockRetry", "MigrationBlockedError"]

LOCK_NOT_AVAILABLE: Final = "55P03"
_RETRIED: Final = frozenset({LOCK_NOT_AVAILABLE, "40P01"})  # and deadlock_detected
_random: Final = SystemRandom()


class MigrationBlockedError(MksHardeningError):
    """A table was in use for the whole time that a migration may wait.

    Attributes:
        attempts: number of attempts.
        blockers: process id, state and age of the transaction in seconds of each session that held a lock on the
            table; their SQL is not included, because it may contain values.
    """

    def __init__(self, attempts: int, blockers: tuple[tuple[int, str, float], ...]) -> None:
        shown = ", ".join(f"process {pid} ({state} for {age:.0f} s)" for pid, state, age in blockers)
        super().__init__(
            f"the lock was not available in {attempts} attempts; held by {shown or 'unknown sessions'}. "
            "End these transactions, or raise the total of LockRetry"
        )
        self.attempts = attempts
        self.blockers = blockers


@dataclass(frozen=True, slots=True)
class LockRetry:
    """How long a schema change waits for its lock.

    While a statement waits for a lock, every later query of the table waits behind it; so each attempt waits only
    briefly. A constant short limit may never succeed between overlapping transactions, so the limit grows.

    Args:
        first: ``lock_timeout`` of the first attempt in seconds.
        factor: growth of the limit with each attempt.
        most: largest ``lock_timeout`` in seconds: no query waits longer because of the migration.
        total: seconds until ``MigrationBlockedError`` is raised.

    Raises:
        ConfigurationError: a parameter is out of range.
    """

    first: float = 0.05
    factor: float = 1.5
    most: float = 1.0
    total: float = 120.0

    def __post_init__(self) -> None:
        number(self.first, parameter="first", minimum=0.001, maximum=60)
        number(self.factor, parameter="factor", minimum=1, maximum=10)
        number(self.most, parameter="most", minimum=0.001, maximum=60)
        number(self.total, parameter="total", minimum=0)
        if self.most < self.first:
            raise ConfigurationError("most must be at least first", parameter="most")

    def run(
        self,
        connection: Connection,
        statement: str,
        *,
        table: str = "",
        sleep: Callable[[float], object] | None = None,
        clock: Clock | None = None,
    ) -> int:
        """Execute one statement in a transaction of its own, and retry it while its lock is not available.

        Args:
            connection: connection in autocommit mode: a larger transaction cannot be repeated by one statement.
            statement: one statement of SQL.
            table: table for ``MigrationBlockedError.blockers``.
            sleep: function that waits a number of seconds; ``time.sleep`` by default.
            clock: clock that measures ``total``.

        Returns:
            The number of attempts.

        Raises:
            ConfigurationError: the connection is not in autocommit mode.
            MigrationBlockedError: the lock was not available in time.
        """
        if sleep is not None:
            function(sleep, parameter="sleep")

        def execute() -> None:
            # Without parameters, so that a percent sign is only a percent sign.
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

        return repeat_while_locked(self, connection, execute, table=table, sleep=sleep, clock=clock)


def repeat_while_locked(
    retry: LockRetry,
    connection: Connection,
    execute: Callable[[], object],
    *,
    table: str,
    sleep: Callable[[float], object] | None = None,
    clock: Clock | None = None,
) -> int:
    """Call a function that executes one statement until its locks are available; see ``LockRetry.run``."""
    check_autocommit(connection)
    monotonic = given_clock(clock).monotonic
    started, limit, attempts = monotonic(), retry.first, 0
    while True:
        attempts += 1
        try:
            with session_settings(connection, lock_timeout=f"{max(1, round(limit * 1000))}ms"):
                execute()
        except Exception as error:
            if code_of(error) not in _RETRIED:
                raise
            if monotonic() - started >= retry.total:
                raise MigrationBlockedError(attempts, blockers_of(connection, table)) from error
        else:
            return attempts
        # At least half of the limit, so that the queries that waited behind the statement get their turn.
        (sleep or time.sleep)(limit * _random.uniform(0.5, 1.5))
        limit = min(retry.most, limit * retry.factor)


@contextmanager
def session_settings(connection: Connection, **values: str) -> Generator[None]:
    """Change settings of the session, and restore what the caller had set."""
    before: dict[str, object] = {}
    for name, value in values.items():
        before[name] = connection.exec_driver_sql(f"SHOW {name}").scalar()
        connection.exec_driver_sql(f"SET {name} = '{value}'")
    try:
        yield
    finally:
        if not connection.invalidated:
            for name, earlier in before.items():
                connection.exec_driver_sql(f"SET {name} = '{earlier}'")


def check_autocommit(connection: Connection) -> None:
    """Check that a connection commits each statement.

    Raises:
        ConfigurationError: it does not.
    """
    # The driver knows it in any case; SQLAlchemy only if the connection was given the option.
    driver = connection.connection.driver_connection
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT" and not getattr(
        driver, "autocommit", False
    ):
        raise ConfigurationError(
            "the connection must be in autocommit mode, in Alembic: with op.get_context().autocommit_block()",
            parameter="connection",
        )


def blockers_of(connection: Connection, table: str) -> tuple[tuple[int, str, float], ...]:
    """Return the sessions that hold a lock on a table."""
    if not table:
        return ()
    from sqlalchemy import text

    rows = connection.execute(
        text(
            "SELECT DISTINCT a.pid, coalesce(a.state, 'active'), "
            "coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 "
            "FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
            "WHERE l.relation = to_regclass(:name) AND l.granted AND a.pid <> pg_backend_pid() "
            "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 3 DESC"
        ),
        {"name": table},
    )
    return tuple((int(pid), str(state), float(age)) for pid, state, age in rows)
