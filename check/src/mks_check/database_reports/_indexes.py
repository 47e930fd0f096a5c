"""Indexes that are INVALID, duplicate or unused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mks_check.database_reports._report import DatabaseReport, Row, Section, in_short

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Index", "indexes", "redundant_to"]

# Sizes in pages as of the last VACUUM or ANALYZE: pg_relation_size() would wait for a lock.
_INDEXES: Final = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(t.relname) AS table_name, c.relname AS name,
           c.relpages * current_setting('block_size')::float8 / 1048576 AS megabytes,
           coalesce(s.idx_scan, 0) AS scans, i.indisvalid AND i.indisready AS valid, i.indisunique AS is_unique,
           i.indisprimary OR i.indisexclusion OR i.indisreplident
               OR EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid) AS is_constraint,
           EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) AS in_progress,
           m.amname AS method, i.indkey::int2[]::int[] AS columns, i.indnkeyatts AS key_columns,
           concat_ws(' ', i.indclass::text, i.indcollation::text) AS classes, i.indoption::text AS options,
           coalesce(pg_get_expr(i.indexprs, i.indrelid), '') AS expressions,
           coalesce(pg_get_expr(i.indpred, i.indrelid), '') AS condition
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_am m ON m.oid = c.relam
    LEFT JOIN pg_stat_user_indexes s ON s.indexrelid = i.indexrelid
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind = 'i'
    ORDER BY 1, 2
"""
_SINCE: Final = """
    SELECT coalesce(to_char(stats_reset, 'YYYY-MM-DD'), 'the server was created')
    FROM pg_stat_database WHERE datname = current_database()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One index, as far as another one can replace it.

    Attributes:
        name: name within its schema.
        table: table with its schema.
        megabytes: size.
        scans: number of uses since the statistics were reset.
        valid: whether the server uses it.
        in_progress: whether it is being built.
        is_unique: whether it forbids duplicates.
        is_constraint: whether a constraint or the replica identity needs it.
        method: access method.
        columns: key columns and included columns, by number; 0 is an expression.
        key_columns: number of key columns.
        classes: operator classes and collations.
        options: directions of the columns.
        expressions: its expressions.
        condition: condition of a partial index.
    """

    name: str
    table: str
    megabytes: float = 0.0
    scans: int = 0
    valid: bool = True
    in_progress: bool = False
    is_unique: bool = False
    is_constraint: bool = False
    method: str = "btree"
    columns: tuple[int, ...]
    key_columns: int = 0
    classes: str = ""
    options: str = ""
    expressions: str = ""
    condition: str = ""

    @property
    def definition(self) -> tuple[object, ...]:
        """What two equal indexes share."""
        return (
            *(self.table, self.method, self.columns, self.key_columns or len(self.columns)),
            *(self.classes, self.options, self.expressions, self.condition),
        )


def indexes(connection: Connection, *, min_megabytes: float) -> DatabaseReport:
    """Report indexes that cost more than they give.

    Args:
        connection: read-only connection.
        min_megabytes: size from which an unused index is a finding.
    """
    from sqlalchemy import text

    found = [
        Index(
            name=row.name,
            table=row.table_name,
            megabytes=row.megabytes,
            scans=row.scans,
            valid=row.valid,
            in_progress=row.in_progress,
            is_unique=row.is_unique,
            is_constraint=row.is_constraint,
            method=row.method,
            columns=tuple(row.columns),
            key_columns=row.key_columns,
            classes=row.classes,
            options=row.options,
            expressions=row.expressions,
            condition=row.condition,
        )
        for row in connection.execute(text(_INDEXES))
    ]
    since: object = connection.execute(text(_SINCE)).scalar()
    redundant = redundant_to(found)
    unused = [
        one
        for one in found
        if one.valid
        and not (
            one.scans or one.is_unique or one.is_constraint or one.name in {n.name for n, _ in redundant}
        )
        and one.megabytes >= min_megabytes
    ]
    return DatabaseReport(
        sections=[
            Section(
                title="INVALID: a build failed; writes maintain them, and no query uses them",
                rows=[_row(one) for one in found if not (one.valid or one.in_progress)],
                advice="drop them (DROP INDEX CONCURRENTLY), or repair them (REINDEX INDEX CONCURRENTLY)",
            ),
            Section(
                title="duplicate: another index of the table does the same",
                rows=[{**_row(one), "replaced by": other.name} for one, other in redundant],
                advice="drop them: DROP INDEX CONCURRENTLY",
            ),
            Section(
                title=f"unused since {since}, {min_megabytes:g} MB or more",
                rows=[_row(one) for one in sorted(unused, key=lambda one: -one.megabytes)],
                advice="check the replicas, which count for themselves, and jobs that run rarely; then drop them",
            ),
        ]
    )


def redundant_to(found: Sequence[Index]) -> list[tuple[Index, Index]]:
    """Pair each index that another one replaces with that one.

    Of equal definitions, the one of a constraint stays, then the unique one, then the most used one. A plain B-tree
    whose columns are the first ones of another B-tree is replaced by it.

    Args:
        found: indexes of all tables.
    """
    pairs: list[tuple[Index, Index]] = []
    usable = [one for one in found if one.valid]
    best_first = sorted(
        usable, key=lambda one: (not one.is_constraint, not one.is_unique, -one.scans, one.name)
    )
    kept: dict[tuple[object, ...], Index] = {}
    for one in best_first:
        other = kept.setdefault(one.definition, one)
        if other is not one and not one.is_constraint:
            pairs.append((one, other))
    replaced = {id(one) for one, _ in pairs}
    for one in usable:
        longer = next((other for other in kept.values() if _is_beginning_of(one, other)), None)
        if longer is not None and id(one) not in replaced:
            pairs.append((one, longer))
    return sorted(pairs, key=lambda pair: (pair[0].table, pair[0].name))


def _is_beginning_of(one: Index, other: Index) -> bool:
    if one.is_unique or one.is_constraint or one.expressions or other.expressions or one.table != other.table:
        return False
    number = one.key_columns or len(one.columns)
    return (
        one.method == other.method == "btree"
        and one.condition == other.condition
        and number == len(one.columns) < (other.key_columns or len(other.columns))
        and one.columns == other.columns[:number]
        and _begins(one.options, other.options)
        and all(_begins(a, b) for a, b in zip(_halves(one.classes), _halves(other.classes), strict=True))
    )


def _halves(classes: str) -> tuple[str, str]:
    """Operator classes and collations, of which each column has one."""
    words = classes.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def _begins(one: str, other: str) -> bool:
    words = one.split()
    return words == other.split()[: len(words)]


def _row(one: Index) -> Row:
    return {"table": one.table, "index": one.name, "MB": in_short(one.megabytes), "scans": one.scans}
