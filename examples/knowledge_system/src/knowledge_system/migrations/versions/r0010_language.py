"""The language that a user chose for pages and mails.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody has chosen yet."""
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("language", sa.String(2), nullable=False, server_default=sa.text("''")))


def downgrade() -> None:
    """Afterwards the browser's language is used again."""
    with op.batch_alter_table("users") as users:
        users.drop_column("language")
