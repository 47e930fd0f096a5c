"""The daily mail with the notices that a user has not read, and the choice between it, single mails and none."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import or_, select, update

from knowledge_system.domain.permissions import JST, Actor
from knowledge_system.models import User
from knowledge_system.services.knowledge import review
from knowledge_system.services.visibility import groups_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from knowledge_system.services.knowledge.review import NoticeGroup

_FIRST: Final = timedelta(days=7)
"""How far back the first digest of a user goes."""


class Digest(NamedTuple):
    """What a user has not read since the last digest: notices by article, and the number of overdue articles."""

    language: str
    groups: list[NoticeGroup]
    overdue: int


def choice(session: Session, user_id: int) -> str:
    """Return how a user gets notices by mail, a key of ``permissions.MAILS``."""
    return session.scalars(select(User.mails).where(User.id == user_id)).one()


def choose(session: Session, user_id: int, mails: str) -> None:
    """Set how a user gets notices by mail."""
    session.execute(update(User).where(User.id == user_id).values(mails=mails))


def due(session: Session, *, now: datetime) -> Sequence[int]:
    """Return the users who have not had today's digest."""
    return session.scalars(select(User.id).where(_is_due(now)).order_by(User.id)).all()


def take(session: Session, user_id: int, *, now: datetime) -> Digest | None:
    """Take today's digest of a user, in the transaction that sends it; ``None`` if there is nothing to send.

    The row of the user is locked, so that only one of two workers gets the digest.
    """
    user = session.scalar(select(User).where(User.id == user_id, _is_due(now)).with_for_update())
    if user is None:
        return None
    belongs_to = frozenset(session.scalars(groups_of(user.id)))
    actor = Actor(user.id, user.username, user.display_name, user.role, user.language, groups=belongs_to)
    groups = review.notices(session, actor, unread_since=user.digest_at or now - _FIRST)
    overdue, unread = review.overdue_notices(session, actor)
    user.digest_at = now
    return Digest(user.language or "ja", groups, overdue if unread else 0) if groups or unread else None


def _is_due(now: datetime) -> ColumnElement[bool]:
    today = now.astimezone(JST).replace(hour=0, minute=0, second=0, microsecond=0)
    return User.active & (User.mails == "daily") & or_(User.digest_at.is_(None), User.digest_at < today)


def signature(key: bytes, user_id: int) -> str:
    """Return the signature of the link with which a user stops the mails without signing in."""
    return hmac.digest(key, f"stop the mails of {user_id}".encode(), "sha256").hex()


def is_signed(keys: Sequence[bytes], user_id: int, sent: str) -> bool:
    """Whether one of the keys made the signature."""
    return any([hmac.compare_digest(signature(key, user_id), sent) for key in keys])  # noqa: C419 - all of them
