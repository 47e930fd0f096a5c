"""Statements in the grammar of PostgreSQL, as far as a migration needs them.

A statement that is not known here is an error, never a statement without effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from mks_check.migrations._alter_table import read_alter_table
from mks_check.migrations._column_reader import begins_constraint, read_column, read_constraint
from mks_check.migrations._column_types import is_known_function
from mks_check.migrations._schema_operation import ColumnDefinition, OperationKind, SchemaOperation
from mks_check.migrations._sql_script import SqlStatement, SqlToken
from mks_check.migrations._token_cursor import TokenCursor, UnreadableStatementError

__all__ = ["read_statement"]

# Objects that no query locks while they are created.
_NEW_OBJECTS: Final = frozenset((
    *("schema", "extension", "sequence", "function", "procedure", "aggregate", "operator", "cast", "collation"),
    *("role", "user", "group", "statistics", "text", "server", "foreign", "event", "publication", "language"),
    *("conversion", "access", "transform", "view", "recursive", "database", "tablespace", "subscription"),
))  # fmt: skip
# Objects whose change or removal locks no table, or a table that nobody reads.
_OTHER_OBJECTS: Final = _NEW_OBJECTS | frozenset(
    {"domain", "type", "policy", "rule", "routine", "owned", "large"}
)
# Keywords that may stand before a parenthesis; every other word there is a function.
_BEFORE_PARENTHESES: Final = frozenset((
    *("all", "and", "any", "array", "as", "by", "case", "cube", "distinct", "else", "except", "exists", "filter"),
    *("from", "having", "ilike", "in", "intersect", "join", "lateral", "like", "limit", "materialized", "not"),
    *("of", "offset", "on", "or", "over", "rollup", "select", "sets", "similar", "some", "then", "to", "union"),
    *("using", "values", "when", "where", "with", "within", "between", "is", "group"),
))  # fmt: skip
_CONSTANT_WORDS: Final = frozenset(
    {"true", "false", "null", "and", "not", "is", "between", "in", "bool", "boolean"}
)
_MODES: Final = ("access", "share", "row", "exclusive", "update")


def read_statement(statement: SqlStatement) -> list[SchemaOperation]:
    """Return the operations of a statement.

    Raises:
        UnreadableStatementError: the statement is not known, or has an unknown part.
    """
    if any(token.kind == "unended" for token in statement.tokens):
        raise UnreadableStatementError("a name without end")
    cursor = TokenCursor(statement.tokens)
    first = cursor.take()
    reader = _READERS.get(first.key) if first.kind == "word" else None
    if reader is None:
        raise UnreadableStatementError(first.text)
    found = list(reader(cursor))
    cursor.end()
    return [replace(operation, line=statement.line) for operation in found]


def _one(kind: OperationKind) -> Callable[[TokenCursor], list[SchemaOperation]]:
    def read(cursor: TokenCursor) -> list[SchemaOperation]:
        cursor.rest()
        return [SchemaOperation(kind)]

    return read


# --- transactions and settings


def _read_start(cursor: TokenCursor) -> list[SchemaOperation]:
    cursor.expect("transaction")
    cursor.rest()
    return [SchemaOperation("begin")]


def _read_rollback(cursor: TokenCursor) -> list[SchemaOperation]:
    cursor.accept_one_of("work", "transaction")
    if cursor.accept("to"):
        cursor.rest()
        return [SchemaOperation("harmless")]
    if not cursor.is_at_end and not cursor.comes("and"):
        raise UnreadableStatementError("ROLLBACK")
    cursor.rest()
    return [SchemaOperation("rollback")]


def _read_set(cursor: TokenCursor) -> list[SchemaOperation]:
    local = cursor.accept_one_of("local", "session") == "local"
    name = cursor.take().key
    if name not in {"lock_timeout", "statement_timeout"}:
        cursor.rest()
        return [SchemaOperation("harmless")]
    if not cursor.accept("to"):
        cursor.expect("=")
    value = " ".join(token.text for token in cursor.rest())
    flags = frozenset(["local"] if local else [])
    return [SchemaOperation("set_timeout", name=name, type=value, flags=flags)]


def _read_reset(cursor: TokenCursor) -> list[SchemaOperation]:
    name = cursor.take().key
    cursor.rest()
    names = ("lock_timeout",) if name in {"lock_timeout", "all"} else ()
    return [SchemaOperation("set_timeout", name=name, type="default") for name in names] or [
        SchemaOperation("harmless")
    ]


def _read_select(cursor: TokenCursor) -> list[SchemaOperation]:
    call = ("pg_catalog", ".", "set_config") if cursor.comes("pg_catalog") else ("set_config",)
    if cursor.accept(*call):
        arguments = [token.text for token in cursor.group() if token.text != ","]
        if len(arguments) == 3 and arguments[0].strip("'") == "lock_timeout":
            cursor.rest()
            flags = frozenset(["local"] if arguments[2].lower() == "true" else [])
            return [SchemaOperation("set_timeout", name="lock_timeout", type=arguments[1], flags=flags)]
    return [_query(cursor.rest())]


def _query(tokens: Sequence[SqlToken]) -> SchemaOperation:
    """Return a query with the names of the functions whose effects are unknown."""
    called = [
        name.key
        for before, name, after in zip((None, *tokens), tokens, tokens[1:], strict=False)
        if after.text == "("
        and (name.kind == "name" or (name.kind == "word" and name.key not in _BEFORE_PARENTHESES))
        and not is_known_function(name.key)
        # AS t (a, b), and the same without AS.
        and not (before is not None and (before.is_word("as") or before.text == ")"))
    ]
    return SchemaOperation("query", name=", ".join(dict.fromkeys(called)))


# --- CREATE


def _read_create(cursor: TokenCursor) -> list[SchemaOperation]:
    replaced = cursor.accept("or", "replace")
    flags = {"temporary"} if cursor.accept_one_of("temp", "temporary") else set[str]()
    cursor.accept_one_of("unlogged")
    if cursor.accept("table"):
        return _create_table(cursor, flags)
    if cursor.comes_one_of("unique", "index"):
        return [_create_index(cursor)]
    if cursor.accept("domain"):
        return [_create_domain(cursor)]
    if cursor.accept("type"):
        name = cursor.qualified_name()
        cursor.rest()
        return [SchemaOperation("create_type", name=name)]
    if cursor.accept("materialized", "view"):
        cursor.rest()
        return [SchemaOperation("create_materialized_view")]
    if cursor.accept("view"):
        name = cursor.qualified_name()
        cursor.rest()
        if flags:  # temporary: of this session alone
            return [SchemaOperation("harmless")]
        return [
            SchemaOperation("replace_view", name) if replaced else SchemaOperation("create_view", name=name)
        ]
    if cursor.comes_one_of("constraint", "trigger"):
        cursor.accept("constraint")
        cursor.expect("trigger")
        return [SchemaOperation("create_trigger", _table_after_on(cursor))]
    if cursor.accept_one_of("policy", "rule"):
        # CREATE RULE … AS ON event TO table; CREATE POLICY … ON table.
        rest = cursor.rest()
        tables = [
            after.key
            for before, after in pairwise(rest)
            if before.is_word("to", "on") and not after.is_word("select", "insert", "update", "delete")
        ]
        return [SchemaOperation("lock_briefly", tables[0] if tables else "")]
    if cursor.take().key in _NEW_OBJECTS:
        cursor.rest()
        return [SchemaOperation("harmless")]
    raise UnreadableStatementError("CREATE")


def _table_after_on(cursor: TokenCursor) -> str:
    while not cursor.is_at_end:
        if cursor.accept("on"):
            table = cursor.qualified_name()
            cursor.rest()
            return table
        cursor.take()
    raise UnreadableStatementError("ON")


def _create_table(cursor: TokenCursor, flags: set[str]) -> list[SchemaOperation]:
    if cursor.accept("if", "not", "exists"):
        flags.add("if_not_exists")
    table = cursor.qualified_name()
    if cursor.accept("partition", "of"):
        parent = cursor.qualified_name()
        cursor.rest()
        return [SchemaOperation("create_table", table, other=parent, flags=frozenset({*flags, "partition"}))]
    columns: list[ColumnDefinition] = []
    tables: list[str] = []
    constraints: list[SchemaOperation] = []
    is_list = cursor.comes("(") and not _is_query(cursor)
    if is_list:
        cursor.expect("(")
        while not cursor.accept(")"):
            if cursor.accept("like"):
                cursor.qualified_name()
                cursor.until_comma()
            elif begins_constraint(cursor):
                constraint = read_constraint(cursor, table)
                tables += [constraint.other] if constraint.type == "foreign" else []
                constraints.append(constraint)
            else:
                column = read_column(cursor)
                columns.append(column)
                tables += [column.references] if column.references else []
            if not cursor.accept(","):
                cursor.expect(")")
                break
    rest = cursor.until_depth_zero("as")
    query = _read_part(cursor) if cursor.accept("as") else []
    if any(before.is_word("partition") and after.is_word("by") for before, after in pairwise(rest)):
        flags.add("partitioned")
    if not (is_list or query or any(token.is_word("of") for token in rest)):
        raise UnreadableStatementError("CREATE TABLE")
    created = SchemaOperation(
        "create_table",
        table,
        columns=tuple(columns),
        tables=tuple(dict.fromkeys(tables)),
        flags=frozenset(flags),
    )
    # With IF NOT EXISTS, a table that exists may have other constraints.
    return [created, *query, *([] if "if_not_exists" in flags else constraints)]


def _is_query(cursor: TokenCursor) -> bool:
    following = cursor.peek(1)
    return following is not None and following.is_word("select", "with", "values")


def _create_index(cursor: TokenCursor) -> SchemaOperation:
    flags = {"unique"} if cursor.accept("unique") else set[str]()
    cursor.expect("index")
    if cursor.accept("concurrently"):
        flags.add("concurrently")
    if cursor.accept("if", "not", "exists"):
        flags.add("if_not_exists")
    name = "" if cursor.comes("on") else cursor.qualified_name()
    cursor.expect("on")
    if cursor.accept("only"):
        flags.add("only")
    table = cursor.qualified_name()
    if cursor.accept("using"):
        cursor.name()
    cursor.group()
    cursor.rest()
    return SchemaOperation("create_index", table, name=name, flags=frozenset(flags))


def _create_domain(cursor: TokenCursor) -> SchemaOperation:
    name = cursor.qualified_name()
    rest = cursor.rest()
    checked = any(
        before.is_word("check") or (before.is_word("not") and after.is_word("null"))
        for before, after in pairwise(rest)
    )
    return SchemaOperation("create_domain", name=name, flags=frozenset(["check"] if checked else []))


# --- DROP and ALTER


def _read_drop(cursor: TokenCursor) -> list[SchemaOperation]:
    if cursor.accept("table"):
        return _drop_each(cursor, "drop_table")
    if cursor.accept("index"):
        concurrently = cursor.accept("concurrently")
        cursor.accept("if", "exists")
        names = cursor.names()
        cursor.accept_one_of("cascade", "restrict")
        flags = frozenset(["concurrently"] if concurrently else [])
        return [SchemaOperation("drop_index", name=name, flags=flags) for name in names]
    if cursor.accept("view") or cursor.accept("materialized", "view"):
        return _drop_each(cursor, "drop_view")
    if cursor.comes_one_of("trigger", "policy", "rule"):
        cursor.take()
        return [SchemaOperation("drop_trigger", _table_after_on(cursor))]
    if cursor.accept_one_of("schema", "database", "owned"):
        name = cursor.rest()
        return [SchemaOperation("drop_table", name[-1].key if name else "")]
    if cursor.take().key in _OTHER_OBJECTS:
        cursor.rest()
        return [SchemaOperation("harmless")]
    raise UnreadableStatementError("DROP")


def _drop_each(cursor: TokenCursor, kind: OperationKind) -> list[SchemaOperation]:
    cursor.accept("if", "exists")
    names = cursor.names()
    cursor.accept_one_of("cascade", "restrict")
    return [SchemaOperation(kind, name) for name in names]


def _read_alter(cursor: TokenCursor) -> list[SchemaOperation]:
    if cursor.accept("table"):
        if cursor.comes("all", "in", "tablespace"):
            raise UnreadableStatementError("ALTER TABLE ALL")
        return read_alter_table(cursor)
    if cursor.accept("type"):
        return [_alter_type(cursor)]
    if cursor.accept("index"):
        cursor.accept("if", "exists")
        name = cursor.qualified_name()
        if cursor.comes_one_of("rename", "attach", "set", "reset", "alter", "no", "depends"):
            cursor.rest()
            return [SchemaOperation("lock_weakly", name=name)]
        raise UnreadableStatementError("ALTER INDEX")
    if cursor.accept("view") or cursor.accept("materialized", "view"):
        cursor.accept("if", "exists")
        name = cursor.qualified_name()
        renamed = cursor.comes_one_of("rename")
        cursor.rest()
        return [SchemaOperation("rename_table" if renamed else "replace_view", name)]
    if cursor.accept_one_of("policy", "trigger", "rule"):
        return [SchemaOperation("lock_briefly", _table_after_on(cursor))]
    if cursor.accept("domain"):
        return [_alter_domain(cursor)]
    if cursor.accept("schema"):
        name = cursor.name()
        renamed = cursor.comes_one_of("rename")
        cursor.rest()
        return [SchemaOperation("rename_schema" if renamed else "harmless", name=name)]
    if cursor.take().key in _OTHER_OBJECTS:
        cursor.rest()
        return [SchemaOperation("harmless")]
    raise UnreadableStatementError("ALTER")


def _alter_type(cursor: TokenCursor) -> SchemaOperation:
    name = cursor.qualified_name()
    if cursor.accept("add", "value"):
        cursor.accept("if", "not", "exists")
        value = cursor.take().text
        cursor.rest()
        return SchemaOperation("add_enum_value", name=name, other=value)
    if cursor.accept("rename", "value"):
        cursor.rest()
        return SchemaOperation("rename_enum_value", name=name)
    if cursor.comes_one_of("rename", "owner", "set"):
        cursor.rest()
        return SchemaOperation("harmless", name=name)
    # ADD, DROP and ALTER ATTRIBUTE may rewrite the tables that use the type.
    raise UnreadableStatementError("ALTER TYPE")


def _alter_domain(cursor: TokenCursor) -> SchemaOperation:
    name = cursor.qualified_name()
    rest = cursor.rest()
    words = [token.key for token in rest]
    if words[:1] in (["validate"], ["rename"], ["owner"], ["drop"]) or words[-2:] == ["not", "valid"]:
        return SchemaOperation("harmless", name=name)
    if words[:2] in (["set", "default"], ["set", "schema"]):
        return SchemaOperation("harmless", name=name)
    # ADD and SET NOT NULL check every table that uses the domain, under a SHARE lock.
    return SchemaOperation("alter_constraint", name=name, flags=frozenset(["domain"]))


# --- data and maintenance


def _read_update(cursor: TokenCursor) -> list[SchemaOperation]:
    cursor.accept("only")
    table = cursor.qualified_name()
    return [_rows(cursor, table)]


def _read_delete(cursor: TokenCursor) -> list[SchemaOperation]:
    cursor.expect("from")
    cursor.accept("only")
    return [_rows(cursor, cursor.qualified_name())]


def _rows(cursor: TokenCursor, table: str) -> SchemaOperation:
    cursor.until_depth_zero("where", "returning")
    while cursor.accept(","):  # of SET
        cursor.until_depth_zero("where", "returning")
    is_restricted = cursor.accept("where") and _depends_on_rows(cursor)
    cursor.rest()
    return SchemaOperation("rewrite_rows", table, flags=frozenset(["where"] if is_restricted else []))


def _depends_on_rows(cursor: TokenCursor) -> bool:
    """Whether a condition excludes rows: ``true`` and ``1 = 1 OR a = 2`` do not."""
    while True:
        alternative = cursor.until_depth_zero("or", "returning")
        words = [token.key for token in alternative if token.kind in {"word", "name"}]
        if words != ["false"] and all(word in _CONSTANT_WORDS for word in words):
            return False
        if not cursor.accept("or"):
            return True


def _read_insert(cursor: TokenCursor) -> list[SchemaOperation]:
    cursor.expect("into")
    table = cursor.qualified_name()
    before = cursor.until_depth_zero("select", "with")
    changes = _read_with(cursor) if cursor.accept("with") else []
    is_query = changes or any(token.is_word("select", "with") for token in (*before, *cursor.rest()))
    return [SchemaOperation("insert", table, flags=frozenset(["query"] if is_query else [])), *changes]


def _read_with(cursor: TokenCursor) -> list[SchemaOperation]:
    """Read common table expressions, which may change rows, and the statement that uses them."""
    cursor.accept("recursive")
    found: list[SchemaOperation] = []
    while True:
        cursor.name()
        if cursor.comes("("):
            cursor.group()
        cursor.expect("as")
        cursor.accept("not")
        cursor.accept("materialized")
        found += _read_part(TokenCursor(cursor.group()))
        if not cursor.accept(","):
            break
    # SEARCH and CYCLE may follow.
    cursor.until_depth_zero(*_PARTS)
    return [*found, *_read_part(cursor)]


def _read_part(cursor: TokenCursor) -> list[SchemaOperation]:
    for word, read in _PARTS.items():
        if cursor.accept(word):
            return list(read(cursor))
    return [_query(cursor.rest())]


def _read_truncate(cursor: TokenCursor) -> list[SchemaOperation]:
    cursor.accept("table")
    cursor.accept("only")
    names = cursor.names()
    cursor.rest()
    return [SchemaOperation("truncate", name) for name in names]


def _read_lock(cursor: TokenCursor) -> list[SchemaOperation]:
    cursor.accept("table")
    cursor.accept("only")
    names = cursor.names()
    mode = "access exclusive"
    if cursor.accept("in"):
        words: list[str] = []
        while word := cursor.accept_one_of(*_MODES):
            words.append(word)
        cursor.expect("mode")
        mode = " ".join(words)
    cursor.accept("nowait")
    return [SchemaOperation("lock_table", name, type=mode) for name in names]


def _read_vacuum(cursor: TokenCursor) -> list[SchemaOperation]:
    options = cursor.group() if cursor.comes("(") else ()
    full = cursor.accept("full") or any(token.is_word("full") for token in options)
    names = [token.key for token in cursor.rest() if not token.is_word("verbose", "analyze", "freeze")]
    return [SchemaOperation("vacuum", names[0] if names else "", flags=frozenset(["full"] if full else []))]


def _read_cluster(cursor: TokenCursor) -> list[SchemaOperation]:
    cursor.accept("verbose")
    table = "" if cursor.is_at_end else cursor.qualified_name()
    cursor.rest()
    return [SchemaOperation("cluster", table)]


def _read_reindex(cursor: TokenCursor) -> list[SchemaOperation]:
    options = cursor.group() if cursor.comes("(") else ()
    kind = cursor.accept_one_of("index", "table", "schema", "database", "system")
    if not kind:
        raise UnreadableStatementError("REINDEX")
    concurrently = cursor.accept("concurrently") or any(token.is_word("concurrently") for token in options)
    name = cursor.qualified_name()
    flags = frozenset(["concurrently"] if concurrently else [])
    return [SchemaOperation("reindex", name if kind == "table" else "", name=name, flags=flags)]


def _read_refresh(cursor: TokenCursor) -> list[SchemaOperation]:
    cursor.expect("materialized", "view")
    concurrently = cursor.accept("concurrently")
    name = cursor.qualified_name()
    cursor.rest()
    return [SchemaOperation("refresh", name, flags=frozenset(["concurrently"] if concurrently else []))]


def _read_copy(cursor: TokenCursor) -> list[SchemaOperation]:
    rest = cursor.rest()
    reads = any(token.is_word("to") for token in rest)
    return [SchemaOperation("query" if reads else "insert", rest[0].key if rest else "")]


_READERS: Final[dict[str, Callable[[TokenCursor], Iterable[SchemaOperation]]]] = {
    "abort": _read_rollback,
    "alter": _read_alter,
    "analyze": _one("lock_weakly"),
    "begin": _one("begin"),
    "call": _one("dynamic"),
    "cluster": _read_cluster,
    "comment": _one("lock_weakly"),
    "commit": _one("commit"),
    "copy": _read_copy,
    "create": _read_create,
    "deallocate": _one("harmless"),
    "delete": _read_delete,
    "discard": _one("harmless"),
    "do": _one("dynamic"),
    "drop": _read_drop,
    "end": _one("commit"),
    "execute": _one("dynamic"),
    "explain": _one("dynamic"),
    "grant": _one("harmless"),
    "insert": _read_insert,
    "lock": _read_lock,
    "merge": _one("rewrite_rows"),
    "notify": _one("harmless"),
    "refresh": _read_refresh,
    "reindex": _read_reindex,
    "release": _one("harmless"),
    "reset": _read_reset,
    "revoke": _one("harmless"),
    "rollback": _read_rollback,
    "savepoint": _one("harmless"),
    "select": _read_select,
    "set": _read_set,
    "show": _one("harmless"),
    "start": _read_start,
    "table": _one("query"),
    "truncate": _read_truncate,
    "update": _read_update,
    "vacuum": _read_vacuum,
    "values": _read_select,
    "with": _read_with,
}
_PARTS: Final[dict[str, Callable[[TokenCursor], Iterable[SchemaOperation]]]] = {
    word: _READERS[word] for word in ("delete", "insert", "merge", "select", "update", "values", "with")
}
"""Statements that may contain, or follow, a common table expression."""
