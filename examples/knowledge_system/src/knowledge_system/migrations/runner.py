"""Bringing a database from one revision to another, whole steps only.

Each revision is one transaction, on SQLite too. One process changes a database at a time. A lock that somebody else
holds is waited for briefly, because all who come later wait behind us; then the step is undone and tried again.
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

__all__ = ["BASELINE", "MigrationFault", "Migrations", "is_ours"]

BASELINE: Final = "0001"
_FOLDER: Final = Path(__file__).parent
_KEY: Final = 0x6D6B735F6B6E6F77
"""Of PostgreSQL's advisory lock: whoever holds it changes the tables."""
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


class MigrationFault(RuntimeError):  # noqa: N818 - it says what is wrong with a database
    """A database cannot be brought to another revision; it is as it was before the step that failed."""


class Migrations:
    """The revisions of one database.

    Args:
        engine: of the database, SQLite or PostgreSQL.
        attempts: how often a step is tried that meets a lock, or another process that changes the tables.
        pause: waits so many seconds between two of them.
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
        """The revision that the models are made for."""
        return str(self._scripts.get_current_head())

    @property
    def revisions(self) -> list[str]:
        """All of them, oldest first."""
        return [script.revision for script in self._scripts.walk_revisions()][::-1]

    def current(self) -> str | None:
        """The revision of the database; ``None`` for an empty one, or one from before there were revisions."""
        with self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def is_empty(self) -> bool:
        """Whether there are no tables of ours, so that nothing can be lost."""
        return not _BASELINE_TABLES & set(inspect(self._engine).get_table_names())

    def pending(self) -> list[str]:
        """The revisions that are to come, oldest first; none for a database that is newer than this program."""
        current, all_of_them = self.current(), self.revisions
        if current is None:
            return all_of_them
        return all_of_them[all_of_them.index(current) + 1 :] if current in all_of_them else []

    def upgrade(self, target: str = "head") -> list[str]:
        """Bring the database forward; the revisions that were applied.

        Raises:
            MigrationFault: its tables are not those of any revision, or a lock was never free.
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
        """Take the database back to a revision, or to ``base``; what later revisions brought is lost.

        Raises:
            MigrationFault: a lock was never free.
        """
        with self._alone() as connection:
            self._step(connection, lambda revision: self._scripts._downgrade_revs(target, revision))  # noqa: SLF001 - as above

    def _step(self, connection: Connection, steps: Callable[[Any], Any]) -> None:
        for attempt in range(self._attempts):
            try:
                self._run(connection, steps)
            except OperationalError as error:
                connection.rollback()
                if _sqlstate(error) != _LOCK_NOT_AVAILABLE:
                    raise
                self._pause(min(2**attempt, 10))
            else:
                return
        raise MigrationFault(
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
        """Take over a database from before there were revisions: its tables are those of the first one."""
        context = MigrationContext.configure(connection)
        found = _BASELINE_TABLES & set(inspect(connection).get_table_names())
        known = context.get_current_revision()
        connection.rollback()
        if known is not None or not found:
            return
        if found != _BASELINE_TABLES:
            missing = ", ".join(sorted(_BASELINE_TABLES - found))
            raise MigrationFault(f"the tables are those of no revision: {missing} missing")
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
        """Alone with PostgreSQL; asks again and again, since one who waits stands in the way of CONCURRENTLY."""
        for _ in range(self._attempts):
            got = connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _KEY})
            connection.commit()
            if got:
                break
            self._pause(1)
        else:
            raise MigrationFault("another process is changing the tables")
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
    """As psycopg or psycopg2 calls it."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


def is_ours(name: str | None, kind: str) -> bool:
    """Whether a model answers for a table, for comparisons: the search index is the library's and has none."""
    return not (kind == "table" and (name or "").startswith("article_search"))


def _analyze(connection: Connection) -> None:
    """Give PostgreSQL statistics of new columns and of indexes on expressions, which it may not use without."""
    if connection.dialect.name == "postgresql":
        # A table that somebody else is at work on is left to autovacuum.
        connection.execute(text("ANALYZE (SKIP_LOCKED)"))
        connection.commit()


def _check_references(ctx: MigrationContext, *_: object, **__: object) -> None:
    """Undo a step on SQLite that leaves rows behind whose other end is gone; PostgreSQL looks by itself."""
    connection = ctx.connection
    if connection is None or connection.dialect.name != "sqlite":
        return
    if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall():
        raise MigrationFault(f"{len(broken)} rows refer to rows that are not there, one in {broken[0][0]}")


@contextmanager
def _real_transactions(connection: Connection) -> Iterator[None]:
    """Transactions that hold DDL too, which Python's driver begins only for changes of rows.

    Foreign keys are looked at after each step instead: batch mode drops tables to which others refer.
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
