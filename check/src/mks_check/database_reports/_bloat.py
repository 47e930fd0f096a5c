"""Space that tables and indexes waste, and how close databases are to transaction ID wraparound."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, Final

from mks_check.database_reports._report import DatabaseReport, Row, Section, in_short

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["bloat", "expected_pages"]

_TABLES: Final = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS table_name, c.reltuples::float8 AS rows,
           c.relpages AS pages, current_setting('block_size')::int AS block,
           coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions)
                     WHERE option_name = 'fillfactor'), 100) AS fill,
           w.width::float8 AS width, w.nullable, w.columns, coalesce(s.n_dead_tup, 0) AS dead,
           coalesce(to_char(greatest(s.last_vacuum, s.last_autovacuum), 'YYYY-MM-DD'), 'never') AS vacuumed
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN (
        SELECT schemaname, tablename, sum((1 - null_frac) * avg_width) AS width, bool_or(null_frac > 0) AS nullable,
               count(*)::int AS columns
        FROM pg_stats WHERE NOT inherited GROUP BY 1, 2
    ) w ON w.schemaname = n.nspname AND w.tablename = c.relname
    LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
    WHERE c.relkind IN ('r', 'm') AND c.reltuples >= 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
# B-trees on columns. Equal entries share space since PostgreSQL 13, so the estimate is rather too low.
_INDEXES: Final = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS index_name, c.reltuples::float8 AS rows,
           c.relpages AS pages, current_setting('block_size')::int AS block,
           coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions)
                     WHERE option_name = 'fillfactor'), 90) AS fill,
           w.width::float8 AS width, w.nullable
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree'
    JOIN LATERAL (
        SELECT sum((1 - s.null_frac) * s.avg_width) AS width, bool_or(s.null_frac > 0) AS nullable,
               count(*) AS known
        FROM pg_attribute a JOIN pg_stats s
        ON s.schemaname = n.nspname AND s.tablename = t.relname AND s.attname = a.attname AND NOT s.inherited
        WHERE a.attrelid = t.oid AND a.attnum = ANY (i.indkey::int2[])
    ) w ON w.known = i.indnatts
    WHERE i.indisvalid AND i.indexprs IS NULL AND c.relkind = 'i' AND c.reltuples >= 0
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
_UNKNOWN: Final = """
    SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.reltuples < 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
_AGES: Final = """
    SELECT datname AS name, age(datfrozenxid)::float8 AS transactions, mxid_age(datminmxid)::float8 AS multixacts,
           current_setting('autovacuum_freeze_max_age')::float8 AS freeze_at
    FROM pg_database WHERE datallowconn
"""
_OLDEST: Final = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
           age(c.relfrozenxid)::float8 AS transactions
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 't') ORDER BY age(c.relfrozenxid) DESC LIMIT 5
"""
_LAST_TRANSACTION: Final = 2**31
_LARGEST_SHARE: Final = 0.3
# Autovacuum freezes every table by itself at this multiple of its limit; beyond it, something keeps it from that.
_LATE: Final = 2
_PAGE_HEADER: Final = 24
_ROW_HEADER: Final = 23
_ROW_POINTER: Final = 4
_INDEX_HEADER: Final = 8
_INDEX_SPECIAL: Final = 16


def bloat(connection: Connection, *, min_megabytes: float) -> DatabaseReport:
    """Report tables and indexes that waste space, and databases that approach transaction ID wraparound.

    Args:
        connection: read-only connection.
        min_megabytes: wasted space from which a table or an index is a finding.
    """
    from sqlalchemy import text

    wasteful: list[Row] = []
    for row in connection.execute(text(_TABLES)):
        expected = expected_pages(
            row.rows, row.width, columns=row.columns, nullable=row.nullable, block=row.block, fill=row.fill
        )
        waste = _waste(row, expected, min_megabytes)
        if waste is not None:
            wasteful.append(
                {"table": row.table_name, **waste, "dead rows": row.dead, "vacuumed": row.vacuumed}
            )
    loose: list[Row] = []
    for row in connection.execute(text(_INDEXES)):
        waste = _waste(row, _expected_index_pages(row), min_megabytes)
        if waste is not None:
            loose.append({"index": row.index_name, **waste})
    ages = connection.execute(text(_AGES)).all()
    late = [
        one
        for one in ages
        if max(one.transactions, one.multixacts) >= min(_LATE * one.freeze_at, _LAST_TRANSACTION / 2)
    ]
    unknown = connection.execute(text(_UNKNOWN)).scalar_one()
    return DatabaseReport(
        sections=[
            Section(
                title=f"tables that waste {min_megabytes:g} MB and {_LARGEST_SHARE:.0%} or more (estimate)",
                rows=_worst_first(wasteful),
                advice="find out what holds VACUUM back (`db locks`, replication slots), lower "
                "autovacuum_vacuum_scale_factor of the table, and rewrite it with pg_repack; VACUUM FULL locks it",
            ),
            Section(
                title=f"indexes that waste {min_megabytes:g} MB and {_LARGEST_SHARE:.0%} or more (estimate)",
                rows=_worst_first(loose),
                advice="REINDEX INDEX CONCURRENTLY builds them again without blocking",
            ),
            Section(
                title="databases that approach the wraparound, after which the server refuses to write",
                rows=[_age(one.name, max(one.transactions, one.multixacts)) for one in late],
                advice="end old transactions and prepared ones, drop unused replication slots, and run VACUUM "
                "(FREEZE) on the oldest tables",
            ),
            Section(
                title="oldest tables",
                rows=[_age(one.name, one.transactions) for one in connection.execute(text(_OLDEST))],
            ),
        ],
        notes=[f"{unknown} tables have no statistics: run ANALYZE"] if unknown else [],
    )


def _waste(row: Any, expected: int, min_megabytes: float) -> Row | None:
    """What a table or index wastes, or ``None`` if that is little."""
    wasted = (row.pages - expected) * row.block / 2**20
    if wasted < min_megabytes or row.pages - expected < _LARGEST_SHARE * row.pages:
        return None
    return {
        "MB": in_short(row.pages * row.block / 2**20),
        "wasted MB": in_short(wasted),
        "wasted %": round(100 * (1 - expected / row.pages)),
    }


def _worst_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -float(str(row["wasted MB"])))


def _expected_index_pages(row: Any) -> int:
    """Pages that a B-tree would have if it were built now."""
    header: int = _INDEX_HEADER + (8 if row.nullable else 0)
    each = header + _aligned(ceil(row.width)) + _ROW_POINTER
    room: float = (row.block - _PAGE_HEADER - _INDEX_SPECIAL) * row.fill / 100
    rows: float = row.rows
    return ceil(rows * each / room) + 1  # the first page describes the others


def expected_pages(
    rows: float, width: float, *, columns: int, nullable: bool, block: int, fill: int = 100
) -> int:
    """Pages that a table would have without waste.

    Args:
        rows: number of rows.
        width: average width of the values of a row, in bytes.
        columns: number of columns.
        nullable: whether some values are NULL, so that rows have a bitmap.
        block: bytes of a page.
        fill: fillfactor of the table.
    """
    header = _aligned(_ROW_HEADER + (ceil(columns / 8) if nullable else 0))
    each = header + _aligned(ceil(width)) + _ROW_POINTER
    return ceil(rows * each / ((block - _PAGE_HEADER) * fill / 100))


def _aligned(size: int) -> int:
    return ceil(size / 8) * 8


def _age(name: str, transactions: float) -> Row:
    return {
        "name": name,
        "age": round(transactions),
        "of the wraparound %": in_short(100 * transactions / _LAST_TRANSACTION),
    }
