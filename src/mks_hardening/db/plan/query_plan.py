"""Query plans, obtained without side effects.

``EXPLAIN ANALYZE`` executes the statement, including data-modifying CTEs, and even plain ``EXPLAIN`` evaluates
functions labelled IMMUTABLE. On PostgreSQL everything therefore runs in a savepoint that is read-only and rolled
back. Only a single statement of a known kind is accepted; before it is executed, the statement and its plan are
searched for effects that a rollback does not undo, such as session locks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from mks_hardening._core.checks import boolean
from mks_hardening._core.optional_imports import optional
from mks_hardening.db.plan._explain_output import Plan, postgresql_plan, sqlite_plan
from mks_hardening.db.plan._read_only import (
    functions_in,
    functions_with_lasting_effects,
    query_only,
    read_only_savepoint,
    referenced_sql,
)
from mks_hardening.db.statement._lexer import tokens_of
from mks_hardening.db.statement.fingerprints import known_dialect
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session
    from sqlalchemy.sql import Executable
    from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Plan", "aexplain", "explain"]

_READS: Final = frozenset({"select", "with", "values", "table"})
_KINDS: Final = _READS | {"insert", "update", "delete", "merge", "replace"}


class _Statement(Protocol):
    """Any SQLAlchemy construct, including our own."""

    def compile(self, *, dialect: Dialect) -> object: ...


def explain(
    bind: Engine | Connection | Session, statement: Executable | str, *, analyze: bool = False
) -> Plan:
    """Return the plan of one statement without changing any data.

    Args:
        bind: where to run EXPLAIN; the transaction of a connection or session is left as it is.
        statement: a construct with its values, or SQL text (as for ``sqlalchemy.text``).
        analyze: execute the statement, read-only, and measure it (PostgreSQL only). A statement that writes fails,
            and one that calls a VOLATILE function is rejected unless it is a built-in function known to be
            harmless. The labels STABLE and IMMUTABLE are trusted, as are operators and casts.

    Raises:
        ConfigurationError: the database is not supported; ``statement`` is not exactly one statement, also if a
            rule rewrites it to several or none; it has no plan; or, with ``analyze``, a rollback could not undo its
            effects.
        sqlalchemy.exc.DBAPIError: the statement is invalid, or it writes and ``analyze`` is set.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import Connection, Engine, text
        from sqlalchemy.orm import Session, scoped_session
    boolean(analyze, parameter="analyze")
    if not isinstance(bind, (Engine, Connection, Session, scoped_session)):
        raise ConfigurationError(
            f"bind must be an Engine, a Connection or a Session, not {type(bind).__name__}", parameter="bind"
        )
    if isinstance(bind, Engine):
        with bind.connect() as connection:
            return explain(connection, statement, analyze=analyze)
    on = bind if isinstance(bind, Connection) else bind.connection()
    construct = text(statement) if isinstance(statement, str) else statement
    dialect = on.dialect.name
    words = _checked(construct, on.dialect)
    if dialect == "postgresql":
        with read_only_savepoint(on):
            if analyze:
                _check_effects(on, construct, words)
            options = "FORMAT JSON, ANALYZE" if analyze else "FORMAT JSON"
            return postgresql_plan(_run_explain(on, construct, options))
    if dialect == "sqlite" and not analyze:
        with query_only(on):
            return sqlite_plan(
                [row.detail for row in on.execute(_explain_construct(construct, "EXPLAIN QUERY PLAN"))]
            )
    raise ConfigurationError(
        f"explain does not know {dialect}{' with analyze' if analyze else ''}", parameter="bind"
    )


async def aexplain(
    bind: AsyncEngine | AsyncConnection | AsyncSession, statement: Executable | str, *, analyze: bool = False
) -> Plan:
    """``explain`` for asyncio.

    Args:
        bind: where to run EXPLAIN; the transaction of a connection or session is left as it is.
        statement: as for ``explain``.
        analyze: as for ``explain``.

    Raises:
        ConfigurationError: as for ``explain``, or ``bind`` is not asynchronous.
        sqlalchemy.exc.DBAPIError: as for ``explain``.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
    given: object = bind
    if isinstance(given, AsyncEngine):
        async with given.connect() as connection:
            return await aexplain(connection, statement, analyze=analyze)
    if not isinstance(given, (AsyncConnection, AsyncSession, async_scoped_session)):
        raise ConfigurationError(
            f"bind must be an AsyncEngine, an AsyncConnection or an AsyncSession, not {type(given).__name__}",
            parameter="bind",
        )
    run_sync: Any = cast("AsyncSession", bind).run_sync
    plan: Plan = await run_sync(explain, statement, analyze=analyze)
    return plan


def _checked(construct: object, dialect: Dialect) -> list[str]:
    """Tokens of the statement, after checking that it is a single statement that has a plan."""
    if not hasattr(construct, "compile"):
        raise ConfigurationError(
            f"statement must be a statement or SQL text, not {type(construct).__name__}",
            parameter="statement",
        )
    sql = str(cast(_Statement, construct).compile(dialect=dialect))
    # Without parameters psycopg sends the text as one simple query, and "SELECT 1; DELETE ..." would delete rows.
    words = tokens_of(sql, known_dialect(dialect.name))
    first = next((word for word in words if word != "("), "")
    allowed = _READS if words[:1] == ["("] else _KINDS
    if first not in allowed or ";" in words:
        raise ConfigurationError(
            "statement must be one SELECT, VALUES, INSERT, UPDATE, DELETE or MERGE", parameter="statement"
        )
    if first in _READS and any(
        word == "into" and before not in {"insert", "merge"} for before, word in pairwise(words)
    ):
        raise ConfigurationError(
            "statement must not be SELECT INTO, which makes a table", parameter="statement"
        )
    return words


def _run_explain(on: Connection, construct: Executable, options: str) -> list[dict[str, object]]:
    plans: list[list[dict[str, object]]] = list(
        on.execute(_explain_construct(construct, f"EXPLAIN ({options})")).scalars()
    )
    if len(plans) != 1 or len(plans[0]) != 1 or "Plan" not in plans[0][0]:
        raise ConfigurationError(
            "statement must be one after the rules of its tables as well", parameter="statement"
        )
    return plans[0]


def _check_effects(on: Connection, construct: Executable, words: list[str]) -> None:
    if any(word[:3].lower() == 'u&"' for word in words):
        raise ConfigurationError(
            'statement must write names plainly, without U&"", to be run', parameter="statement"
        )
    plan = _run_explain(on, construct, "FORMAT JSON, VERBOSE")
    # The plan shows calls in column defaults; the statement and its views show what the plan omits.
    texts = referenced_sql(on, [" ".join(words)])
    called = functions_in([*texts, *_texts_in(plan[0])])
    found = functions_with_lasting_effects(on, called) if called else []
    if found:
        raise ConfigurationError(
            f"statement calls {', '.join(found)}: what a VOLATILE function does may stay, so it is not run",
            parameter="statement",
        )


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in cast("Mapping[str, object]", value).values():
            yield from _texts_in(one)
    elif isinstance(value, list):
        for one in cast("list[object]", value):
            yield from _texts_in(one)


def _explain_construct(statement: Executable, prefix: str) -> Executable:
    made: Executable = _construct()(statement, prefix)
    return made


@cache
def _construct() -> type[Any]:
    """Construct that wraps a statement, so that SQLAlchemy binds the values of the inner statement as usual."""
    from sqlalchemy.ext.compiler import compiles
    from sqlalchemy.sql.elements import ClauseElement
    from sqlalchemy.sql.expression import Executable

    class Explain(Executable, ClauseElement):
        inherit_cache = False  # the compiled text of one statement must never be reused for another

        def __init__(self, statement: ClauseElement, prefix: str) -> None:
            self.statement = statement
            self.prefix = prefix

    @compiles(Explain)
    def render(element: Explain, compiler: SQLCompiler, **options: object) -> str:
        inner = compiler.process(element.statement, **options)
        # EXPLAIN returns rows whatever the inner statement is.
        compiler.isinsert = compiler.isupdate = compiler.isdelete = False
        return f"{element.prefix} {inner}"

    return Explain
