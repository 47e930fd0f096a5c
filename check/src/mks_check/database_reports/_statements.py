"""Statements by the time that they take, and candidates for N+1, from ``pg_stat_statements``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_check.database_reports._client import Client
from mks_check.database_reports._report import DatabaseReport, Row, Section, in_short
from mks_hardening.db.statement.fingerprints import fingerprint, normalize_sql

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["INSTALL", "RawStatement", "merged", "n_plus_one", "raw_statements", "top"]

INSTALL: Final = (
    "pg_stat_statements is not available: add it to shared_preload_libraries, restart the server, and run CREATE "
    "EXTENSION pg_stat_statements"
)
_EXTENSION: Final = """
    SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_stat_statements' AND EXISTS (
        SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relname = 'pg_stat_statements' AND c.relnamespace = n.oid AND a.attname = 'total_exec_time'
    )
"""
_STATEMENTS: Final = """
    SELECT s.query, s.calls, s.total_exec_time AS total_ms, s.max_exec_time AS max_ms, s.rows,
           s.shared_blks_hit AS hit, s.shared_blks_read AS read
    FROM {schema}.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
    WHERE d.datname = current_database() AND s.query IS NOT NULL
"""
_RUNNING: Final = """
    SELECT a.pid, a.application_name AS application,
           extract(epoch FROM clock_timestamp() - a.query_start)::float8 AS seconds,
           coalesce(a.wait_event, '') AS waits_for, a.query
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.state = 'active' AND a.pid <> pg_backend_pid()
      AND a.backend_type = 'client backend' AND a.query_start IS NOT NULL
    ORDER BY a.query_start LIMIT :most
"""


def top(connection: Connection, *, most: int, client: Client | None = None) -> DatabaseReport:
    """Report the statements that took the most time in total; facts, no findings.

    Args:
        connection: read-only connection.
        most: maximum number of statements.
        client: what the application has measured, which includes the network and waiting for rows.
    """
    from sqlalchemy import text

    running = [
        {
            "pid": row.pid,
            "application": row.application,
            "seconds": in_short(row.seconds),
            "waits for": row.waits_for,
            "statement": normalize_sql(row.query),
        }
        for row in connection.execute(text(_RUNNING), {"most": most})
    ]
    known = _statements(connection)
    measured: Mapping[str, Row] = client.statements if client is not None else {}
    sections = [Section(title="running now, the longest first", rows=running)]
    notes = () if known is not None else (INSTALL,)
    if known is not None:
        total = sum(float(str(row["total ms"])) for row in known) or 1.0
        rows = [
            {"share %": in_short(100 * float(str(row["total ms"])) / total), **_beside(row, measured, client)}
            for row in known[:most]
        ]
        sections.insert(
            0, Section(title="statements by total time since the statistics were reset", rows=rows)
        )
    if measured:
        listed = {str(row["fingerprint"]) for row in (known or [])[:most]}
        others = [{"fingerprint": name, **row} for name, row in measured.items() if name not in listed]
        sections.insert(
            -1, Section(title="other statements as the application measures them", rows=others[:most])
        )
    return DatabaseReport(sections=sections, notes=notes)


def _beside(row: Row, measured: Mapping[str, Row], client: Client | None) -> Row:
    """A row of the server, with what the application has measured before the text."""
    if client is None:
        return row
    own: Row = measured.get(str(row["fingerprint"]), {})
    figures = {name: value for name, value in row.items() if name != "statement"}
    for name in ("calls", "total ms", "p95 ms", "caller"):
        figures[f"client {name}"] = own.get(name, "")
    return {**figures, "statement": row["statement"]}


def n_plus_one(connection: Connection, *, most: int, calls: int) -> DatabaseReport:
    """Report statements that read one row, or none, very often.

    Args:
        connection: read-only connection.
        most: maximum number of statements.
        calls: number of calls from which a statement is a candidate.
    """
    known = _statements(connection)
    found = [
        {name: row[name] for name in ("fingerprint", "calls", "rows per call", "mean ms", "statement")}
        for row in sorted(known or [], key=lambda row: -int(str(row["calls"])))
        if int(str(row["calls"])) >= calls
        and float(str(row["rows per call"])) <= 1
        and _reads_by_value(str(row["statement"]))
    ]
    advice = (
        "a server cannot tell a loop from many requests: run the page in watch_queries(), which names the line and "
        "the loader option"
    )
    section = Section(title="statements that often read one row", rows=found[:most], advice=advice)
    if known is None:
        return DatabaseReport(sections=[], notes=[INSTALL], is_possible=False)
    return DatabaseReport(sections=[section])


def _reads_by_value(statement: str) -> bool:
    condition = statement.partition(" where ")[2]
    return statement.startswith("select ") and " from " in statement and "= ?" in condition


class RawStatement(NamedTuple):
    """One statement with the text that the server can plan.

    Attributes:
        fingerprint: fingerprint.
        query: text with placeholders; a utility statement may contain values.
        statement: text without values.
        total_ms: total time of all statements with this fingerprint.
    """

    fingerprint: str
    query: str
    statement: str
    total_ms: float


def raw_statements(connection: Connection) -> list[RawStatement] | None:
    """Statements of this database by total time, or ``None`` without ``pg_stat_statements``."""
    rows = _rows(connection)
    if rows is None:
        return None
    queries = {fingerprint(str(row["query"])): str(row["query"]) for row in rows}
    return [
        RawStatement(
            fingerprint=str(row["fingerprint"]),
            query=queries[str(row["fingerprint"])],
            statement=str(row["statement"]),
            total_ms=float(str(row["total ms"])),
        )
        for row in merged(rows)
    ]


def _statements(connection: Connection) -> list[Row] | None:
    """All statements of this database by total time, or ``None`` without the extension."""
    rows = _rows(connection)
    return None if rows is None else merged(rows)


def _rows(connection: Connection) -> list[Row] | None:
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    schema = connection.execute(text(_EXTENSION)).scalar()
    if schema is None:
        return None
    try:
        with connection.begin_nested():
            rows = connection.execute(text(_STATEMENTS.format(schema=schema))).mappings().all()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "55000":  # installed, but not loaded
            return None
        raise
    return [dict(row) for row in rows]


def merged(rows: Sequence[Row]) -> list[Row]:
    """Merge statements with the same fingerprint, and sort them by total time.

    PostgreSQL tells lists of different lengths and callers with different search paths apart, and keeps literals of
    some statements; fingerprints are the same as in the application's log.

    Args:
        rows: with ``query``, ``calls``, ``total_ms``, ``max_ms``, ``rows``, ``hit`` and ``read``.
    """
    sums: dict[str, dict[str, float]] = {}
    texts: dict[str, str] = {}
    for row in rows:
        query = str(row["query"])
        name = fingerprint(query)
        texts.setdefault(name, normalize_sql(query))
        here = sums.setdefault(
            name, dict.fromkeys(("calls", "total_ms", "max_ms", "rows", "hit", "read"), 0.0)
        )
        for key in here:
            value = float(str(row[key] or 0))
            here[key] = max(here[key], value) if key == "max_ms" else here[key] + value
    found: list[Row] = []
    for name, one in sorted(sums.items(), key=lambda item: -item[1]["total_ms"]):
        calls, blocks = max(1.0, one["calls"]), one["hit"] + one["read"]
        found.append(
            {
                "total ms": in_short(one["total_ms"]),
                "calls": int(one["calls"]),
                "mean ms": round(one["total_ms"] / calls, 3),
                "max ms": in_short(one["max_ms"]),
                "rows per call": in_short(one["rows"] / calls),
                "cache %": in_short(100 * one["hit"] / blocks) if blocks else 100,
                "fingerprint": name,
                "statement": texts[name],
            }
        )
    return found
