"""When an account was deactivated, so that a leaver's data can be erased in time.

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the nightly task sets it for accounts that are out of use already."""
    op.add_column("users", sa.Column("deactivated_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Remove the column."""
    with op.batch_alter_table("users") as table:
        table.drop_column("deactivated_at")
