"""An index from which the articles of each category and each site are counted.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

from knowledge_system.migrations.indexes import create_index, drop_index

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build it while people work."""
    create_index("ix_articles_status_category_site", "articles", ["status", "category", "site"])


def downgrade() -> None:
    """Counting reads the whole table again."""
    drop_index("ix_articles_status_category_site", "articles")
