"""Indexes on tables that are in use: built without locking out writers, and repaired where a build was cut off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic import op
from sqlalchemy import text

__all__ = ["create_index", "drop_index"]

# A build that fails leaves its index behind, INVALID: it costs every write and helps no query, and
# CREATE INDEX IF NOT EXISTS would take it for a good one.
_VALID = text(
    "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(quote_ident(current_schema()) || '.' || "
    "quote_ident(:name))"
)


def create_index(name: str, table: str, columns: Sequence[str], **options: Any) -> None:
    """Create an index, on PostgreSQL ``CONCURRENTLY`` and outside the transaction; harmless where it is.

    What the revision has done before is committed by that, so it stands alone in its revision.

    Args:
        name: of the index.
        table: that it is on.
        columns: of the table.
        options: of ``alembic.op.create_index``, for example ``unique``.
    """
    context = op.get_context()
    if context.dialect.name != "postgresql":
        op.create_index(name, table, columns, if_not_exists=True, **options)
        return
    with context.autocommit_block():
        valid = op.get_bind().scalar(_VALID, {"name": name})
        if valid is False:
            op.drop_index(name, table_name=table, postgresql_concurrently=True)
        if not valid:
            op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def drop_index(name: str, table: str) -> None:
    """Drop an index, on PostgreSQL ``CONCURRENTLY``; harmless where it is not."""
    context = op.get_context()
    if context.dialect.name != "postgresql":
        op.drop_index(name, table_name=table, if_exists=True)
        return
    with context.autocommit_block():
        op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
