"""Files of articles; their contents are in a directory, under the digests stored here.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# mks: allow MG103 the new table is empty: a few milliseconds
# mks: allow MG215 one company uploads fewer files than two thousand million
# mks: allow MG311 the new table is empty, and the runner waits for articles and users for two seconds
revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One table."""
    op.create_table(
        "attachments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("article_id", sa.Integer(), nullable=False),
        sa.Column("uploader_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("content_type", sa.String(64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("thumbnail", sa.String(64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("shown", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["article_id"], ["articles.id"], name="fk_attachments_article_id_articles", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["uploader_id"], ["users.id"], name="fk_attachments_uploader_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_attachments"),
    )
    for column in ("article_id", "digest", "thumbnail"):
        op.create_index(f"ix_attachments_{column}", "attachments", [column])


def downgrade() -> None:
    """The rows go; the files stay in their folder until they are cleaned up."""
    op.drop_table("attachments")
