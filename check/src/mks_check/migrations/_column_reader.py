"""Column definitions and constraints in the grammar of PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mks_check.migrations._schema_operation import ColumnDefinition, SchemaOperation
from mks_check.migrations._sql_script import SqlToken
from mks_check.migrations._token_cursor import TokenCursor, UnreadableStatementError

__all__ = ["TYPE_ENDS", "begins_constraint", "read_column", "read_constraint", "type_text"]

_CLAUSES: Final = (
    *("constraint", "not", "null", "default", "check", "unique", "primary", "references", "generated"),
    *("collate", "deferrable", "initially", "storage", "compression", "options", "enforced"),
)
TYPE_ENDS: Final = (*_CLAUSES, "using")
_CONSTRAINTS: Final = ("constraint", "check", "unique", "primary", "foreign", "exclude", "not")


@dataclass
class _Column:
    """A column while it is read."""

    not_null: bool = False
    default: tuple[SqlToken, ...] = ()
    generated: str = ""
    identity: bool = False
    check: bool = False
    unique: bool = False
    references: str = ""
    flags: set[str] = field(default_factory=set[str])


def type_text(tokens: tuple[SqlToken, ...]) -> str:
    """Return a type in lower case with single spaces: ``numeric(10,2)``, ``double precision``, ``text[]``."""
    text = ""
    for token in tokens:
        part = token.text if token.kind == "name" else token.key
        glued = part in {"(", ")", ",", "[", "]", "."} or text.endswith(("(", ",", "[", "."))
        text += part if glued or not text else f" {part}"
    return text.removeprefix("pg_catalog.").removeprefix("public.")


def begins_constraint(cursor: TokenCursor) -> bool:
    """Whether a table constraint comes next, not a column with a constraint's name."""
    if cursor.comes("not"):
        return cursor.comes("not", "null")
    if cursor.comes_one_of("check", "exclude"):
        following = cursor.peek(1)
        return following is not None and (following.text == "(" or following.is_word("using"))
    return cursor.comes_one_of(*_CONSTRAINTS)


def read_column(cursor: TokenCursor) -> ColumnDefinition:
    """Read ``name type constraints``."""
    name = cursor.name()
    kind = type_text(cursor.until_depth_zero(*TYPE_ENDS))
    if not kind:
        raise UnreadableStatementError(f"the type of {name}")
    column = _Column()
    while not cursor.is_at_end and not cursor.comes_one_of(",", ")"):
        _read_clause(cursor, column)
    return ColumnDefinition(
        name=name,
        type=kind,
        not_null=column.not_null,
        default=column.default,
        generated=column.generated,
        identity=column.identity,
        check=column.check,
        unique=column.unique,
        references=column.references,
    )


def _read_clause(cursor: TokenCursor, column: _Column) -> None:
    if cursor.accept("constraint"):
        cursor.name()
    if cursor.accept("not", "null"):
        column.not_null = True
        cursor.accept("no", "inherit")
    elif cursor.accept("null"):
        pass
    elif cursor.accept("default"):
        expression = cursor.until_depth_zero(*_CLAUSES, at_least=1)
        column.default = () if [token.key for token in expression] == ["null"] else expression
    elif cursor.accept("check"):
        cursor.group()
        cursor.accept("no", "inherit")
        column.check = True
    elif cursor.accept("unique"):
        column.unique = True
        _index_parameters(cursor)
    elif cursor.accept("primary", "key"):
        column.unique = column.not_null = True
        _index_parameters(cursor)
    elif cursor.accept("references"):
        column.references = _references(cursor)
    elif cursor.accept("generated"):
        _read_generated(cursor, column)
    elif cursor.accept("collate"):
        cursor.qualified_name()
    elif cursor.accept_one_of("storage", "compression"):
        cursor.name()
    elif cursor.accept("options"):
        cursor.group()
    else:
        _modifiers(cursor, at_least_one=True)


def _read_generated(cursor: TokenCursor, column: _Column) -> None:
    if not cursor.accept("by", "default"):
        cursor.expect("always")
    cursor.expect("as")
    if cursor.accept("identity"):
        column.identity = column.not_null = True
        if cursor.comes("("):
            cursor.group()
        return
    cursor.group()
    # PostgreSQL 18: virtual is the default.
    column.generated = cursor.accept_one_of("stored", "virtual") or "virtual"


def _references(cursor: TokenCursor) -> str:
    parent = cursor.qualified_name()
    if cursor.comes("("):
        cursor.group()
    while True:
        if cursor.accept("match"):
            cursor.name()
        elif cursor.accept("on"):
            if not cursor.accept_one_of("delete", "update"):
                raise UnreadableStatementError("ON")
            if cursor.accept("set"):
                if not cursor.accept_one_of("null", "default"):
                    raise UnreadableStatementError("SET")
                if cursor.comes("("):
                    cursor.group()
            elif not (cursor.accept("no", "action") or cursor.accept_one_of("cascade", "restrict")):
                raise UnreadableStatementError("ON DELETE")
        else:
            return parent


def _index_parameters(cursor: TokenCursor) -> None:
    if cursor.accept("nulls"):
        cursor.accept("not")
        cursor.expect("distinct")
    while True:
        if cursor.accept_one_of("include", "with"):
            cursor.group()
        elif cursor.accept("using", "index", "tablespace"):
            cursor.name()
        else:
            return


def _modifiers(cursor: TokenCursor, *, at_least_one: bool = False) -> frozenset[str]:
    """Read what may follow a constraint, in any order."""
    found: set[str] = set()
    while True:
        if cursor.accept("not", "valid"):
            found.add("not_valid")
        elif cursor.accept("not", "enforced"):
            found.add("not_enforced")
        elif (
            cursor.accept("not", "deferrable")
            or cursor.accept("initially", "deferred")
            or cursor.accept("initially", "immediate")
            or cursor.accept("no", "inherit")
            or cursor.accept_one_of("deferrable", "enforced")
        ):
            found.add("other")
        else:
            break
    if at_least_one and not found:
        raise UnreadableStatementError(cursor.take().text)
    return frozenset(found)


def read_constraint(cursor: TokenCursor, table: str) -> SchemaOperation:
    """Read a table constraint."""
    name = cursor.name() if cursor.accept("constraint") else ""
    flags: set[str] = set()
    other = ""
    expression: tuple[SqlToken, ...] = ()
    columns: tuple[ColumnDefinition, ...] = ()
    if cursor.accept("check"):
        kind, expression = "check", cursor.group()
    elif cursor.accept("not", "null"):
        kind, columns = "not_null", (ColumnDefinition(cursor.name(), ""),)
    elif cursor.accept("foreign", "key"):
        kind, columns = "foreign", _column_names(cursor)
        cursor.expect("references")
        other = _references(cursor)
    elif cursor.accept("exclude"):
        kind = "exclude"
        if cursor.accept("using"):
            cursor.name()
        cursor.group()
        _index_parameters(cursor)
        if cursor.accept("where"):
            cursor.group()
    else:
        kind = "unique" if cursor.accept("unique") else "primary"
        if kind == "primary":
            cursor.expect("primary", "key")
        if cursor.accept("using", "index"):
            flags.add("using_index")
            other = cursor.name()
        else:
            if cursor.accept("nulls"):
                cursor.accept("not")
                cursor.expect("distinct")
            columns = _column_names(cursor)
            _index_parameters(cursor)
    flags |= _modifiers(cursor)
    return SchemaOperation(
        "add_constraint",
        table,
        name=name,
        other=other,
        type=kind,
        flags=frozenset(flags),
        columns=columns,
        expression=expression,
    )


def _column_names(cursor: TokenCursor) -> tuple[ColumnDefinition, ...]:
    return tuple(
        ColumnDefinition(token.key, "") for token in cursor.group() if token.kind in {"word", "name"}
    )
