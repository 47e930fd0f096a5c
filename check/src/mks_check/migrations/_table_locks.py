"""Locks that PostgreSQL takes for an operation.

Sources: PostgreSQL documentation, "Explicit Locking" and ALTER TABLE; measured on PostgreSQL 15, 17 and 18.
"""

from __future__ import annotations

from typing import Final, Literal

from mks_check.migrations._schema_operation import SchemaOperation

__all__ = ["LockMode", "blocks_writes", "locks_of"]

LockMode = Literal[
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
]

_BLOCKING: Final = frozenset({"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"})
_WEAK: Final = frozenset({"lock_weakly", "validate_constraint"})
_ROWS: Final = frozenset({"insert", "rewrite_rows"})
_NONE: Final = frozenset((
    *("add_enum_value", "begin", "commit", "create_domain", "create_materialized_view", "create_type"),
    *("create_view", "dynamic", "harmless", "query", "rename_enum_value", "rename_schema", "rollback"),
    "set_timeout",
))  # fmt: skip


def blocks_writes(mode: LockMode) -> bool:
    """Whether writes wait for this lock."""
    return mode in _BLOCKING


def locks_of(operation: SchemaOperation) -> dict[str, LockMode]:
    """Return the table locks of an operation, by table; tables that only the database knows are missing."""
    table, locks = operation.table, dict[str, LockMode]()
    if operation.kind in _NONE:
        return locks
    if operation.kind == "create_table":
        if operation.other:
            locks[operation.other] = "AccessExclusiveLock"
        for parent in operation.tables:
            locks[parent] = "ShareRowExclusiveLock"
        return locks
    if operation.kind == "add_column" and operation.column is not None and operation.column.references:
        locks[operation.column.references] = "ShareRowExclusiveLock"
    if operation.kind == "add_constraint" and operation.type == "foreign":
        locks[operation.other] = "ShareRowExclusiveLock"
    if operation.kind in {"attach_partition", "detach_partition"}:
        locks[operation.name] = "AccessExclusiveLock"
    if table:
        locks[table] = _mode(operation)
    return locks


def _mode(operation: SchemaOperation) -> LockMode:
    kind, concurrently = operation.kind, "concurrently" in operation.flags
    if kind in _ROWS:
        return "RowExclusiveLock"
    if kind in _WEAK or kind == "attach_partition":
        return "ShareUpdateExclusiveLock"
    if kind in {"create_index", "reindex"}:
        return "ShareUpdateExclusiveLock" if concurrently else "ShareLock"
    if kind == "detach_partition" and operation.flags:
        return "ShareUpdateExclusiveLock"
    if kind == "refresh" and concurrently:
        return "ExclusiveLock"
    if kind == "vacuum" and "full" not in operation.flags:
        return "ShareUpdateExclusiveLock"
    if kind in {"create_trigger", "lock_share_row"} or (
        kind == "add_constraint" and operation.type == "foreign"
    ):
        return "ShareRowExclusiveLock"
    if kind == "lock_table":
        return _MODES.get(operation.type, "AccessExclusiveLock")
    return "AccessExclusiveLock"


_MODES: Final[dict[str, LockMode]] = {
    "access share": "AccessShareLock",
    "row share": "RowShareLock",
    "row exclusive": "RowExclusiveLock",
    "share update exclusive": "ShareUpdateExclusiveLock",
    "share": "ShareLock",
    "share row exclusive": "ShareRowExclusiveLock",
    "exclusive": "ExclusiveLock",
    "access exclusive": "AccessExclusiveLock",
}
