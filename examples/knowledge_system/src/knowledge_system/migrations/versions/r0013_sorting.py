"""Indexes from which what a search has found, and what a site has, is sorted without reading the articles.

A search for a frequent word looked up thousands of articles, one by one, for a status and a time.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

from knowledge_system.migrations.indexes import create_index, drop_index

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build them while people work; the second begins as the one it replaces."""
    create_index("ix_articles_id_status_updated_at", "articles", ["id", "status", "updated_at"])
    create_index("ix_articles_site_status_updated_at_id", "articles", ["site", "status", "updated_at", "id"])
    drop_index("ix_articles_site", "articles")


def downgrade() -> None:
    """Searches and sites read the articles again."""
    create_index("ix_articles_site", "articles", ["site"])
    drop_index("ix_articles_site_status_updated_at_id", "articles")
    drop_index("ix_articles_id_status_updated_at", "articles")
