"""Favourites, what people watch, and one spelling for each tag; the search learns to read its index.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import unicodedata
from collections import Counter

import sqlalchemy as sa
from alembic import op

from mks_hardening.db import SearchIndex

# mks: allow MG103 articles is only locked until the revision ends, a few milliseconds later
# mks: allow MG311 the new tables are empty, and the runner waits for articles and users for two seconds
# mks: allow MG802 it reads the spellings of the tags, some hundred rows, and writes the most frequent one
revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ARTICLE_TAGS = sa.table("article_tags", sa.column("article_id", sa.Integer), sa.column("name", sa.String))
_TAGS = sa.table("tags", sa.column("key", sa.String), sa.column("name", sa.String))


def upgrade() -> None:
    """Create the tables, and keep the most common spelling of each tag."""
    op.create_table(
        "tags",
        sa.Column("key", sa.String(768), nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_tags"),
    )
    op.create_table(
        "favourites",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("article_id", sa.Integer(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_favourites_user_id_users"),
        sa.ForeignKeyConstraint(["article_id"], ["articles.id"], name="fk_favourites_article_id_articles"),
        sa.PrimaryKeyConstraint("user_id", "article_id", name="pk_favourites"),
    )
    op.create_index("ix_favourites_article_id", "favourites", ["article_id"])
    op.create_table(
        "watches",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("subject", sa.String(100), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_watches_user_id_users"),
        sa.PrimaryKeyConstraint("user_id", "kind", "subject", name="pk_watches"),
    )
    op.create_index("ix_watches_kind_subject", "watches", ["kind", "subject"])
    _keep_one_spelling()
    SearchIndex("article_search").create(op.get_bind())  # with what it has learned since


def downgrade() -> None:
    """Favourites and watches are forgotten; tags stay as they are spelt."""
    op.drop_table("watches")
    op.drop_table("favourites")
    op.drop_table("tags")


def _keep_one_spelling() -> None:
    bind = op.get_bind()
    spelt: dict[str, Counter[str]] = {}
    number = sa.func.count()
    for name, times in bind.execute(sa.select(_ARTICLE_TAGS.c.name, number).group_by(_ARTICLE_TAGS.c.name)):
        spelt.setdefault(_key(name), Counter())[name] = times
    for key, names in spelt.items():
        kept = min(names, key=lambda name: (-names[name], name))
        bind.execute(_TAGS.insert().values(key=key, name=kept))
        for other in names.keys() - {kept}:
            _rename(bind, other, kept)


def _rename(bind: sa.Connection, old: str, kept: str) -> None:
    """An article may have both spellings."""
    has = sa.select(_ARTICLE_TAGS.c.article_id).where(_ARTICLE_TAGS.c.name == kept)
    named = _ARTICLE_TAGS.c.name == old
    bind.execute(_ARTICLE_TAGS.delete().where(named, _ARTICLE_TAGS.c.article_id.in_(has)))
    bind.execute(_ARTICLE_TAGS.update().where(named).values(name=kept))


def _key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded)
