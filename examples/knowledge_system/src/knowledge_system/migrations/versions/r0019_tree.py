"""A tree in which articles have a place.

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# mks: allow MG215 the application accepts a thousand nodes
# mks: allow MG103 nobody waits for the other table, which is new
# mks: allow MG311 the new tables are empty, and the runner waits for users for two seconds
revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "nodes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.ForeignKeyConstraint(["parent_id"], ["nodes.id"], name="fk_nodes_parent_id_nodes"),
        sa.PrimaryKeyConstraint("id", name="pk_nodes"),
    )
    op.create_index("ix_nodes_parent_id", "nodes", ["parent_id"])
    op.create_table(
        "article_nodes",
        sa.Column("article_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["article_id"], ["articles.id"], name="fk_article_nodes_article_id_articles"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_article_nodes_node_id_nodes"),
        sa.PrimaryKeyConstraint("article_id", name="pk_article_nodes"),
    )
    op.create_index("ix_article_nodes_node_id", "article_nodes", ["node_id"])


def downgrade() -> None:
    """Remove the tables."""
    op.drop_table("article_nodes")
    op.drop_table("nodes")
