"""Groups to which an article, a category or a node of the tree is restricted.

Revision ID: 0023
Revises: 0022
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# mks: allow MG215 rows are the restrictions of one company, replaced as a whole
# mks: allow MG103 nobody waits for the other tables, which are referred to and not changed
# mks: allow MG311 the new table is empty, and the runner waits for users for two seconds
revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; while it is empty, everybody reads everything as before."""
    op.create_table(
        "readers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("article_id", sa.Integer(), nullable=True),
        sa.Column("category", sa.String(32), nullable=True),
        sa.Column("node_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["group_id"], ["user_groups.id"], name="fk_readers_group_id_user_groups"),
        sa.ForeignKeyConstraint(["article_id"], ["articles.id"], name="fk_readers_article_id_articles"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_readers_node_id_nodes"),
        sa.PrimaryKeyConstraint("id", name="pk_readers"),
    )
    for column in ("group_id", "article_id"):
        op.create_index(f"ix_readers_{column}", "readers", [column])


def downgrade() -> None:
    """Refuse while something is restricted, because the release before would show it to everybody."""
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM readers")):
        raise RuntimeError("articles are restricted to groups: open or delete them before going back")
    op.drop_table("readers")
