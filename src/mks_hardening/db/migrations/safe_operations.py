"""Schema changes of PostgreSQL in steps that block nobody for long, and that continue where they stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import boolean, function, instance, mapping, strings, text_of, whole_number
from mks_hardening._core.database.error_text import code_of
from mks_hardening._core.durations import seconds
from mks_hardening.db.migrations._recording_connection import RESUMABLE, RecordingConnection
from mks_hardening.db.migrations._sql_names import new_name, quoted, quoted_list, table_name
from mks_hardening.db.migrations.lock_retry import (
    LOCK_NOT_AVAILABLE,
    LockRetry,
    MigrationBlockedError,
    blockers_of,
    check_autocommit,
    repeat_while_locked,
    session_settings,
)
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection

__all__ = ["BackfillProgress", "SafeOperations"]

_INDEX: Final = """
    SELECT i.indisvalid,
           ARRAY[a.amname, i.indisunique::text, i.indclass::text, i.indoption::text,
                 coalesce(pg_get_expr(i.indpred, i.indrelid), '')]
           || ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true) FROM generate_series(1, i.indnatts) k)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    WHERE i.indexrelid = to_regclass(:name)
"""
_CONSTRAINT: Final = """
    SELECT c.convalidated, replace(pg_get_constraintdef(c.oid), ' NOT VALID', '')
    FROM pg_constraint c WHERE c.conrelid = to_regclass(:table) AND c.conname = :name
"""
_COLUMN: Final = """
    SELECT format_type(a.atttypid, a.atttypmod), a.attnotnull AND NOT EXISTS (
        SELECT FROM pg_constraint c WHERE c.conrelid = a.attrelid AND c.contype = 'n'
        AND c.conkey = ARRAY[a.attnum] AND NOT c.convalidated)
    FROM pg_attribute a
    WHERE a.attrelid = to_regclass(:table) AND a.attname = :name AND NOT a.attisdropped
"""
_SCHEMA: Final = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass(:table)"
_SCRATCH: Final = "mks_scratch_table"


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """Progress of a backfill.

    Attributes:
        table: the table.
        done: rows changed so far by this call.
        last: key of the last changed row.
        upper: key at which it ends: the largest one at its start.
    """

    table: str
    done: int
    last: object
    upper: object


class SafeOperations:
    """Schema changes in steps, each in a transaction of its own, with limited waits for locks.

    Every method looks up in the catalogue what is done already, so a method that was interrupted, by a lost
    connection or a killed process, is completed by calling it again. A different object of the same name is an
    error. Types, defaults and conditions are SQL of the migration, never of a user.

    In a revision of Alembic:

    .. code-block:: python

        with op.get_context().autocommit_block():
            SafeOperations(op.get_bind()).add_index("ix_orders_day", "orders", ["day"])

    Args:
        connection: connection to PostgreSQL in autocommit mode.
        retry: limits of the waits for locks.
        progress: called after each batch of a backfill.
        sleep: function that waits a number of seconds; ``time.sleep`` by default.

    Raises:
        ConfigurationError: a parameter is invalid, or the connection is not in autocommit mode.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        retry: LockRetry | None = None,
        progress: Callable[[BackfillProgress], object] | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._retry = LockRetry() if retry is None else instance(retry, LockRetry, parameter="retry")
        self._progress = progress if progress is None else function(progress, parameter="progress")
        self._sleep = time.sleep if sleep is None else function(sleep, parameter="sleep")
        self._connection = connection
        # The linter runs migrations without a database: then every step is to be done.
        self._is_recorded = isinstance(connection, RecordingConnection)
        if self._is_recorded:
            return
        from sqlalchemy import Connection

        instance(connection, Connection, parameter="connection")
        if connection.dialect.name != "postgresql":
            raise ConfigurationError("connection must be to PostgreSQL", parameter="connection")
        check_autocommit(connection)

    # --- indexes

    def add_index(
        self,
        name: str,
        table: str,
        columns: Sequence[str],
        *,
        unique: bool = False,
        using: str = "btree",
        where: str | None = None,
    ) -> None:
        """Build an index while reads and writes continue, and replace the INVALID index of an interrupted build.

        The build waits for all transactions that are older than itself, at most ``total`` of the ``LockRetry``
        for each.

        Args:
            name: name of the index.
            table: table, or ``schema.table``.
            columns: columns, or expressions in parentheses.
            unique: whether the index rejects duplicates.
            using: access method.
            where: condition of a partial index.

        Raises:
            ConfigurationError: a parameter is invalid, or another valid index has this name.
            MigrationBlockedError: an older transaction did not end in time.
        """
        new_name(name)
        target, keys = table_name(table), strings(columns, parameter="columns")
        boolean(unique, parameter="unique")
        listed = ", ".join(key if key.startswith("(") else quoted(key) for key in keys)
        condition = f" WHERE {where}" if where else ""
        kind = "UNIQUE INDEX" if unique else "INDEX"
        definition = f"USING {quoted(using)} ({listed}){condition}"
        qualified = f"{self._schema_of(table)}.{quoted(name)}"
        found = self._row(_INDEX, name=qualified)
        if found is not None and found[0]:
            if found[1] != self._scratch(
                target, f"CREATE {kind} {quoted(_SCRATCH)} ON {{}} {definition}", _INDEX
            ):
                raise ConfigurationError(f"another index is called {name}", parameter="name")
            return
        if found is not None:
            self._execute(f"DROP INDEX CONCURRENTLY IF EXISTS {qualified}", target)
        try:
            self._execute(f"CREATE {kind} CONCURRENTLY {quoted(name)} ON {target} {definition}", target)
        except Exception:
            # An INVALID unique index would already reject rows. The build error is the one to report; if the index
            # cannot be dropped now, the next call replaces it.
            with suppress(Exception):
                self._execute(f"DROP INDEX CONCURRENTLY IF EXISTS {qualified}", target)
            raise

    def drop_index(self, name: str) -> None:
        """Drop an index, or ``schema.index``, while reads and writes continue; does nothing if there is none."""
        self._execute(f"DROP INDEX CONCURRENTLY IF EXISTS {table_name(name, parameter='name')}")

    # --- constraints

    def add_check(self, name: str, table: str, condition: str) -> None:
        """Add a CHECK constraint for new rows, then validate the old ones without blocking writes.

        Raises:
            ConfigurationError: a parameter is invalid, or another constraint has this name.
        """
        text_of(condition, parameter="condition", empty=False)
        self._add_constraint(name, table, f"CHECK ({condition})")

    def add_foreign_key(
        self,
        name: str,
        table: str,
        columns: Sequence[str],
        parent: str,
        parent_columns: Sequence[str],
        *,
        on_delete: str = "NO ACTION",
    ) -> None:
        """Add a foreign key for new rows, then validate the old ones without blocking writes.

        Args:
            name: name of the constraint.
            table: table of the constraint.
            columns: its columns.
            parent: referenced table.
            parent_columns: referenced columns.
            on_delete: ``NO ACTION``, ``RESTRICT``, ``CASCADE``, ``SET NULL`` or ``SET DEFAULT``.

        Raises:
            ConfigurationError: a parameter is invalid, or another constraint has this name.
        """
        if on_delete not in {"NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT"}:
            raise ConfigurationError("on_delete must be an action of FOREIGN KEY", parameter="on_delete")
        own = quoted_list(strings(columns, parameter="columns"))
        theirs = quoted_list(strings(parent_columns, parameter="parent_columns"))
        target = table_name(parent, parameter="parent")
        self._add_constraint(
            name, table, f"FOREIGN KEY ({own}) REFERENCES {target} ({theirs}) ON DELETE {on_delete}"
        )

    def add_unique(self, name: str, table: str, columns: Sequence[str]) -> None:
        """Build a unique index while reads and writes continue, then make it a constraint.

        Raises:
            ConfigurationError: a parameter is invalid, or another index has this name.
        """
        target = table_name(table)
        found = self._row(_CONSTRAINT, table=target, name=new_name(name))
        if found is not None:
            if not str(found[1]).startswith("UNIQUE"):
                raise ConfigurationError(f"another constraint is called {name}", parameter="name")
            return
        self.add_index(name, table, columns, unique=True)
        key = quoted(name)
        self._alter(target, f"ADD CONSTRAINT {key} UNIQUE USING INDEX {key}")

    def validate(self, name: str, table: str) -> None:
        """Validate a constraint; writes continue during the scan."""
        self._alter(table_name(table), f"VALIDATE CONSTRAINT {quoted(name)}")

    def _add_constraint(self, name: str, table: str, definition: str) -> None:
        target = table_name(table)
        found = self._row(_CONSTRAINT, table=target, name=new_name(name))
        if found is None:
            self._alter(target, f"ADD CONSTRAINT {quoted(name)} {definition} NOT VALID")
        elif definition.startswith("CHECK"):
            adding = f"ALTER TABLE {{}} ADD CONSTRAINT {quoted(_SCRATCH)} {definition}"
            if self._scratch(target, adding, _CONSTRAINT) != found[1]:
                raise ConfigurationError(f"another constraint is called {name}", parameter="name")
        elif not str(found[1]).startswith("FOREIGN KEY"):
            raise ConfigurationError(f"another constraint is called {name}", parameter="name")
        if found is None or not found[0]:
            self.validate(name, table)

    # --- columns

    def set_not_null(self, table: str, column: str) -> None:
        """Make a column NOT NULL in steps: CHECK for new rows, validation, SET NOT NULL, which then reads nothing.

        Raises:
            ConfigurationError: there is no such column.
        """
        target, name = table_name(table), f"mks_{column}_not_null"
        check = new_name(name, parameter="column")
        found = self._row(_COLUMN, table=target, name=column)
        if found is None and not self._is_recorded:
            raise ConfigurationError(f"{table} has no column {column}", parameter="column")
        if found is None or not found[1]:
            self._add_constraint(check, table, f"CHECK ({quoted(column)} IS NOT NULL)")
            self._alter(target, f"ALTER COLUMN {quoted(column)} SET NOT NULL")
        if self._is_recorded or self._row(_CONSTRAINT, table=target, name=check) is not None:
            self._alter(target, f"DROP CONSTRAINT IF EXISTS {quoted(check)}")

    def add_column(
        self,
        table: str,
        column: str,
        type: str,  # noqa: A002 - the word of SQL
        *,
        default: str | None = None,
        key: str = "id",
        not_null: bool = False,
        batch: int = 1000,
    ) -> None:
        """Add a column; with a default, old rows get it in batches, so that a volatile one rewrites nothing.

        Args:
            table: table, or ``schema.table``.
            column: new column.
            type: its type.
            default: SQL expression; new rows get it at once.
            key: unique, indexed column that orders the batches.
            not_null: whether the column becomes NOT NULL in the end.
            batch: rows of a batch.

        Raises:
            ConfigurationError: a parameter is invalid, or the column exists with another type.
        """
        target, name = table_name(table), quoted(new_name(column, parameter="column"))
        text_of(type, parameter="type", empty=False)
        boolean(not_null, parameter="not_null")
        found = self._row(_COLUMN, table=target, name=column)
        if found is None:
            self._alter(target, f"ADD COLUMN IF NOT EXISTS {name} {type}")
        elif found[0] != self._scratch(
            target, f"ALTER TABLE {{}} ADD {quoted(_SCRATCH)} {type}", _COLUMN, at=0
        ):
            raise ConfigurationError(f"{table}.{column} exists with the type {found[0]}", parameter="type")
        if default is not None:
            text_of(default, parameter="default", empty=False)
            self._alter(target, f"ALTER COLUMN {name} SET DEFAULT {default}")
            self.backfill(table, {column: default}, where=f"{name} IS NULL", key=key, batch=batch)
        if not_null:
            self.set_not_null(table, column)

    def backfill(
        self,
        table: str,
        values: Mapping[str, str],
        *,
        where: str,
        key: str = "id",
        batch: int = 1000,
        pause: float | timedelta = 0,
    ) -> int:
        """Change rows in batches, each in its own transaction, in the order of a key.

        Rows that are inserted after the start are not visited: give the column a default, or write it in the
        application, first. A call that was interrupted is repeated: ``where`` skips the rows that are done.

        Args:
            table: table, or ``schema.table``.
            values: SQL expressions by column.
            where: condition of the rows to change, which the change makes false: ``status IS NULL``.
            key: unique, indexed column that orders the batches.
            batch: rows of a batch.
            pause: seconds to wait between two batches, so that replicas and autovacuum keep up.

        Returns:
            The number of changed rows.

        Raises:
            ConfigurationError: a parameter is invalid.
            MigrationBlockedError: rows were locked the whole time.
        """
        target, ordered = table_name(table), quoted(text_of(key, parameter="key", empty=False))
        mapping(values, parameter="values", of="columns to SQL expressions")
        text_of(where, parameter="where", empty=False)
        whole_number(batch, parameter="batch", minimum=1, maximum=100_000)
        waited = seconds(pause, parameter="pause")
        changes = ", ".join(f"{quoted(column)} = {value}" for column, value in values.items())
        if self._is_recorded:
            self._execute(f"UPDATE {target} SET {changes} WHERE {where}")  # noqa: S608 - SQL of the migration
            return 0
        changes, where = changes.replace(":", r"\:"), where.replace(":", r"\:")  # no parameters of ``text``
        upper = self._scalar(f"SELECT {ordered} FROM {target} ORDER BY {ordered} DESC LIMIT 1")  # noqa: S608 - quoted names
        last, done = None, 0
        while upper is not None:
            bounds = f"{ordered} <= :upper" + (f" AND {ordered} > :last" if last is not None else "")
            statement = (
                f"WITH batch AS (SELECT {ordered} FROM {target} WHERE {bounds} AND ({where}) "  # noqa: S608 - quoted names, SQL of the migration
                f"ORDER BY {ordered} LIMIT {batch} FOR UPDATE), "
                f"changed AS (UPDATE {target} AS t SET {changes} FROM batch WHERE t.{ordered} = batch.{ordered} "
                f"RETURNING t.{ordered}) "
                f"SELECT {ordered}, count(*) OVER () FROM changed ORDER BY {ordered} DESC LIMIT 1"
            )
            row = self._batch(statement, {"upper": upper} | ({} if last is None else {"last": last}), target)
            if row is None:
                break
            last, done = row[0], done + int(row[1])
            if self._progress is not None:
                self._progress(BackfillProgress(table, done, last, upper))
            if waited:
                self._sleep(waited)
        return done

    # --- execution

    def _alter(self, target: str, action: str) -> None:
        statement = f"ALTER TABLE {target} {action}"
        if self._is_recorded:
            self._connection.exec_driver_sql("SET lock_timeout = '1s'")
            self._execute(statement)
            return
        with self._limits(lock_timeout=self._retry.first):
            self._retry.run(self._connection, statement, table=target, sleep=self._sleep)

    def _execute(self, statement: str, table: str = "") -> None:
        """Execute a concurrent step, which waits for older transactions, and blocks no query while it waits."""
        if self._is_recorded:
            verb, _, rest = statement.partition(" ")
            self._connection.exec_driver_sql(f"{verb} {RESUMABLE} {rest}")
            return
        try:
            with self._limits(lock_timeout=self._retry.total):
                self._connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        except Exception as error:
            if code_of(error) != LOCK_NOT_AVAILABLE:
                raise
            raise MigrationBlockedError(1, blockers_of(self._connection, table)) from error

    def _limits(self, *, lock_timeout: float) -> AbstractContextManager[None]:
        """Lift the statement timeout of the session, which would stop a build or a validation half way."""
        milliseconds = max(1, round(lock_timeout * 1000))
        return session_settings(self._connection, statement_timeout="0", lock_timeout=f"{milliseconds}ms")

    def _batch(self, statement: str, parameters: Mapping[str, object], target: str) -> Any:
        from sqlalchemy import text

        found: list[Any] = []
        clause = text(statement)

        def change() -> None:
            found.append(self._connection.execute(clause, parameters).first())

        repeat_while_locked(self._retry, self._connection, change, table=target, sleep=self._sleep)
        return found[-1]

    def _row(self, statement: str, **parameters: str) -> Any:
        if self._is_recorded:
            return None
        from sqlalchemy import text

        return self._connection.execute(text(statement), parameters).first()

    def _scalar(self, statement: str, **parameters: str) -> Any:
        row = self._row(statement, **parameters)
        return None if row is None else row[0]

    def _schema_of(self, table: str) -> str:
        if self._is_recorded:
            return "public"
        schema = self._scalar(_SCHEMA, table=table_name(table))
        if schema is None:
            raise ConfigurationError(f"there is no table {table}", parameter="table")
        return str(schema)

    def _scratch(self, target: str, statement: str, query: str, *, at: int = 1) -> Any:
        """Return what the catalogue shows of an object after a statement on an empty copy of a table.

        The copy stands for the first ``{}`` of the statement. The server thus normalizes both definitions.
        """
        copy = quoted(f"{_SCRATCH}_copy")
        before, _, after = statement.partition("{}")
        self._connection.exec_driver_sql("BEGIN")
        try:
            self._connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {copy} (LIKE {target}) ON COMMIT DROP")
            self._connection.exec_driver_sql(
                f"{before}{copy}{after}", execution_options={"no_parameters": True}
            )
            parameters = {"name": _SCRATCH, "table": f"pg_temp.{copy}"}
            if query is _INDEX:
                parameters = {"name": f"pg_temp.{quoted(_SCRATCH)}"}
            return self._row(query, **parameters)[at]
        finally:
            self._connection.exec_driver_sql("ROLLBACK")
