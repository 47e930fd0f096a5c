"""Accounts with an address for mail, without a password until an invitation is answered, and out of use.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# mks: allow MG304 users has a row for each employee: milliseconds
revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Everybody there is stays active."""
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("email", sa.String(254)))
        users.add_column(sa.Column("active", sa.Boolean(), nullable=False, server_default=sa.true()))
        users.alter_column("password_hash", existing_type=sa.String(255), nullable=True)
        users.create_unique_constraint("uq_users_email", ["email"])


def downgrade() -> None:
    """Accounts without a password, or disabled ones, get one that nobody can know."""
    op.execute("UPDATE users SET password_hash = '!' WHERE password_hash IS NULL OR NOT active")
    with op.batch_alter_table("users") as users:
        users.drop_constraint("uq_users_email", type_="unique")
        users.alter_column("password_hash", existing_type=sa.String(255), nullable=False)
        users.drop_column("active")
        users.drop_column("email")
