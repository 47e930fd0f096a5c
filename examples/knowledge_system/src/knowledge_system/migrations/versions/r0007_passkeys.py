"""Passkeys: whose each is, and the challenges that browsers are answering.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two tables of the library."""
    op.create_table(
        "mks_passkey_owner",
        sa.Column("credential", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("credential", name="pk_mks_passkey_owner"),
    )
    op.create_table(
        "mks_passkey_challenge",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_mks_passkey_challenge"),
    )
    op.create_index("ix_mks_passkey_challenge_expires_at", "mks_passkey_challenge", ["expires_at"])


def downgrade() -> None:
    """Passkeys are forgotten; codes and recovery codes stay."""
    op.drop_table("mks_passkey_challenge")
    op.drop_table("mks_passkey_owner")
