"""Indexes on tables in use: built without blocking writers, and rebuilt after an interrupted build."""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

from mks_hardening.db import LockRetry, SafeOperations

LOCK_RETRY = LockRetry(total=300)
"""A build waits for the oldest open transaction; it blocks no query during this time."""


def create_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Create an index unless it exists; on PostgreSQL ``CONCURRENTLY``, outside the transaction.

    This commits everything the revision has done before, so a revision contains nothing else.

    Args:
        name: name of the index.
        table: table of the index.
        columns: columns of the table.
    """
    context = op.get_context()
    if context.dialect.name != "postgresql":
        op.create_index(name, table, columns, if_not_exists=True)
        return
    with context.autocommit_block():
        SafeOperations(op.get_bind(), retry=LOCK_RETRY).add_index(name, table, columns)


def drop_index(name: str, table: str) -> None:
    """Drop an index if it exists; on PostgreSQL ``CONCURRENTLY``."""
    context = op.get_context()
    if context.dialect.name != "postgresql":
        op.drop_index(name, table_name=table, if_exists=True)
        return
    with context.autocommit_block():
        SafeOperations(op.get_bind(), retry=LOCK_RETRY).drop_index(name)
