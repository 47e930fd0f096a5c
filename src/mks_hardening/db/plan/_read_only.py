"""Read-only sections of a caller's transaction, and detection of effects that a rollback cannot undo."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mks_hardening.db.statement._lexer import tokens_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "functions_in",
    "functions_with_lasting_effects",
    "query_only",
    "read_only_savepoint",
    "referenced_sql",
]

# Volatile functions of PostgreSQL without side effects, or that a read-only transaction rejects anyway.
_HARMLESS: Final = (
    "clock_timestamp",
    "currval",
    "gen_random_uuid",
    "lastval",
    "nextval",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "random",
    "random_normal",
    "setval",
    "timeofday",
    "uuidv4",
    "uuidv7",
)
_VOLATILE: Final = """
    SELECT DISTINCT proname FROM pg_catalog.pg_proc
    WHERE provolatile = 'v' AND proname IN :names
    AND NOT (pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND proname IN :harmless)
    ORDER BY proname
"""
# For an application's own objects: definitions of views, default arguments of functions, and functions called by
# aggregates. The catalogue marks every aggregate IMMUTABLE.
_BEHIND: Final = """
    SELECT pg_catalog.pg_get_viewdef(oid) FROM pg_catalog.pg_class
    WHERE relkind = 'v' AND relname IN :names AND relnamespace NOT IN :catalogues
    UNION SELECT pg_catalog.pg_get_function_arguments(oid) FROM pg_catalog.pg_proc
    WHERE pronargdefaults > 0 AND proname IN :names AND pronamespace NOT IN :catalogues
    UNION SELECT pg_catalog.quote_ident(called.proname) || '()'
    FROM pg_catalog.pg_proc AS named
    JOIN pg_catalog.pg_aggregate ON aggfnoid = named.oid
    JOIN pg_catalog.pg_proc AS called
    ON called.oid IN (aggtransfn, aggfinalfn, aggcombinefn, aggmtransfn, aggminvtransfn, aggmfinalfn)
    WHERE named.proname IN :names AND named.pronamespace NOT IN :catalogues
"""
_CATALOGUES: Final = """
    SELECT oid FROM pg_catalog.pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema')
"""


@contextmanager
def read_only_savepoint(connection: Connection) -> Generator[None]:
    """PostgreSQL: a read-only savepoint that is rolled back; afterwards the caller can write as before."""
    # In autocommit mode there is no transaction that could contain a savepoint.
    autocommit = bool(getattr(connection.connection.dbapi_connection, "autocommit", False))
    began_here = not connection.in_transaction()
    begin, end = (
        ("BEGIN", "ROLLBACK")
        if autocommit
        else ("SAVEPOINT mks_explain", "ROLLBACK TO SAVEPOINT mks_explain")
    )
    connection.exec_driver_sql(begin)
    try:
        # SET TRANSACTION READ ONLY could not be reverted within the transaction; SET LOCAL ends with the savepoint.
        connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
        yield
    finally:
        connection.exec_driver_sql(end)
        if not autocommit:
            connection.exec_driver_sql("RELEASE SAVEPOINT mks_explain")
        if began_here:
            connection.rollback()


@contextmanager
def query_only(connection: Connection) -> Generator[None]:
    """SQLite: make a connection read-only for the duration of the block."""
    began_here = not connection.in_transaction()
    before = connection.exec_driver_sql("PRAGMA query_only").scalar()
    connection.exec_driver_sql("PRAGMA query_only = 1")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA query_only = {int(before or 0)}")
        if began_here:
            connection.rollback()


def functions_in(texts: Iterable[str]) -> set[str]:
    """Names called in SQL texts, without their schema; includes keywords before a parenthesis."""
    called: set[str] = set()
    for text in texts:
        before = ""
        for word in tokens_of(text, "postgresql"):
            if word == "(" and before:
                called.add(_unquoted(before))
            before = word
    return called


def referenced_sql(connection: Connection, texts: Sequence[str]) -> list[str]:
    """These SQL texts and the definitions of the objects they name; plans omit a view's VALUES rows and LIMIT."""
    from sqlalchemy import bindparam, text

    catalogues = list(connection.execute(text(_CATALOGUES)).scalars())
    query = text(_BEHIND).bindparams(
        bindparam("names", expanding=True), bindparam("catalogues", expanding=True)
    )
    found = list(texts)
    known: set[str] = set()
    fresh = _names_in(found)
    while fresh:
        known |= fresh
        values = {"names": sorted(fresh), "catalogues": catalogues}
        more = [one for one in connection.execute(query, values).scalars() if one not in found]
        found += more
        fresh = _names_in(more) - known
    return found


def _names_in(texts: Iterable[str]) -> set[str]:
    words = (word for text in texts for word in tokens_of(text, "postgresql"))
    return {_unquoted(word) for word in words if word[0] == '"' or word[0].isalpha() or word[0] == "_"}


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name[0] == '"' else name


def functions_with_lasting_effects(connection: Connection, names: set[str]) -> list[str]:
    """Functions whose effects may survive a rollback: session locks, terminated backends, written files.

    The catalogue marks every function that does more than read as VOLATILE. The functions that it calls itself are
    unknown, so every volatile function counts unless it is known to be harmless.
    """
    from sqlalchemy import bindparam, text

    query = text(_VOLATILE).bindparams(
        bindparam("names", expanding=True), bindparam("harmless", expanding=True)
    )
    values = {"names": sorted(names), "harmless": list(_HARMLESS)}
    return list(connection.execute(query, values).scalars())
