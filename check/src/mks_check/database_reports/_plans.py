"""Plans of the most expensive statements: changed plans and missing indexes.

A plan is the generic one, for any values, so that it changes only with the schema and the statistics. Nothing is
executed. Whether an index would help is asked of PostgreSQL's planner itself, with hypothetical indexes (hypopg).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from mks_check.database_reports._report import DatabaseReport, Row, Section, in_short
from mks_check.database_reports._statements import INSTALL, raw_statements
from mks_hardening.db.plan._explain_output import Plan, nodes_of, postgresql_plan
from mks_hardening.db.statement._lexer import tokens_of
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Candidate", "candidates_in", "plans", "shape"]

_KINDS: Final = frozenset({"select", "with", "insert", "update", "delete", "merge"})
_GENERIC_SINCE: Final = (16,)  # EXPLAIN (GENERIC_PLAN)
_LARGEST_SHARE: Final = 0.5  # of the cost; a smaller saving may be an error of the estimate
_INSTALL_HYPOPG: Final = (
    "hypopg is not installed (CREATE EXTENSION hypopg): nobody has asked the planner whether it uses them"
)
_NAME: Final = r'(?:\w+|"(?:[^"]|"")+")'
# As EXPLAIN (VERBOSE) writes a comparison: ((t.kind)::text = $1), (t.n > $2), (t.id = ANY ($1)).
_COMPARISON: Final = re.compile(
    rf"(?<![\w\"]\()({_NAME})\.({_NAME})\)?(?:::[\w ]+(?:\[\])?)? (=|<|>|<=|>=) (?!\S*{_NAME}\.)"
)
_TABLE: Final = """
    SELECT c.relpages * current_setting('block_size')::float8 / 1048576 AS megabytes,
           array_agg(quote_ident(a.attname)) AS columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE n.nspname = :schema AND c.relname = :name AND c.relkind IN ('r', 'm', 'p')
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    GROUP BY c.relpages
"""
_HYPOPG: Final = """
    SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'hypopg'
"""


class Candidate(NamedTuple):
    """Index that could replace a sequential scan.

    Attributes:
        schema: schema of the table.
        table: name of the table.
        columns: quoted names, those compared for equality first, then at most one range.
    """

    schema: str
    table: str
    columns: tuple[str, ...]

    @property
    def definition(self) -> str:
        """Statement that creates it."""
        quoted = ".".join(f'"{name.replace(chr(34), chr(34) * 2)}"' for name in (self.schema, self.table))
        return f"CREATE INDEX ON {quoted} ({', '.join(self.columns)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    fingerprint: str
    query: str
    statement: str
    total_ms: float
    plan: Plan


def plans(
    connection: Connection,
    *,
    most: int,
    min_megabytes: float,
    baseline: str | None = None,
    save: str | None = None,
) -> DatabaseReport:
    """Report plans that differ from those of a file, and missing indexes.

    Args:
        connection: read-only connection.
        most: maximum number of statements, by total time.
        min_megabytes: size of a table from which a sequential scan is looked at.
        baseline: file with earlier plans.
        save: file to which the plans are written.

    Raises:
        ConfigurationError: a file cannot be read or written.
    """
    known = raw_statements(connection)
    if known is None:
        return DatabaseReport(sections=[], notes=[INSTALL], is_possible=False)
    before = _read(baseline) if baseline else {}
    planned: list[_Planned] = []
    failed = 0
    for one in known:
        if len(planned) == most:
            break
        words = tokens_of(one.query, "postgresql")
        if not words or words[0] not in _KINDS or ";" in words:
            continue
        plan = _generic_plan(connection, one.query, len(planned) + failed)
        failed += plan is None
        if plan is not None:
            planned.append(
                _Planned(
                    fingerprint=one.fingerprint,
                    query=one.query,
                    statement=one.statement,
                    total_ms=one.total_ms,
                    plan=plan,
                )
            )
    if save:
        _write(save, planned)
    proven, unproven, notes = _missing_indexes(connection, planned, min_megabytes)
    if failed:
        notes.append(
            f"{failed} statements have no plan for this role, or cannot be parsed without their values"
        )
    return DatabaseReport(
        sections=[
            Section(
                title="plans that changed since the baseline",
                rows=[
                    {
                        "total ms": in_short(one.total_ms),
                        "before": before[one.fingerprint],
                        "now": shape(one.plan),
                        "fingerprint": one.fingerprint,
                        "statement": one.statement,
                    }
                    for one in planned
                    if before.get(one.fingerprint, shape(one.plan)) != shape(one.plan)
                ],
                advice="look for dropped indexes and old statistics (ANALYZE); if the change is right, use --save",
            ),
            Section(
                title="missing indexes, proven with hypothetical ones",
                rows=proven,
                advice="create them CONCURRENTLY (SafeOperations.create_index), and compare the times afterwards",
            ),
            Section(title="sequential scans that filter, not proven to need an index", rows=unproven),
        ],
        notes=notes,
    )


def shape(plan: Plan) -> str:
    """Steps of a plan with their tables and indexes, without costs; long ones end with a digest."""
    steps = [
        " ".join(str(node[name]) for name in ("Node Type", "Relation Name", "Index Name") if name in node)
        for node, _depth in nodes_of(cast("Mapping[str, object]", plan.tree["Plan"]), 0)
    ]
    text = " < ".join(steps)
    return text if len(text) <= 200 else f"{text[:180]}… {blake2b(text.encode(), digest_size=6).hexdigest()}"


def candidates_in(plan: Plan) -> Iterator[Candidate]:
    """Indexes for the conditions of the sequential scans of a plan (EXPLAIN VERBOSE)."""
    for node, _depth in nodes_of(cast("Mapping[str, object]", plan.tree["Plan"]), 0):
        condition = str(node.get("Filter", ""))
        # An index on one alternative of an OR does not help the others.
        if node["Node Type"] != "Seq Scan" or not condition or " OR " in condition:
            continue
        equal: list[str] = []
        ranges: list[str] = []
        for _alias, column, operator in _COMPARISON.findall(condition):
            places = equal if operator == "=" else ranges
            if column not in places:
                places.append(column)
        columns = (*equal, *[one for one in ranges if one not in equal][:1])
        if columns:
            yield Candidate(str(node["Schema"]), str(node["Relation Name"]), columns)


def _generic_plan(connection: Connection, query: str, number: int) -> Plan | None:
    """Plan of a statement with placeholders, or ``None`` if the server cannot make one."""
    from sqlalchemy.exc import DBAPIError

    asked = connection.execution_options(no_parameters=True)  # a % is part of the text
    try:
        with connection.begin_nested():
            version: tuple[Any, ...] = asked.dialect.server_version_info or (0,)
            if version >= _GENERIC_SINCE:
                explain = f"EXPLAIN (GENERIC_PLAN, VERBOSE, FORMAT JSON) {query}"
            else:
                numbers = [int(one) for one in re.findall(r"\$(\d+)", query)]
                nulls = f"({', '.join(['NULL'] * max(numbers))})" if numbers else ""
                # The session of the command ends with it. A pooler in transaction mode is refused.
                asked.exec_driver_sql(f"PREPARE mks_plan_{number} AS {query}")
                asked.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
                explain = f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE mks_plan_{number}{nulls}"
            (found,) = asked.exec_driver_sql(explain).scalars().all()
    except (DBAPIError, ConfigurationError):
        return None
    return postgresql_plan(found) if len(found) == 1 and "Plan" in found[0] else None


def _missing_indexes(
    connection: Connection, planned: Sequence[_Planned], min_megabytes: float
) -> tuple[list[Row], list[Row], list[str]]:
    from sqlalchemy import text

    schema = connection.execute(text(_HYPOPG)).scalar()
    proven: list[Row] = []
    unproven: list[Row] = []
    numbers = count(1_000_000)  # names of further prepared statements
    for one in planned:
        for candidate in dict.fromkeys(candidates_in(one.plan)):
            found = connection.execute(
                text(_TABLE), {"schema": candidate.schema, "name": candidate.table}
            ).first()
            if found is None or not set(candidate.columns) <= set(found.columns):
                continue
            if found.megabytes < min_megabytes:
                continue
            row = {
                "total ms": in_short(one.total_ms),
                "index": candidate.definition,
                "table MB": in_short(found.megabytes),
                "fingerprint": one.fingerprint,
                "statement": one.statement,
            }
            if schema is None:
                unproven.append(row)
                continue
            cost = _cost_with(connection, schema, candidate, one, next(numbers))
            before = one.plan.cost or 0.0
            if cost is not None and cost <= _LARGEST_SHARE * before:
                proven.append({**row, "cost": in_short(before), "cost with it": in_short(cost)})
    notes = [] if schema is not None or not unproven else [_INSTALL_HYPOPG]
    return proven, unproven, notes


def _cost_with(
    connection: Connection, schema: str, candidate: Candidate, planned: _Planned, number: int
) -> float | None:
    """Cost of the plan with a hypothetical index, which only this session sees; ``None`` if it cannot be made."""
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    try:
        with connection.begin_nested():
            connection.execute(
                text(f"SELECT {schema}.hypopg_create_index(:definition)"),
                {"definition": candidate.definition},
            )
    except DBAPIError:  # for example a type without an operator class
        return None
    try:
        plan = _generic_plan(connection, planned.query, number)
    finally:
        connection.execute(text(f"SELECT {schema}.hypopg_reset()"))
    return None if plan is None else plan.cost


def _read(path: str) -> dict[str, str]:
    try:
        found: Any = json.loads(Path(path).read_text("utf-8"))
        return {str(name): str(one) for name, one in found["plans"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"--baseline must be a file that --save wrote, not {path!r}: {type(error).__name__}",
            parameter="baseline",
        ) from None


def _write(path: str, planned: Sequence[_Planned]) -> None:
    content = {"plans": {one.fingerprint: shape(one.plan) for one in planned}}
    try:
        Path(path).write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"--save must be a file that can be written, not {path!r}: {type(error).__name__}",
            parameter="save",
        ) from None
