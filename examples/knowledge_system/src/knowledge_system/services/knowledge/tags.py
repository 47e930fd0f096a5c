"""Canonical spelling of tags, and tag suggestions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BindParameter, Select, func, select
from sqlalchemy.orm import Session

from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.tags import key_of
from knowledge_system.models import Article, ArticleTag, Tag
from knowledge_system.services.insert_if_missing import add_missing
from knowledge_system.services.visibility import read_by

_MOST_SUGGESTIONS = 12


def canonical_tags(session: Session, names: Iterable[str]) -> list[str]:
    """Return the tags in their canonical (first used) spelling, without duplicates; new ones are registered."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(key_of(name), name)
    if not first:
        return []
    known = _known(session, first)
    missing = [{"key": key, "name": name} for key, name in first.items() if key not in known]
    if missing:
        add_missing(session, Tag, missing)
        # If two users add the same tag at once, the second gets the spelling of the first.
        known = _known(session, first)
    return [known[key] for key in first]


def select_canonical_tag(key: str | BindParameter[str]) -> Select[Any]:
    """Select the canonical spelling of a tag, for a filter, by the result of ``key_of``."""
    return select(Tag.name).where(Tag.key == key)


def suggestions(session: Session, actor: Actor, begun: str) -> list[dict[str, Any]]:
    """Return tags that contain the text, of published articles that the actor may read.

    Prefix matches come first, then those of most articles.
    """
    key = key_of(begun.strip())
    number = func.count(Article.id).label("number")
    asked = (
        select(Tag.name, number)
        .join(ArticleTag, ArticleTag.name == Tag.name)
        .join(Article, (Article.id == ArticleTag.article_id) & (Article.status == "published"))
        .where(read_by(actor.groups))
        .group_by(Tag.key, Tag.name)
        .order_by(Tag.key.startswith(key, autoescape=True).desc(), number.desc(), Tag.key)
        .limit(_MOST_SUGGESTIONS)
    )
    if key:
        asked = asked.where(Tag.key.contains(key, autoescape=True))
    return [{"name": row.name, "articles": row.number} for row in session.execute(asked)]


def _known(session: Session, keys: Iterable[str]) -> dict[str, str]:
    found = session.execute(select(Tag.key, Tag.name).where(Tag.key.in_(keys)))
    return {row.key: row.name for row in found}
