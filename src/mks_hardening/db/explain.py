"""The plan of a statement, obtained so that asking can change nothing.

``EXPLAIN ANALYZE`` runs the statement, a data-modifying CTE included, and even plain ``EXPLAIN`` evaluates
functions that are labelled IMMUTABLE. So on PostgreSQL everything happens inside a savepoint that is made
read-only and rolled back; the caller's transaction can write again afterwards. One statement of a known kind is
accepted, no more.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mks_hardening._core.lazy import optional
from mks_hardening.db.sql_fingerprint import known_dialect, normalize_sql
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session
    from sqlalchemy.sql import Executable

__all__ = ["Plan", "explain"]

_READS: Final = frozenset({"select", "with", "values", "table"})
_INDEX: Final = re.compile(r"USING (?:COVERING )?INDEX (\S+)")
_KINDS: Final = _READS | {"insert", "update", "delete", "merge", "replace"}


class Plan(NamedTuple):
    """How the database would execute, or did execute, a statement.

    Attributes:
        text: the plan for people, one step a line; filters in it hold the statement's values.
        full_scans: tables that are read from beginning to end.
        indexes: indexes that are used.
        cost: the planner's estimate in its own unit; None on SQLite.
        execution_ms: time it took, with ``analyze``.
        tree: PostgreSQL's plan as it came; empty on SQLite.
    """

    text: str
    full_scans: tuple[str, ...]
    indexes: tuple[str, ...]
    cost: float | None
    execution_ms: float | None
    tree: dict[str, Any]

    def __str__(self) -> str:
        return self.text


def explain(
    bind: Engine | Connection | Session, statement: Executable | str, *, analyze: bool = False
) -> Plan:
    """The plan of one statement, without changing anything.

    Args:
        bind: where to ask; the transaction of a connection or session stays as it is.
        statement: a construct with its values, or SQL text (then as for ``sqlalchemy.text``).
        analyze: run it, read-only, and measure (PostgreSQL only); a statement that writes fails.

    Raises:
        ConfigurationError: another database, more than one statement, or one that has no plan.
        sqlalchemy.exc.DBAPIError: the statement is wrong, or wrote something with ``analyze``.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import Engine, text
    if isinstance(bind, Engine):
        with bind.connect() as connection:
            return explain(connection, statement, analyze=analyze)
    caller: Any = bind
    on = caller.connection() if hasattr(caller, "get_bind") else caller
    construct: Any = text(statement) if isinstance(statement, str) else statement
    dialect = on.dialect.name
    _check(construct, on.dialect)
    if dialect == "postgresql":
        with _read_only(on):
            prefix = f"EXPLAIN (FORMAT JSON{', ANALYZE' if analyze else ''})"
            return _postgresql_plan(on.execute(_construct()(construct, prefix)).scalar_one())
    if dialect == "sqlite" and not analyze:
        with _query_only(on):
            return _sqlite_plan(
                [row.detail for row in on.execute(_construct()(construct, "EXPLAIN QUERY PLAN"))]
            )
    raise ConfigurationError(
        f"explain does not know {dialect}{' with analyze' if analyze else ''}", parameter="bind"
    )


def _check(construct: Any, dialect: Any) -> None:
    if not hasattr(construct, "compile"):
        raise ConfigurationError(
            f"statement must be a statement or SQL text, not {type(construct).__name__}",
            parameter="statement",
        )
    words = normalize_sql(str(construct.compile(dialect=dialect)), dialect=known_dialect(dialect.name))
    first, _, rest = words.lstrip("(").partition(" ")
    allowed = _READS if words.startswith("(") else _KINDS
    if first.partition("(")[0] not in allowed or ";" in rest:
        raise ConfigurationError(
            "statement must be one SELECT, VALUES, INSERT, UPDATE, DELETE or MERGE", parameter="statement"
        )


@contextmanager
def _read_only(connection: Any) -> Generator[None]:
    autocommit = bool(getattr(connection.connection.driver_connection, "autocommit", False))
    began_here = not connection.in_transaction()
    begin, end = (
        ("BEGIN", "ROLLBACK")
        if autocommit
        else ("SAVEPOINT mks_explain", "ROLLBACK TO SAVEPOINT mks_explain")
    )
    connection.exec_driver_sql(begin)
    try:
        connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
        yield
    finally:
        connection.exec_driver_sql(end)
        if not autocommit:
            connection.exec_driver_sql("RELEASE SAVEPOINT mks_explain")
        if began_here:
            connection.rollback()


@contextmanager
def _query_only(connection: Any) -> Generator[None]:
    began_here = not connection.in_transaction()
    before = connection.exec_driver_sql("PRAGMA query_only").scalar()
    connection.exec_driver_sql("PRAGMA query_only = 1")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA query_only = {int(before)}")
        if began_here:
            connection.rollback()


@cache
def _construct() -> type[Any]:
    """A statement around a statement, so that SQLAlchemy binds the inner one's values as always."""
    from sqlalchemy.ext.compiler import compiles
    from sqlalchemy.sql.elements import ClauseElement
    from sqlalchemy.sql.expression import Executable

    class Explain(Executable, ClauseElement):
        inherit_cache = False

        def __init__(self, statement: Any, prefix: str) -> None:
            self.statement = statement
            self.prefix = prefix

    @compiles(Explain)
    def render(element: Any, compiler: Any, **options: Any) -> str:
        inner = compiler.process(element.statement, **options)
        compiler.isinsert = compiler.isupdate = compiler.isdelete = (
            False  # it returns rows whatever is inside
        )
        return f"{element.prefix} {inner}"

    return Explain


def _postgresql_plan(answer: Any) -> Plan:
    (whole,) = answer
    nodes = list(_nodes(whole["Plan"], 0))
    return Plan(
        "\n".join("  " * depth + _described(node) for node, depth in nodes),
        tuple(dict.fromkeys(node["Relation Name"] for node, _ in nodes if node["Node Type"] == "Seq Scan")),
        tuple(dict.fromkeys(node["Index Name"] for node, _ in nodes if "Index Name" in node)),
        whole["Plan"]["Total Cost"],
        whole.get("Execution Time"),
        whole,
    )


def _nodes(node: dict[str, Any], depth: int) -> Iterator[tuple[dict[str, Any], int]]:
    yield node, depth
    for child in node.get("Plans", ()):
        yield from _nodes(child, depth + 1)


def _described(node: dict[str, Any]) -> str:
    target = node.get("Index Name") or node.get("Relation Name")
    parts = [node["Node Type"], *([f"on {target}"] if target else [])]
    parts += [f"({name}: {node[name]})" for name in ("Index Cond", "Filter", "Recheck Cond") if name in node]
    parts.append(f"rows={node['Plan Rows']} cost={node['Total Cost']}")
    if "Actual Total Time" in node:
        parts.append(
            f"actual rows={node['Actual Rows']} loops={node['Actual Loops']} ms={node['Actual Total Time']}"
        )
    return " ".join(parts)


def _sqlite_plan(details: list[str]) -> Plan:
    scans = (
        detail.split()[1] for detail in details if detail.startswith("SCAN ") and " INDEX " not in detail
    )
    indexes = (found[1] for found in map(_INDEX.search, details) if found)
    return Plan(
        "\n".join(details), tuple(dict.fromkeys(scans)), tuple(dict.fromkeys(indexes)), None, None, {}
    )
