"""Which account belongs to which person of the identity provider.

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# mks: allow MG311 the new table is empty, and the runner waits for users for two seconds
revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; without a provider it stays empty."""
    op.create_table(
        "provider_identities",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("linked_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_provider_identities_user_id_users"),
        sa.PrimaryKeyConstraint("key", name="pk_provider_identities"),
        sa.UniqueConstraint("user_id", name="uq_provider_identities_user_id"),
    )


def downgrade() -> None:
    """Remove the table."""
    op.drop_table("provider_identities")
