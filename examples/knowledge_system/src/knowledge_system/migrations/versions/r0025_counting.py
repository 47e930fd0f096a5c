"""An index from which the articles that a reader may read are counted without reading the articles.

The counts check restrictions by id, which the former index did not contain.

Revision ID: 0025
Revises: 0024
"""

from __future__ import annotations

from knowledge_system.migrations.indexes import create_index, drop_index

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build it while people work, then remove the one it replaces."""
    create_index("ix_articles_status_category_site_id", "articles", ["status", "category", "site", "id"])
    drop_index("ix_articles_status_category_site", "articles")


def downgrade() -> None:
    """Counting reads the articles again."""
    create_index("ix_articles_status_category_site", "articles", ["status", "category", "site"])
    drop_index("ix_articles_status_category_site_id", "articles")
