"""Actions of ALTER TABLE in the grammar of PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

from mks_check.migrations._column_reader import (
    TYPE_ENDS,
    begins_constraint,
    read_column,
    read_constraint,
    type_text,
)
from mks_check.migrations._schema_operation import SchemaOperation
from mks_check.migrations._token_cursor import TokenCursor, UnreadableStatementError

__all__ = ["read_alter_table"]


def read_alter_table(cursor: TokenCursor) -> list[SchemaOperation]:
    """Read what follows ``ALTER TABLE``."""
    cursor.accept("if", "exists")
    cursor.accept("only")
    table = cursor.qualified_name()
    cursor.accept("*")
    if cursor.accept("rename"):
        return [_rename(cursor, table)]
    actions = [_action(cursor, table)]
    while cursor.accept(","):
        actions.append(_action(cursor, table))
    return actions


def _rename(cursor: TokenCursor, table: str) -> SchemaOperation:
    if cursor.accept("to"):
        return SchemaOperation("rename_table", table, other=cursor.name())
    if cursor.accept("constraint"):
        cursor.name()
        cursor.expect("to")
        cursor.name()
        return SchemaOperation("lock_briefly", table)
    cursor.accept("column")
    name = cursor.name()
    cursor.expect("to")
    return SchemaOperation("rename_column", table, name=name, other=cursor.name())


def _action(cursor: TokenCursor, table: str) -> SchemaOperation:
    if cursor.accept("add"):
        return _add(cursor, table)
    if cursor.accept("drop"):
        return _drop(cursor, table)
    if cursor.accept("alter"):
        if cursor.accept("constraint"):
            name = cursor.name()
            cursor.until_comma()
            return SchemaOperation("alter_constraint", table, name=name)
        cursor.accept("column")
        return _alter_column(cursor, table, cursor.name())
    if cursor.accept("validate", "constraint"):
        return SchemaOperation("validate_constraint", table, name=cursor.name())
    if cursor.accept("attach", "partition"):
        part = cursor.qualified_name()
        if not cursor.accept("default"):
            cursor.expect("for", "values")
            cursor.rest()
        return SchemaOperation("attach_partition", table, name=part)
    if cursor.accept("detach", "partition"):
        part = cursor.qualified_name()
        flag = cursor.accept_one_of("concurrently", "finalize")
        return SchemaOperation("detach_partition", table, name=part, flags=frozenset([flag] if flag else []))
    return _other(cursor, table)


def _add(cursor: TokenCursor, table: str) -> SchemaOperation:
    if not cursor.comes("column") and begins_constraint(cursor):
        return read_constraint(cursor, table)
    cursor.accept("column")
    flags = frozenset(["if_not_exists"] if cursor.accept("if", "not", "exists") else [])
    column = read_column(cursor)
    return SchemaOperation("add_column", table, name=column.name, column=column, flags=flags)


def _drop(cursor: TokenCursor, table: str) -> SchemaOperation:
    constraint = cursor.accept("constraint")
    if not constraint:
        cursor.accept("column")
    cursor.accept("if", "exists")
    name = cursor.name()
    cursor.accept_one_of("cascade", "restrict")
    return SchemaOperation("drop_constraint" if constraint else "drop_column", table, name=name)


def _alter_column(cursor: TokenCursor, table: str, name: str) -> SchemaOperation:
    found = SchemaOperation("lock_briefly", table, name=name)
    if cursor.accept("type") or cursor.accept("set", "data", "type"):
        kind = type_text(cursor.until_depth_zero(*TYPE_ENDS))
        if cursor.accept("collate"):
            cursor.qualified_name()
        using = cursor.until_comma() if cursor.accept("using") else ()
        return replace(found, kind="set_type", type=kind, expression=using)
    if cursor.accept("set", "default"):
        return replace(found, kind="set_default", expression=cursor.until_comma())
    if cursor.accept("drop", "default"):
        return replace(found, kind="drop_default")
    if cursor.accept("set", "not", "null"):
        return replace(found, kind="set_not_null")
    if cursor.accept("drop", "not", "null"):
        return replace(found, kind="drop_not_null")
    if cursor.accept("set", "statistics"):
        cursor.until_comma()
        return replace(found, kind="lock_weakly")
    if cursor.accept("set", "expression"):
        cursor.expect("as")
        cursor.group()
        return replace(found, kind="rewrite_table")
    if cursor.accept_one_of("set", "reset") and cursor.comes("("):
        cursor.group()
        return replace(found, kind="lock_weakly")
    if cursor.accept_one_of("storage", "compression"):
        cursor.name()
        return found
    if cursor.comes_one_of("generated", "add", "restart", "drop", "increment", "start"):
        # Identity and expression of an existing column: the catalogue alone changes.
        cursor.until_comma()
        return found
    raise UnreadableStatementError(f"ALTER COLUMN {name}")


def _other(cursor: TokenCursor, table: str) -> SchemaOperation:
    found = SchemaOperation("lock_briefly", table)
    if cursor.accept("set"):
        return _set(cursor, found)
    if cursor.accept("reset"):
        cursor.group()
        return replace(found, kind="lock_weakly")
    if cursor.accept("cluster", "on"):
        cursor.name()
        return replace(found, kind="lock_weakly")
    if cursor.accept_one_of("enable", "disable"):
        cursor.accept_one_of("always", "replica")
        if cursor.accept("row", "level", "security"):
            return found
        if not cursor.accept_one_of("trigger", "rule"):
            raise UnreadableStatementError("ENABLE")
        cursor.name()
        return replace(found, kind="lock_share_row")
    if cursor.accept("no", "force") or cursor.accept("force"):
        cursor.expect("row", "level", "security")
        return found
    if cursor.accept("no", "inherit") or cursor.accept("inherit"):
        return replace(found, other=cursor.qualified_name())
    if cursor.accept("owner", "to"):
        cursor.name()
        return found
    if cursor.accept("replica", "identity"):
        cursor.accept("using", "index")
        cursor.name()
        return found
    if cursor.accept("not", "of"):
        return found
    if cursor.accept("of"):
        cursor.qualified_name()
        return found
    token = cursor.peek()
    raise UnreadableStatementError(token.text if token else "the end")


def _set(cursor: TokenCursor, found: SchemaOperation) -> SchemaOperation:
    if cursor.comes("("):
        cursor.group()
        return replace(found, kind="lock_weakly")
    if cursor.accept_one_of("logged", "unlogged"):
        return replace(found, kind="rewrite_table")
    if cursor.accept("tablespace") or cursor.accept("access", "method"):
        cursor.name()
        return replace(found, kind="rewrite_table")
    if cursor.accept("schema"):
        schema = cursor.name()
        return replace(found, kind="rename_table", other=f"{schema}.{found.table.rpartition('.')[2]}")
    if cursor.accept("without"):
        cursor.name()
        return replace(found, kind="lock_weakly")
    raise UnreadableStatementError("SET")
