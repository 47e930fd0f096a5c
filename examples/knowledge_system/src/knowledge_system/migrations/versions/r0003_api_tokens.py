"""Sign-ins of programs, their refresh tokens, and the answers to repeatable calls.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from mks_hardening.db import SearchIndex

# mks: allow MG311 the new tables are empty, and the runner waits for users for two seconds
# mks: allow MG802 the block of SearchIndex drops statistics of a table that only the search reads
revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of the API."""
    op.create_table(
        "api_token_families",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("stamp", sa.String(length=64), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_token_families_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_api_token_families"),
    )
    op.create_index("ix_api_token_families_expires_at", "api_token_families", ["expires_at"])
    op.create_index("ix_api_token_families_user_id", "api_token_families", ["user_id"])
    op.create_table(
        "api_refresh_tokens",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("family_id", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["family_id"],
            ["api_token_families.id"],
            name="fk_api_refresh_tokens_family_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_api_refresh_tokens"),
    )
    op.create_index("ix_api_refresh_tokens_family_id", "api_refresh_tokens", ["family_id"])
    op.create_table(
        "api_repeatable_calls",
        sa.Column("owner_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("claim", sa.String(length=32), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed", sa.Boolean(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_api_repeatable_calls_owner_id"),
        sa.PrimaryKeyConstraint("owner_id", "key", name="pk_api_repeatable_calls"),
    )
    op.create_index("ix_api_repeatable_calls_expires_at", "api_repeatable_calls", ["expires_at"])
    SearchIndex("article_search").create(op.get_bind())  # with what it has learned since


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_api_repeatable_calls_expires_at", table_name="api_repeatable_calls")
    op.drop_table("api_repeatable_calls")
    op.drop_index("ix_api_refresh_tokens_family_id", table_name="api_refresh_tokens")
    op.drop_table("api_refresh_tokens")
    op.drop_index("ix_api_token_families_user_id", table_name="api_token_families")
    op.drop_index("ix_api_token_families_expires_at", table_name="api_token_families")
    op.drop_table("api_token_families")
