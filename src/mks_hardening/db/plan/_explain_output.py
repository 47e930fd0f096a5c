"""Parsing of EXPLAIN output from PostgreSQL and SQLite into one form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

__all__ = ["Plan", "Tree", "nodes_of", "postgresql_plan", "sqlite_plan"]

# JSON plan as PostgreSQL returns it.
Tree: TypeAlias = "Mapping[str, object]"

_INDEX: Final = re.compile(r"USING (?:COVERING )?INDEX (\S+)")
_CONDITIONS: Final = ("Index Cond", "Filter", "Recheck Cond")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Plan by which the database would execute, or has executed, a statement.

    Attributes:
        text: human-readable plan, one step per line; its filters contain the statement's values.
        full_scans: tables that are read completely.
        indexes: indexes in use.
        cost: the planner's estimate in its own unit; None on SQLite.
        execution_ms: execution time in milliseconds, with ``analyze``.
        tree: PostgreSQL's original JSON plan; empty on SQLite.
    """

    text: str
    full_scans: tuple[str, ...]
    indexes: tuple[str, ...]
    cost: float | None
    execution_ms: float | None
    tree: dict[str, object]

    def __str__(self) -> str:
        return self.text


def postgresql_plan(plans: Sequence[dict[str, object]]) -> Plan:
    """Convert the result of an EXPLAIN with ``FORMAT JSON``, which must contain one plan."""
    (whole,) = plans
    nodes = list(nodes_of(cast(Tree, whole["Plan"]), 0))
    scans = (str(node["Relation Name"]) for node, _ in nodes if node["Node Type"] == "Seq Scan")
    indexes = (str(node["Index Name"]) for node, _ in nodes if "Index Name" in node)
    return Plan(
        text="\n".join("  " * depth + _described(node) for node, depth in nodes),
        full_scans=tuple(dict.fromkeys(scans)),
        indexes=tuple(dict.fromkeys(indexes)),
        cost=cast(float, nodes[0][0]["Total Cost"]),
        execution_ms=cast("float | None", whole.get("Execution Time")),
        tree=whole,
    )


def nodes_of(node: Tree, depth: int) -> Iterator[tuple[Tree, int]]:
    """A node and all its descendants with their depth."""
    yield node, depth
    for child in cast("Iterable[Tree]", node.get("Plans", ())):
        yield from nodes_of(child, depth + 1)


def _described(node: Tree) -> str:
    target = node.get("Index Name") or node.get("Relation Name")
    parts = [str(node["Node Type"]), *([f"on {target}"] if target else [])]
    parts += [f"({name}: {node[name]})" for name in _CONDITIONS if name in node]
    parts.append(f"rows={node['Plan Rows']} cost={node['Total Cost']}")
    if "Actual Total Time" in node:
        parts.append(
            f"actual rows={node['Actual Rows']} loops={node['Actual Loops']} ms={node['Actual Total Time']}"
        )
    return " ".join(parts)


def sqlite_plan(details: list[str]) -> Plan:
    """Convert the lines of ``EXPLAIN QUERY PLAN``."""
    scans = (
        detail.split()[1] for detail in details if detail.startswith("SCAN ") and " INDEX " not in detail
    )
    indexes = (found[1] for found in map(_INDEX.search, details) if found)
    return Plan(
        text="\n".join(details),
        full_scans=tuple(dict.fromkeys(scans)),
        indexes=tuple(dict.fromkeys(indexes)),
        cost=None,
        execution_ms=None,
        tree={},
    )
