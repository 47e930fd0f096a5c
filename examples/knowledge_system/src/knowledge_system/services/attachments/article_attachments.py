"""Attachments in the database: adding, removing, visibility."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import contains_eager

from knowledge_system.domain import permissions
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.models import Article, Attachment
from knowledge_system.services.attachments import attachment_texts
from knowledge_system.services.visibility import seen_by, waiting_seen_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from knowledge_system.domain.permissions import Actor
    from knowledge_system.services.attachments.upload_intake import Stored

MOST: Final = 50
"""Maximum number of attachments per article."""
_MAX_ID: Final = 2**31 - 1


def attach(session: Session, actor: Actor, article_id: int, file: Stored, *, now: datetime) -> dict[str, Any]:
    """Attach a stored file; readers of a published article see it with the next version.

    Raises:
        Problem: ``not-found``, ``forbidden``, or ``invalid`` beyond ``MOST``.
    """
    article = check_can_attach(session, actor, article_id, lock=True)
    made = new_attachment(article, actor.id, file, now=now)
    session.add(made)
    session.flush()
    return as_dict(made)


def new_attachment(article: Article, uploader_id: int, file: Stored, *, now: datetime) -> Attachment:
    """Return the row of a stored file, which readers see at once if the article is not approved yet."""
    return Attachment(
        article_id=article.id,
        uploader_id=uploader_id,
        name=file.file.name,
        content_type=file.file.kind.type,
        size=len(file.file.content),
        digest=file.digest,
        thumbnail=file.thumbnail,
        width=file.file.width,
        height=file.file.height,
        shown=article.status in permissions.UNFINISHED,
        created_at=now,
    )


def check_can_attach(session: Session, actor: Actor, article_id: int, *, lock: bool = False) -> Article:
    """Check that the actor may attach one more file; called before the file is read, and again on attaching.

    Raises:
        Problem: as in ``attach``.
    """
    article = _seen(session, actor, article_id, lock=lock)
    if not _sees_waiting(session, actor, article_id):
        raise Problem("forbidden")
    number = session.scalar(select(func.count()).where(Attachment.article_id == article_id)) or 0
    if number >= MOST:
        raise Problem("invalid", errors=[FieldError("file", "too-many", MOST)])
    return article


def check_can_publish(session: Session, actor: Actor, article_id: int) -> None:
    """Check that the actor may see the files that become visible with the next version, if there are any.

    Raises:
        Problem: ``invalid``.
    """
    waiting = select(Attachment.id).where(Attachment.article_id == article_id, ~Attachment.shown).limit(1)
    if session.scalar(waiting) is not None and not _sees_waiting(session, actor, article_id):
        raise Problem("invalid", errors=[FieldError("category", "not-allowed")])


class Detached(NamedTuple):
    """A removed attachment: file name, uploader, and whether it was still unapproved."""

    name: str
    uploader_id: int
    waiting: bool


def detach(session: Session, actor: Actor, article_id: int, attachment_id: int) -> Detached:
    """Remove an attachment.

    Raises:
        Problem: ``not-found``, also if the actor may not see the file, or ``forbidden``: writers may remove only
            files that readers do not see yet.
    """
    article = _seen(session, actor, article_id, lock=True)
    found = _get(session, attachment_id)
    if found is None or found.article_id != article_id:
        raise Problem("not-found")
    if not (sees_waiting := _sees_waiting(session, actor, article_id)) and not found.shown:
        raise Problem("not-found")
    if not sees_waiting or not permissions.may_detach(actor, status=article.status, shown=found.shown):
        raise Problem("forbidden")
    attachment_texts.remove(session, [found.id])
    session.delete(found)
    session.flush()
    return Detached(
        found.name, found.uploader_id, not found.shown or article.status in permissions.UNFINISHED
    )


def find(session: Session, actor: Actor, attachment_id: int) -> Attachment:
    """Return an attachment that the actor may see.

    Raises:
        Problem: ``not-found``, also if the actor may not see it.
    """
    found = _get(session, attachment_id, seen_by(actor), Attachment.shown | waiting_seen_by(actor))
    if found is None:
        raise Problem("not-found")
    return found


def listed(session: Session, actor: Actor, article_id: int) -> list[dict[str, Any]]:
    """Return the attachments of an article that the actor may see, oldest first.

    Raises:
        Problem: ``not-found``.
    """
    _seen(session, actor, article_id)
    asked = select(Attachment).join(Attachment.article).where(Attachment.article_id == article_id)
    asked = asked.where(Attachment.shown | waiting_seen_by(actor)).order_by(Attachment.id)
    return [as_dict(each) for each in session.scalars(asked)]


def used(session: Session, digests: Sequence[str]) -> set[str]:
    """Return the digests that an attachment refers to, as its file or its thumbnail."""
    found: set[str] = set()
    for column in (Attachment.digest, Attachment.thumbnail):
        found.update(session.scalars(select(column).where(column.in_(digests))))
    return found


def as_dict(attachment: Attachment) -> dict[str, Any]:
    """Return the public data of an attachment as plain values, which can be cached."""
    return {
        "id": attachment.id,
        "name": attachment.name,
        "content_type": attachment.content_type,
        "size": attachment.size,
        "sha256": attachment.digest,
        "width": attachment.width,
        "height": attachment.height,
        "shown": attachment.shown,
        "created_at": attachment.created_at.isoformat(),
        "url": f"/files/{attachment.id}",
    }


def _seen(session: Session, actor: Actor, article_id: int, *, lock: bool = False) -> Article:
    chosen = select(Article).where(Article.id == article_id, seen_by(actor))
    if lock:  # wait until a concurrent deletion or publication is finished
        chosen = chosen.with_for_update()
    article = session.scalar(chosen) if 0 < article_id <= _MAX_ID else None
    if article is None:
        raise Problem("not-found")
    return article


def _sees_waiting(session: Session, actor: Actor, article_id: int) -> bool:
    asked = select(Article.id).where(Article.id == article_id, waiting_seen_by(actor))
    return session.scalar(asked) is not None


def _get(session: Session, attachment_id: int, *conditions: ColumnElement[bool]) -> Attachment | None:
    if not 0 < attachment_id <= _MAX_ID:
        return None
    asked = select(Attachment).join(Attachment.article).where(Attachment.id == attachment_id, *conditions)
    return session.scalar(asked.options(contains_eager(Attachment.article)))
