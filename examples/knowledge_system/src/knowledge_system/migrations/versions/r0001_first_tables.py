"""The tables as they were before there were revisions.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from mks_hardening.db import SearchIndex

# mks: allow MG301(article_search) the table is new; SearchIndex creates it IF NOT EXISTS
# mks: allow MG802 the block of SearchIndex reads statistics of a table that is new
# mks: allow MG215 articles, comments and users of one company stay far below two thousand million
revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create all of them."""
    op.create_table(
        "mks_task",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=9), nullable=False),
        sa.Column("queue", sa.String(length=40), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("due_at", sa.Float(precision=53), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("started_at", sa.Float(precision=53), nullable=True),
        sa.Column("finished_at", sa.Float(precision=53), nullable=True),
        sa.Column("owner", sa.String(length=32), nullable=True),
        sa.Column("deliveries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("unique_key", sa.String(length=200), nullable=True),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("progress", sa.Float(precision=53), server_default=sa.text("0"), nullable=False),
        sa.Column("stage", sa.String(length=200), server_default=sa.text("''"), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("rung_at", sa.Float(precision=53), nullable=True),
        sa.Column("unknown_since", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_mks_task"),
    )
    op.create_index("ix_mks_task_due", "mks_task", ["queue", "priority", "due_at"])
    op.create_index("ix_mks_task_ended", "mks_task", ["state", "finished_at"])
    op.create_index("ix_mks_task_rung", "mks_task", ["queue", "rung_at", "priority", "due_at"])
    op.create_index("uq_mks_task_key", "mks_task", ["name", "unique_key"], unique=True)
    op.create_table(
        "mks_two_factor",
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_mks_two_factor"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("username", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=100), nullable=False),
        sa.Column("department", sa.String(length=100), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
    )
    op.create_table(
        "articles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("slug", sa.String(length=120), nullable=True),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("summary", sa.String(length=500), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("category", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("author_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name="fk_articles_author_id"),
        sa.PrimaryKeyConstraint("id", name="pk_articles"),
        sa.UniqueConstraint("slug", name="uq_articles_slug"),
    )
    op.create_index("ix_articles_author_id", "articles", ["author_id"])
    op.create_index(
        "ix_articles_category_status_updated_at_id", "articles", ["category", "status", "updated_at", "id"]
    )
    op.create_index("ix_articles_status_updated_at_id", "articles", ["status", "updated_at", "id"])
    op.create_table(
        "reports",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("file_name", sa.String(length=200), nullable=False),
        sa.Column("content_type", sa.String(length=100), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_reports_owner_id"),
        sa.PrimaryKeyConstraint("id", name="pk_reports"),
    )
    op.create_index("ix_reports_expires_at", "reports", ["expires_at"])
    op.create_index("ix_reports_owner_id", "reports", ["owner_id"])
    op.create_table(
        "article_tags",
        sa.Column("article_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["article_id"], ["articles.id"], name="fk_article_tags_article_id"),
        sa.PrimaryKeyConstraint("article_id", "name", name="pk_article_tags"),
    )
    op.create_index("ix_article_tags_name", "article_tags", ["name"])
    op.create_table(
        "comments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("article_id", sa.Integer(), nullable=False),
        sa.Column("author_id", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["article_id"], ["articles.id"], name="fk_comments_article_id"),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name="fk_comments_author_id"),
        sa.PrimaryKeyConstraint("id", name="pk_comments"),
    )
    op.create_index("ix_comments_article_id", "comments", ["article_id"])
    op.create_table(
        "revisions",
        sa.Column("article_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("editor_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["article_id"], ["articles.id"], name="fk_revisions_article_id"),
        sa.ForeignKeyConstraint(["editor_id"], ["users.id"], name="fk_revisions_editor_id"),
        sa.PrimaryKeyConstraint("article_id", "number", name="pk_revisions"),
    )

    SearchIndex("article_search").create(op.get_bind())


def downgrade() -> None:
    """Drop all of them."""
    SearchIndex("article_search").drop(op.get_bind())
    op.drop_table("revisions")
    op.drop_index("ix_comments_article_id", table_name="comments")
    op.drop_table("comments")
    op.drop_index("ix_article_tags_name", table_name="article_tags")
    op.drop_table("article_tags")
    op.drop_index("ix_reports_owner_id", table_name="reports")
    op.drop_index("ix_reports_expires_at", table_name="reports")
    op.drop_table("reports")
    op.drop_index("ix_articles_status_updated_at_id", table_name="articles")
    op.drop_index("ix_articles_category_status_updated_at_id", table_name="articles")
    op.drop_index("ix_articles_author_id", table_name="articles")
    op.drop_table("articles")
    op.drop_table("users")
    op.drop_table("mks_two_factor")
    op.drop_index("uq_mks_task_key", table_name="mks_task")
    op.drop_index("ix_mks_task_rung", table_name="mks_task")
    op.drop_index("ix_mks_task_ended", table_name="mks_task")
    op.drop_index("ix_mks_task_due", table_name="mks_task")
    op.drop_table("mks_task")
