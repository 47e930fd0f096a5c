"""Sessions that block others, and sessions that are idle in a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mks_check.database_reports._client import Client
from mks_check.database_reports._report import DatabaseReport, Row, Section, in_short
from mks_hardening.db.statement.fingerprints import normalize_sql

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Backend", "blocking_tree", "locks"]

# In one statement, so that the sessions and their locks are of the same moment.
_SESSIONS: Final = """
    SELECT a.pid, coalesce(a.application_name, '') AS application, coalesce(a.usename, '') AS role,
           coalesce(a.state, '') AS state,
           coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS transaction_seconds,
           coalesce(extract(epoch FROM clock_timestamp() - a.state_change), 0)::float8 AS state_seconds,
           CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid) ELSE '{}' END AS blocked_by,
           coalesce((
               SELECT string_agg(DISTINCT l.mode || coalesce(' on ' || c.relname, ''), ', ')
               FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation
               WHERE l.pid = a.pid AND NOT l.granted
           ), '') AS waits_for,
           coalesce(a.query, '') AS query
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
"""
_PREPARED: Final = """
    SELECT left(gid, 40) AS name, owner AS role, extract(epoch FROM clock_timestamp() - prepared)::float8 AS seconds
    FROM pg_prepared_xacts
    WHERE database = current_database() AND prepared < clock_timestamp() - :old * interval '1 s'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One session of the server.

    Attributes:
        pid: process number.
        blocked_by: process numbers that it waits for; 0 is a prepared transaction.
        row: what the report shows.
    """

    pid: int
    blocked_by: Sequence[int]
    row: Row


def locks(connection: Connection, *, idle_seconds: float, client: Client | None = None) -> DatabaseReport:
    """Report who waits for whom, and who holds a transaction open without working.

    Args:
        connection: read-only connection.
        idle_seconds: duration from which an idle transaction is a finding.
        client: holders of connections in the application.
    """
    from sqlalchemy import text

    sessions = connection.execute(text(_SESSIONS)).all()
    backends = {
        one.pid: Backend(
            pid=one.pid,
            blocked_by=tuple(one.blocked_by),
            row={
                "application": one.application,
                "role": one.role,
                "state": one.state,
                "transaction s": in_short(one.transaction_seconds),
                "waits for": one.waits_for,
                **({} if client is None else {"held by": client.holders.get(one.pid, "")}),
                "last statement": normalize_sql(one.query),
            },
        )
        for one in sessions
    }
    idle = [
        {"pid": one.pid, "idle s": in_short(one.state_seconds), **backends[one.pid].row}
        for one in sorted(sessions, key=lambda one: -one.state_seconds)
        if one.state.startswith("idle in transaction") and one.state_seconds >= idle_seconds
    ]
    prepared = [
        {"name": one.name, "role": one.role, "seconds": in_short(one.seconds)}
        for one in connection.execute(text(_PREPARED), {"old": idle_seconds})
    ]
    return DatabaseReport(
        sections=[
            Section(
                title="blocking trees: each session waits for the one above it",
                rows=blocking_tree(backends),
                advice="end the transaction at the root, in its application or by pg_terminate_backend(pid)",
            ),
            Section(
                title=f"idle in a transaction for {idle_seconds:g} s or more",
                rows=idle,
                advice="they hold locks and keep VACUUM from removing rows: commit before waiting for anything "
                "else, and set idle_in_transaction_timeout",
            ),
            Section(
                title=f"transactions prepared {idle_seconds:g} s ago or earlier",
                rows=prepared,
                advice="they survive their session: COMMIT PREPARED or ROLLBACK PREPARED",
            ),
        ]
    )


def blocking_tree(backends: Mapping[int, Backend]) -> list[Row]:
    """Order sessions that block or wait: each one below what it waits for, with its depth in ``pid``.

    Args:
        backends: sessions by process number; they may wait for each other in a circle (a deadlock that the server
            has not resolved yet), or for a session that is not among them.
    """
    waiting: dict[int, list[int]] = {}
    for backend in backends.values():
        for blocker in dict.fromkeys(backend.blocked_by):
            waiting.setdefault(blocker, []).append(backend.pid)
    roots = [pid for pid in waiting if pid not in backends or not backends[pid].blocked_by]
    rows: list[Row] = []
    shown: set[int] = set()
    # A circle has no root: what is left begins anywhere.
    for start in (*roots, *sorted(waiting)):
        pending = [(start, 0)] if start not in shown else []
        while pending:
            pid, depth = pending.pop()
            if pid in shown:
                continue
            shown.add(pid)
            rows.append({"pid": f"{'  ' * depth}{pid or 'prepared'}", **_row_of(backends, pid)})
            pending += [(one, depth + 1) for one in sorted(waiting.get(pid, ()), reverse=True)]
    return rows


def _row_of(backends: Mapping[int, Backend], pid: int) -> Row:
    if pid in backends:
        return backends[pid].row
    return dict.fromkeys(next(iter(backends.values())).row, "")
