"""What earlier migrations tell about the schema, and the state of the transaction while one is judged."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from mks_check.migrations._column_reader import type_text
from mks_check.migrations._schema_operation import SchemaOperation
from mks_check.migrations._sql_script import SqlToken, read_script

__all__ = ["KnownConstraint", "KnownSchema", "MigrationState"]

_NO_TIMEOUT: Final = re.compile(r"'?\s*0+\s*[a-z]*\s*'?|default", re.IGNORECASE)


@dataclass
class KnownConstraint:
    """A constraint that a migration has added.

    Attributes:
        table: its table.
        kind: ``check``, ``foreign``, ``unique``, ``primary``, ``exclude`` or ``not_null``.
        other: referenced table.
        not_null_column: column of which it proves that it is never null.
        validated: whether all rows satisfy it.
    """

    table: str
    kind: str
    other: str = ""
    not_null_column: str = ""
    validated: bool = True


@dataclass
class KnownSchema:
    """The schema as far as the migrations read so far tell; grows from one migration to the next."""

    columns: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    constraints: dict[tuple[str, str], KnownConstraint] = field(
        default_factory=dict[tuple[str, str], KnownConstraint]
    )
    indexes: dict[str, str] = field(default_factory=dict[str, str])
    checked_domains: set[str] = field(default_factory=set[str])
    partitioned: set[str] = field(default_factory=set[str])
    references: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def proves_not_null(self, table: str, column: str) -> bool:
        """Whether a validated constraint proves that a column is never null."""
        return any(
            known.validated and known.table == table and known.not_null_column == column
            for known in self.constraints.values()
        )

    def state_type(self, table: str, column: str, kind: str) -> None:
        """Take over the type of a column that no migration has told."""
        tokens = [token for statement in read_script(kind).statements for token in statement.tokens]
        self.columns.setdefault(table, {}).setdefault(column, type_text(tuple(tokens)))

    def learn(self, operation: SchemaOperation) -> None:
        """Take over what an operation changes."""
        table = operation.table
        match operation.kind:
            case "create_table":
                self.columns[table] = {column.name: column.type for column in operation.columns}
                self.references[table] = set(operation.tables)
                if "partitioned" in operation.flags:
                    self.partitioned.add(table)
            case "add_column" if operation.column is not None:
                self.columns.setdefault(table, {})[operation.name] = operation.column.type
                if operation.column.references:
                    self.references.setdefault(table, set()).add(operation.column.references)
            case "set_type":
                self.columns.setdefault(table, {})[operation.name] = operation.type
            case "drop_column":
                self.columns.get(table, {}).pop(operation.name, None)
            case "rename_column":
                columns = self.columns.get(table, {})
                if operation.name in columns:
                    columns[operation.other] = columns.pop(operation.name)
            case "rename_table":
                self.columns[operation.other] = self.columns.pop(table, {})
                self.references[operation.other] = self.references.pop(table, set())
            case "drop_table":
                self.columns.pop(table, None)
                self.references.pop(table, None)
            case "create_index":
                self.indexes[operation.name] = table
            case "drop_index":
                self.indexes.pop(operation.name, None)
            case "create_domain" if "check" in operation.flags:
                self.checked_domains.add(operation.name)
            case "add_constraint":
                self._learn_constraint(operation)
            case "validate_constraint":
                if known := self.constraints.get((table, operation.name)):
                    known.validated = True
            case "drop_constraint":
                self.constraints.pop((table, operation.name), None)
            case _:
                pass

    def _learn_constraint(self, operation: SchemaOperation) -> None:
        column = _not_null_column(operation.expression) if operation.type == "check" else ""
        if operation.type == "not_null":
            column = operation.columns[0].name
        if operation.type == "foreign":
            self.references.setdefault(operation.table, set()).add(operation.other)
        self.constraints[operation.table, operation.name] = KnownConstraint(
            operation.table,
            operation.type,
            other=operation.other if operation.type == "foreign" else "",
            not_null_column=column,
            validated="not_valid" not in operation.flags,
        )


def _not_null_column(expression: tuple[SqlToken, ...]) -> str:
    tokens = [token for token in expression if token.text not in {"(", ")"}]
    if len(tokens) >= 4 and [token.key for token in tokens[-3:]] == ["is", "not", "null"]:
        name = tokens[:-3]
        if len(name) == 1 or (len(name) == 3 and name[1].text == "."):
            return name[-1].key
    return ""


@dataclass
class MigrationState:
    """State while one migration is judged.

    Attributes:
        in_transaction: whether a transaction is open.
        timeout: whether ``lock_timeout`` is set for the session.
        local_timeout: the same for this transaction; ``None`` if it does not set it.
        new_tables: tables created by this migration.
        perhaps_new: tables that it creates with IF NOT EXISTS, so that they may be in use.
        renamed: former names of tables that this transaction has renamed.
        new_columns: columns added by this migration, with whether they are NOT NULL with a default.
        new_indexes: indexes created by this migration.
        locked: tables in use that this transaction has locked against writes.
        not_valid: constraints that this transaction added with NOT VALID.
        enum_values: enum values that this transaction added.
        changed_schema: whether a table in use was changed.
        changed_rows: whether many rows of a table in use were changed.
        has_concurrent_step: whether a step ran CONCURRENTLY.
        reported: rules that are reported once for a migration.
    """

    in_transaction: bool
    timeout: bool
    local_timeout: bool | None = None
    new_tables: set[str] = field(default_factory=set[str])
    perhaps_new: set[str] = field(default_factory=set[str])
    renamed: set[str] = field(default_factory=set[str])
    new_columns: dict[tuple[str, str], bool] = field(default_factory=dict[tuple[str, str], bool])
    new_indexes: set[str] = field(default_factory=set[str])
    locked: list[str] = field(default_factory=list[str])
    not_valid: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    enum_values: set[str] = field(default_factory=set[str])
    changed_schema: bool = False
    changed_rows: bool = False
    has_concurrent_step: bool = False
    reported: set[str] = field(default_factory=set[str])

    @property
    def has_lock_timeout(self) -> bool:
        """Whether a lock is waited for with a limit."""
        return self.timeout if self.local_timeout is None else self.local_timeout

    def set_timeout(self, operation: SchemaOperation) -> None:
        """Apply SET, SET LOCAL or RESET of ``lock_timeout``."""
        if operation.name not in {"lock_timeout", "all"}:
            return
        limited = _NO_TIMEOUT.fullmatch(operation.type.strip()) is None
        if "local" not in operation.flags:
            self.timeout, self.local_timeout = limited, None
        elif self.in_transaction:  # outside of a transaction, SET LOCAL has no effect
            self.local_timeout = limited

    def begin(self) -> None:
        """Open a transaction."""
        self.in_transaction = True

    def end(self) -> None:
        """Close the transaction: its locks and its local settings are gone."""
        self.in_transaction = False
        self.end_statement()

    def end_statement(self) -> None:
        """Forget what belongs to one transaction."""
        self.local_timeout = None
        self.locked.clear()
        self.not_valid.clear()
        self.enum_values.clear()
        self.renamed.clear()
