"""Whole texts of revisions, the next version of a published article, steps of the workflow and notices.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# mks: allow MG102 articles and revisions have some thousand rows: under a second
# mks: allow MG103 articles and revisions are always locked in this order
# mks: allow MG106 old code must not see an article whose shown revision is missing
# mks: allow MG209 tags are only read and written as a whole
# mks: allow MG215 one company writes fewer reviews and notices than two thousand million
# mks: allow MG301 articles and revisions have some thousand rows: under a second
# mks: allow MG311 the new tables are empty, and the runner waits for articles and users for two seconds
# mks: allow MG505 articles and revisions have some thousand rows: under a second
# mks: allow MG802 it copies the tags of each article into its newest revision
revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TEXT = (
    ("title", sa.String(200)),
    ("summary", sa.String(500)),
    ("body", sa.Text()),
    ("category", sa.String(32)),
    ("site", sa.String(100)),
    ("tags", sa.JSON()),
)
_ARTICLE = (
    ("next_revision", sa.Integer()),
    ("next_since", sa.Integer()),
    ("next_status", sa.String(16)),
    ("confirmed_at", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    """Add what is missing; the newest revision of each article gets the text that the article has."""
    op.add_column("articles", sa.Column("site", sa.String(100), server_default="", nullable=False))
    op.add_column("articles", sa.Column("shown_revision", sa.Integer(), server_default="1", nullable=False))
    for name, kind in _ARTICLE:
        op.add_column("articles", sa.Column(name, kind))
    for name, kind_of_text in _TEXT:
        op.add_column("revisions", sa.Column(name, kind_of_text))
    op.execute("UPDATE articles SET shown_revision = revision, confirmed_at = updated_at")
    newest = "SELECT {} FROM articles WHERE articles.id = revisions.article_id"
    for name in ("title", "summary", "body", "category", "site"):
        op.execute(
            f"UPDATE revisions SET {name} = ({newest.format(name)}) "  # noqa: S608 - our own names
            f"WHERE number = ({newest.format('revision')})"
        )
    _copy_tags()
    op.create_index("ix_articles_site", "articles", ["site"])
    op.create_index("ix_articles_next_status", "articles", ["next_status"])
    op.create_index("ix_articles_confirmed_at", "articles", ["confirmed_at"])
    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("article_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("actor_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["article_id"], ["articles.id"], name="fk_reviews_article_id"),
        sa.ForeignKeyConstraint(["actor_id"], ["users.id"], name="fk_reviews_actor_id"),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
    )
    op.create_index("ix_reviews_article_id", "reviews", ["article_id"])
    op.create_table(
        "notices",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("article_id", sa.Integer(), nullable=False),
        sa.Column("actor_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_notices_user_id"),
        sa.ForeignKeyConstraint(["article_id"], ["articles.id"], name="fk_notices_article_id"),
        sa.ForeignKeyConstraint(["actor_id"], ["users.id"], name="fk_notices_actor_id"),
        sa.PrimaryKeyConstraint("id", name="pk_notices"),
    )
    op.create_index("ix_notices_user_id_read_at", "notices", ["user_id", "read_at"])


def downgrade() -> None:
    """Steps, notices, older texts and versions that were not published yet are lost."""
    op.drop_index("ix_notices_user_id_read_at", table_name="notices")
    op.drop_table("notices")
    op.drop_index("ix_reviews_article_id", table_name="reviews")
    op.drop_table("reviews")
    for name in ("site", "next_status", "confirmed_at"):
        op.drop_index(f"ix_articles_{name}", table_name="articles")
    with op.batch_alter_table("revisions") as table:
        for name, _ in _TEXT:
            table.drop_column(name)
    with op.batch_alter_table("articles") as table:
        for name in ("site", "shown_revision", *(name for name, _ in _ARTICLE)):
            table.drop_column(name)


def _copy_tags() -> None:
    """Tags are in separate rows; a revision stores them as a list."""
    revisions = sa.table(
        "revisions", sa.column("article_id"), sa.column("number"), sa.column("tags", sa.JSON())
    )
    bind = op.get_bind()
    rows = bind.execute(
        sa.text(
            "SELECT a.id, a.revision, t.name FROM articles a LEFT JOIN article_tags t ON t.article_id = a.id "
            "ORDER BY a.id, t.position"
        )
    ).all()
    tags: dict[tuple[int, int], list[str]] = {}
    for article_id, number, name in rows:
        tags.setdefault((article_id, number), []).extend([name] if name else [])
    for (article_id, number), names in tags.items():
        bind.execute(
            sa.update(revisions)
            .where(revisions.c.article_id == article_id, revisions.c.number == number)
            .values(tags=names)
        )
