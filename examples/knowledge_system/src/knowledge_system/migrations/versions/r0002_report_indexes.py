"""Indexes for the monthly report, which counts edits and comments between two dates.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from knowledge_system.migrations.indexes import create_index, drop_index

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build them while people work."""
    create_index("ix_comments_created_at", "comments", ["created_at"])
    create_index("ix_revisions_saved_at", "revisions", ["saved_at"])


def downgrade() -> None:
    """Reports read whole tables again."""
    drop_index("ix_revisions_saved_at", "revisions")
    drop_index("ix_comments_created_at", "comments")
