"""Indexes on tables in use: built without blocking writers, and rebuilt after an interrupted build."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic import op
from sqlalchemy import text

__all__ = ["create_index", "drop_index"]

# A failed build leaves an INVALID index behind, which slows down every write and serves no query. CREATE
# INDEX IF NOT EXISTS would accept it.
_VALID = text(
    "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(quote_ident(current_schema()) || '.' || "
    "quote_ident(:name))"
)


def create_index(name: str, table: str, columns: Sequence[str], **options: Any) -> None:
    """Create an index unless it exists; on PostgreSQL ``CONCURRENTLY``, outside the transaction.

    This commits everything the revision has done before, so it must be the only operation of its revision.

    Args:
        name: name of the index.
        table: table of the index.
        columns: columns of the table.
        options: options of ``alembic.op.create_index``, for example ``unique``.
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
    """Drop an index if it exists; on PostgreSQL ``CONCURRENTLY``."""
    context = op.get_context()
    if context.dialect.name != "postgresql":
        op.drop_index(name, table_name=table, if_exists=True)
        return
    with context.autocommit_block():
        op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
