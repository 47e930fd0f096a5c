"""The search index folds kana and kanji and contains symbols and the text of attachments.

Revision ID: 0020
Revises: 0019
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from mks_hardening.db import SearchIndex

# mks: allow MG311 the new table is empty, and the runner waits for users for two seconds
# mks: allow MG103 attachments is only referenced, and no other transaction locks both tables
# mks: allow MG210 the old table is derived from the articles, and the new one takes its place in one transaction
# mks: allow MG501 the lock lets searches continue; saving an article waits for some seconds
# mks: allow MG301 the tables are new; SearchIndex creates them IF NOT EXISTS
# mks: allow MG213(article_search_new) no release uses this name
# mks: allow MG802 the block of SearchIndex drops statistics of a table that only the search reads
revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rebuild the index. Until its restart, the version before does not find katakana in it; nothing is lost.

    The text of the attachments follows at night.
    """
    with op.batch_alter_table("attachments") as table:
        table.alter_column(
            "content_type",
            type_=sa.String(length=128),
            existing_type=sa.String(length=64),
            existing_nullable=False,
        )
    op.create_table(
        "attachment_texts",
        sa.Column("attachment_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("readable", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attachment_id"],
            ["attachments.id"],
            name="fk_attachment_texts_attachment_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("attachment_id", name="pk_attachment_texts"),
    )
    SearchIndex("attachment_search").create(op.get_bind())
    SearchIndex("article_search").rebuild(op.get_bind(), _documents(op.get_bind()))


def downgrade() -> None:
    """Drop the texts. The index stays: the version before finds less in it, until an article is saved again."""
    SearchIndex("attachment_search").drop(op.get_bind())
    op.drop_table("attachment_texts")
    office = sa.text("DELETE FROM attachments WHERE length(content_type) > 64")
    op.get_bind().execute(office)  # the version before does not accept such files
    with op.batch_alter_table("attachments") as table:
        table.alter_column(
            "content_type",
            type_=sa.String(length=64),
            existing_type=sa.String(length=128),
            existing_nullable=False,
        )


def _documents(bind: sa.Connection) -> Iterator[tuple[int, str | None, str | None]]:
    names = ("id", "title", "summary", "site", "body")
    articles = sa.select(sa.table("articles", *(sa.column(name) for name in names)))
    tagged = sa.table("article_tags", sa.column("article_id"), sa.column("name"), sa.column("position"))
    named = sa.select(tagged.c.article_id, tagged.c.name)
    tags: dict[int, list[str]] = {}
    for article_id, name in bind.execute(named.order_by(tagged.c.position)):
        tags.setdefault(article_id, []).append(name)
    for row in bind.execute(articles.execution_options(yield_per=500)):
        words = (row.summary, " ".join(tags.get(row.id, ())), row.site, row.body)
        yield row.id, row.title, "\n".join(words)
