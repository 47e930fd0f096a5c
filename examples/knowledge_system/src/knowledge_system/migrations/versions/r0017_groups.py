"""Groups of people, and which of them approves a category.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# mks: allow MG215 one company has fewer groups than two thousand million
# mks: allow MG311 the new tables are empty, and the runner waits for users for two seconds
revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; while they are empty, every reviewer approves as before."""
    op.create_table(
        "user_groups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_user_groups"),
        sa.UniqueConstraint("name", name="uq_user_groups_name"),
    )
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["user_groups.id"], name="fk_group_members_group_id_user_groups"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_group_members_user_id_users"),
        sa.PrimaryKeyConstraint("group_id", "user_id", name="pk_group_members"),
    )
    op.create_table(
        "category_approvers",
        sa.Column("category", sa.String(32), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["user_groups.id"], name="fk_category_approvers_group_id_user_groups"
        ),
        sa.PrimaryKeyConstraint("category", name="pk_category_approvers"),
    )


def downgrade() -> None:
    """Remove the tables."""
    for name in ("category_approvers", "group_members", "user_groups"):
        op.drop_table(name)
