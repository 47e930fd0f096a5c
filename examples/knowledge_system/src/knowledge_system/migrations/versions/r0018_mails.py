"""People choose how they get notices by mail.

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; everybody gets each notice at once, as before."""
    op.add_column("users", sa.Column("mails", sa.String(5), nullable=False, server_default=sa.text("'each'")))
    op.add_column("users", sa.Column("digest_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Remove the columns."""
    with op.batch_alter_table("users") as table:
        for name in ("digest_at", "mails"):
            table.drop_column(name)
