"""Operations of a migration, as the linter reads them from SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mks_check.migrations._sql_script import SqlToken

__all__ = ["ColumnDefinition", "OperationKind", "SchemaOperation"]

OperationKind = Literal[
    "add_column",
    "add_constraint",
    "add_enum_value",
    "alter_constraint",
    "attach_partition",
    "begin",
    "cluster",
    "commit",
    "create_domain",
    "create_index",
    "create_materialized_view",
    "create_table",
    "create_trigger",
    "create_type",
    "create_view",
    "detach_partition",
    "drop_column",
    "drop_constraint",
    "drop_default",
    "drop_index",
    "drop_not_null",
    "drop_table",
    "drop_trigger",
    "drop_view",
    "dynamic",
    "harmless",
    "insert",
    "lock_table",
    "lock_briefly",
    "lock_share_row",
    "lock_weakly",
    "query",
    "refresh",
    "reindex",
    "rename_column",
    "rename_enum_value",
    "rename_schema",
    "rename_table",
    "replace_view",
    "rewrite_rows",
    "rewrite_table",
    "rollback",
    "set_default",
    "set_not_null",
    "set_timeout",
    "set_type",
    "truncate",
    "vacuum",
    "validate_constraint",
]


@dataclass(frozen=True, slots=True)
class ColumnDefinition:
    """A column of CREATE TABLE or ADD COLUMN.

    Attributes:
        name: name of the column.
        type: type in lower case, with single spaces.
        not_null: whether it is NOT NULL or a primary key.
        default: tokens of the default; empty if there is none.
        generated: ``stored`` or ``virtual`` for a generated column.
        identity: whether it is an identity column.
        check: whether it has a CHECK constraint.
        unique: whether it has a UNIQUE or PRIMARY KEY constraint.
        references: table of a foreign key.
    """

    name: str
    type: str
    not_null: bool = False
    default: tuple[SqlToken, ...] = ()
    generated: str = ""
    identity: bool = False
    check: bool = False
    unique: bool = False
    references: str = ""


@dataclass(frozen=True, slots=True)
class SchemaOperation:
    """One operation: a statement, or one action of ALTER TABLE.

    Attributes:
        kind: what it does.
        table: table that it locks; empty if there is none.
        name: column, index, constraint or setting.
        other: referenced table, parent, or new name.
        type: type of a column, kind of a constraint, or value of a setting.
        flags: details, for example ``concurrently``, ``not_valid``, ``if_not_exists``.
        column: definition of a new column.
        columns: columns of a new table, or of a constraint by name only.
        tables: tables that are dropped, truncated, locked or referenced.
        expression: tokens of a default, of USING or of a CHECK.
        line: line in the script.
    """

    kind: OperationKind
    table: str = ""
    name: str = ""
    other: str = ""
    type: str = ""
    flags: frozenset[str] = frozenset()
    column: ColumnDefinition | None = None
    columns: tuple[ColumnDefinition, ...] = ()
    tables: tuple[str, ...] = ()
    expression: tuple[SqlToken, ...] = field(default=(), repr=False)
    line: int = 0
