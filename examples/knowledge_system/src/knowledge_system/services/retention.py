"""How long data are kept: a leaver's articles are handed over, and the account is emptied when it expires."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from knowledge_system import models
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import Problem
from knowledge_system.domain.translations import say
from knowledge_system.models import Article, Draft, Favourite, GroupMember, Notice, Report, User, Watch
from knowledge_system.services import audit
from knowledge_system.services.audit import Fact
from knowledge_system.services.transactions import count_changed

_SYSTEM = Actor(0, "system", "", "admin")
_ERASED = "former:"
"""Begins the user name of an emptied account; no account can be given such a name."""


class Leaver(NamedTuple):
    """A deactivated account: when it is emptied, and how many articles are still in its name."""

    id: int
    username: str
    display_name: str
    erased_at: datetime
    articles: int


def leavers(session: Session, *, kept: float) -> list[Leaver]:
    """Return the deactivated accounts that are not emptied yet, the next one first."""
    written = select(func.count()).where(Article.author_id == User.id).scalar_subquery()
    asked = select(User.id, User.username, User.display_name, User.deactivated_at, written.label("articles"))
    asked = asked.where(
        ~User.active, User.deactivated_at.is_not(None), ~User.username.startswith(_ERASED, autoescape=True)
    )
    return [
        Leaver(
            row.id, row.username, row.display_name, row.deactivated_at + timedelta(seconds=kept), row.articles
        )
        for row in session.execute(asked.order_by(User.deactivated_at, User.id))
    ]


def mark_leavers(session: Session, *, now: datetime) -> None:
    """Begin the time of accounts that were deactivated before their time was noted."""
    session.execute(
        update(User).where(~User.active, User.deactivated_at.is_(None)).values(deactivated_at=now)
    )


def hand_over(session: Session, username: str, successor: str) -> int:
    """Make another user the author of all articles of a deactivated account; return their number.

    Raises:
        Problem: ``no-such-user``, also if the successor is not active or may not write; ``wrong-state`` if the
            account is still active.
    """
    asked = select(User).where(User.username.in_((username, successor))).order_by(User.id).with_for_update()
    people = {user.username: user for user in session.scalars(asked)}
    leaver, heir = people.get(username), people.get(successor)
    if leaver is None or heir is None or not heir.active or heir.role == "viewer":
        raise Problem("no-such-user")
    if leaver.active:
        raise Problem("wrong-state")
    own = update(Article).where(Article.author_id == leaver.id)
    return count_changed(session, own.values(author_id=heir.id))


def erase(session: Session, user_id: int, *, kept: float, now: datetime) -> bool:
    """Empty a deactivated account whose period has ended; return whether that was so.

    Articles, versions, approvals and comments keep the account, whose name says only that it was one. Entries of
    the audit log stay as they are, because they prove who did what.
    """
    user = session.scalar(
        select(User)
        .where(User.id == user_id, ~User.active, User.deactivated_at <= now - timedelta(seconds=kept))
        .with_for_update()
    )
    if user is None or user.username.startswith(_ERASED):
        return False
    user.username = f"{_ERASED}{user.id}"
    user.display_name = say("元社員 %(number)s", "ja", number=user.id)
    user.department, user.email, user.password_hash = "", None, None
    for table in (Draft, Favourite, GroupMember, Notice, Watch):
        session.execute(delete(table).where(table.user_id == user.id))
    session.execute(delete(Report).where(Report.owner_id == user.id))
    factors: tuple[Any, ...] = (models.second_factors, models.passkeys.owners)
    for factor in factors:
        session.execute(delete(factor).where(factor.c.user_id == str(user.id)))
    audit.append(session, _SYSTEM, Fact("account.erase", f"user {user.username}", {}), now=now)
    return True


def remove_notices(session: Session, *, kept: float, now: datetime) -> int:
    """Remove notices that were read, and are older than this; return how many."""
    old = Notice.created_at < now - timedelta(seconds=kept)
    return count_changed(session, delete(Notice).where(old, Notice.read_at.is_not(None)))
