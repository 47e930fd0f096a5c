"""Comments may answer another one, be changed and be removed.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; the version before ignores them, and the text of a removed comment is gone for it too."""
    op.add_column("comments", sa.Column("parent_id", sa.Integer(), nullable=True))
    op.add_column("comments", sa.Column("edited_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("comments", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Remove the columns."""
    with op.batch_alter_table("comments") as table:
        for name in ("deleted_at", "edited_at", "parent_id"):
            table.drop_column(name)
