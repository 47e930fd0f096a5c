"""Migration runner based on Alembic.

Each revision runs in one transaction, on SQLite too. Only one process migrates a database at a time. A revision
waits only briefly for a table lock, because all later queries queue behind it; after a timeout it is rolled back
and retried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.exc import OperationalError

from mks_hardening.db import MigrationBlockedError

BASELINE: Final = "0001"
_FOLDER: Final = Path(__file__).parent
_KEY: Final = 0x6D6B735F6B6E6F77
"""Key of the PostgreSQL advisory lock that a migration holds."""
_LOCK_TIMEOUT: Final = "2s"
_LOCK_NOT_AVAILABLE: Final = "55P03"
_BASELINE_TABLES: Final = {
    "users",
    "articles",
    "article_tags",
    "comments",
    "revisions",
    "reports",
    "mks_task",
    "mks_two_factor",
}


class MigrationError(RuntimeError):
    """A migration cannot be completed; the revision that failed was rolled back."""


class Migrations:
    """The revisions of one database.

    Args:
        engine: engine of the database, SQLite or PostgreSQL.
        attempts: number of attempts to run a revision, or to get the migration lock.
        pause: function that sleeps for a number of seconds between two attempts.
    """

    def __init__(
        self, engine: Engine, *, attempts: int = 30, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self._engine = engine
        self._attempts = attempts
        self._pause = pause
        self._scripts = ScriptDirectory(str(_FOLDER), version_locations=[str(_FOLDER / "versions")])

    @property
    def newest(self) -> str:
        """The revision that the models match."""
        return str(self._scripts.get_current_head())

    @property
    def revisions(self) -> list[str]:
        """All revisions, oldest first."""
        return [script.revision for script in self._scripts.walk_revisions()][::-1]

    def current(self) -> str | None:
        """Return the revision of the database; ``None`` if it is empty, or older than the first revision."""
        with self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def is_empty(self) -> bool:
        """Whether the database has none of our tables, so that no data can be lost."""
        return not _BASELINE_TABLES & set(inspect(self._engine).get_table_names())

    def pending(self) -> list[str]:
        """Return the revisions to apply, oldest first; empty if the database is newer than this release."""
        current, all_of_them = self.current(), self.revisions
        if current is None:
            return all_of_them
        return all_of_them[all_of_them.index(current) + 1 :] if current in all_of_them else []

    def upgrade(self, target: str = "head") -> list[str]:
        """Apply all pending revisions; return those that were applied.

        Raises:
            MigrationError: the tables match no revision, or a lock could not be acquired.
        """
        before = self.pending()
        if not before:
            return []
        with self._alone() as connection:
            self._adopt(connection)
            self._step(connection, lambda revision: self._scripts._upgrade_revs(target, revision))  # noqa: SLF001 - what alembic's own command hands to its environment
            _analyze(connection)
        after = self.pending()
        return [revision for revision in before if revision not in after]

    def downgrade(self, target: str) -> None:
        """Revert to a revision, or to ``base``; data of later revisions is lost.

        Raises:
            MigrationError: a lock could not be acquired.
        """
        with self._alone() as connection:
            self._step(connection, lambda revision: self._scripts._downgrade_revs(target, revision))  # noqa: SLF001 - as above

    def _step(self, connection: Connection, steps: Callable[[Any], Any]) -> None:
        for attempt in range(self._attempts):
            try:
                self._run(connection, steps)
            except MigrationBlockedError as error:
                connection.rollback()
                raise MigrationError(str(error)) from error
            except OperationalError as error:
                connection.rollback()
                if _sqlstate(error) != _LOCK_NOT_AVAILABLE:
                    raise
                self._pause(min(2**attempt, 10))
            else:
                return
        raise MigrationError(
            "a table was in use all the time; look for long transactions in pg_stat_activity"
        )

    def _run(self, connection: Connection, steps: Callable[[Any], Any]) -> None:
        with EnvironmentContext(
            Config(), self._scripts, fn=lambda revision, _: steps(revision)
        ) as environment:
            environment.configure(
                connection=connection,
                transaction_per_migration=True,
                transactional_ddl=True,
                render_as_batch=True,
                on_version_apply=_check_references,
            )
            with environment.begin_transaction():
                environment.run_migrations()

    def _adopt(self, connection: Connection) -> None:
        """Adopt a database from before the first revision, whose tables match that revision."""
        context = MigrationContext.configure(connection)
        found = _BASELINE_TABLES & set(inspect(connection).get_table_names())
        known = context.get_current_revision()
        connection.rollback()
        if known is not None or not found:
            return
        if found != _BASELINE_TABLES:
            missing = ", ".join(sorted(_BASELINE_TABLES - found))
            raise MigrationError(f"the tables are those of no revision: {missing} missing")
        with connection.begin():
            context.stamp(self._scripts, BASELINE)

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                with _real_transactions(connection):
                    yield connection
                return
            with self._locked(connection):
                yield connection

    @contextmanager
    def _locked(self, connection: Connection) -> Iterator[None]:
        """Hold the advisory lock; polls, because a waiting transaction would block CREATE INDEX CONCURRENTLY."""
        for _ in range(self._attempts):
            got = connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _KEY})
            connection.commit()
            if got:
                break
            self._pause(1)
        else:
            raise MigrationError("another process is changing the tables")
        try:
            for setting in (f"lock_timeout = '{_LOCK_TIMEOUT}'", "statement_timeout = 0"):
                connection.execute(text(f"SET {setting}"))
            connection.commit()
            yield
        finally:
            connection.rollback()
            for setting in ("lock_timeout", "statement_timeout"):
                connection.execute(text(f"RESET {setting}"))
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _KEY})
            connection.commit()


def _sqlstate(error: OperationalError) -> str | None:
    """Return the SQLSTATE, as psycopg or psycopg2 names it."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


def is_ours(name: str | None, kind: str) -> bool:
    """Whether a table has a model, for comparisons; the library's search indexes have none."""
    return not (kind == "table" and (name or "").startswith(("article_search", "attachment_search")))


def _analyze(connection: Connection) -> None:
    """Collect PostgreSQL statistics of new columns and expression indexes, which may be unused without them."""
    if connection.dialect.name == "postgresql":
        # Tables locked by others are left to autovacuum.
        connection.execute(text("ANALYZE (SKIP_LOCKED)"))
        connection.commit()


def _check_references(ctx: MigrationContext, *_: object, **__: object) -> None:
    """On SQLite, roll back a revision that leaves dangling foreign keys; PostgreSQL checks them itself."""
    connection = ctx.connection
    if connection is None or connection.dialect.name != "sqlite":
        return
    if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall():
        raise MigrationError(f"{len(broken)} rows refer to missing rows, one in {broken[0][0]}")


@contextmanager
def _real_transactions(connection: Connection) -> Iterator[None]:
    """Use transactions that include DDL, which Python's driver does not begin by itself.

    Foreign keys are checked after each revision instead: batch mode drops tables that others refer to.
    """
    driver: Any = connection.connection.dbapi_connection
    usual = driver.isolation_level
    kept = driver.execute("PRAGMA foreign_keys").fetchone()[0]
    driver.isolation_level = None

    def begin(at_work: Connection) -> None:
        at_work.exec_driver_sql("BEGIN IMMEDIATE")

    driver.execute("PRAGMA foreign_keys = OFF")
    event.listen(connection, "begin", begin)
    try:
        yield
    finally:
        connection.rollback()
        event.remove(connection, "begin", begin)
        driver.execute(f"PRAGMA foreign_keys = {kept:d}")
        driver.isolation_level = usual
