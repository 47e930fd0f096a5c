"""Members of staff: finding, adding, checking passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from knowledge_system.models import User
from knowledge_system.problems import FieldFault, Problem
from knowledge_system.rules import Actor

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session
from mks_hardening.security import hash_password, verify_password

__all__ = ["account_names", "actor_of", "authenticate", "find", "password_is_right", "register"]


def actor_of(user: User) -> Actor:
    """The person as the rules see him or her."""
    return Actor(user.id, user.username, user.display_name, user.role)


def find(session: Session, user_id: int) -> Actor | None:
    """The actor with this id, or None."""
    user = session.get(User, user_id)
    return actor_of(user) if user else None


def authenticate(session: Session, *, username: str, password: str) -> Actor | None:
    """The actor with this name and password; unknown names cost the same work as wrong passwords."""
    user = session.scalar(select(User).where(User.username == username))
    if not verify_password(password, user.password_hash if user else None):
        return None
    return actor_of(user) if user else None


def password_is_right(session: Session, user_id: int, password: str) -> bool:
    """Whether this is the password of a signed-in person."""
    user = session.get(User, user_id)
    return bool(verify_password(password, user.password_hash if user else None))


def register(
    session: Session,
    *,
    username: str,
    display_name: str,
    department: str,
    role: str,
    password: str,
    now: datetime,
) -> Actor:
    """Add a member of staff.

    Raises:
        Problem: ``invalid`` for a weak password, ``username-taken``.
    """
    from mks_hardening.security import PasswordPolicy

    if not PasswordPolicy().check(password, username=username):
        raise Problem("invalid", faults=[FieldFault("password", "weak")])
    user = User(
        username=username,
        display_name=display_name,
        department=department,
        role=role,
        password_hash=hash_password(password),
        created_at=now,
    )
    session.add(user)
    try:
        session.flush()
    except IntegrityError as error:
        raise Problem("username-taken") from error
    return actor_of(user)


def account_names(session: Session) -> list[tuple[str, str, str, str]]:
    """User name, name, role and department of everybody, for the administrator."""
    rows = session.execute(
        select(User.username, User.display_name, User.role, User.department).order_by(User.username)
    )
    return [(row.username, row.display_name, row.role, row.department) for row in rows]
