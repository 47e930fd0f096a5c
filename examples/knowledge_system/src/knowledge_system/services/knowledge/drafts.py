"""Drafts: what a user has typed into the editor and not saved yet, kept for a month for this user only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.models import Article, Draft
from knowledge_system.services.insert_if_missing import add_missing
from knowledge_system.services.knowledge.article_queries import MAX_ID
from knowledge_system.services.transactions import count_changed
from knowledge_system.services.visibility import seen_by

KEPT_FOR: Final = timedelta(days=30)
_MOST: Final = 100


class StoredDraft(NamedTuple):
    """A draft: the revision it began with (0 for a new article), its fields, and when it was kept."""

    revision: int
    values: dict[str, str]
    saved_at: datetime


def form_of(article_id: int | None) -> str:
    """Return the name of an editor: of an article, or of a new one."""
    return f"article-{article_id or 'new'}"


def store(
    session: Session, actor: Actor, form: str, revision: int, values: Mapping[str, str], *, now: datetime
) -> None:
    """Keep what was typed, in the place of what was kept before.

    Raises:
        Problem: ``invalid`` beyond the maximum number of drafts.
    """
    content = dict(values)
    known = update(Draft).where(Draft.user_id == actor.id, Draft.form == form)
    if count_changed(session, known.values(revision=revision, content=content, saved_at=now)):
        return
    number = session.scalar(select(func.count()).select_from(Draft).where(Draft.user_id == actor.id)) or 0
    if number >= _MOST:
        raise Problem("invalid", errors=[FieldError("form", "too-many", _MOST)])
    row = {"user_id": actor.id, "form": form, "revision": revision, "content": content, "saved_at": now}
    add_missing(session, Draft, [row])


def load(session: Session, actor: Actor, form: str) -> StoredDraft | None:
    """Return what the user typed into the editor, unless the user may not see the article any more.

    A draft holds the whole text of its article.
    """
    asked = select(Draft).where(Draft.user_id == actor.id, Draft.form == form)
    if form != form_of(None):
        article_id = int(form.removeprefix("article-"))
        if article_id > MAX_ID:
            return None
        asked = asked.where(exists().where(Article.id == article_id, seen_by(actor)))
    found = session.scalar(asked)
    return None if found is None else StoredDraft(found.revision, found.content, found.saved_at)


def discard(session: Session, actor: Actor, form: str) -> None:
    """Remove a draft, if there is one."""
    session.execute(delete(Draft).where(Draft.user_id == actor.id, Draft.form == form))


def remove_expired(session: Session, *, now: datetime) -> int:
    """Remove drafts that nobody has touched for a month; return how many."""
    return count_changed(session, delete(Draft).where(Draft.saved_at < now - KEPT_FOR))
