"""User accounts: finding, adding, changing."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import String, bindparam, cast, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from knowledge_system.domain import permissions
from knowledge_system.domain.people_csv import Account
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.models import GroupMember, ProviderIdentity, Reader, User
from knowledge_system.services.knowledge.review import select_unread

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection, Dialect
    from sqlalchemy.orm import Session
from mks_hardening.db import InvalidCursorError, keyset_page
from mks_hardening.security import PasswordPolicy, hash_password

_LINKED = exists().where(ProviderIdentity.user_id == User.id)
_WITH_LINK = select(User, _LINKED)


_ON_A_PAGE: Final = 100


def fingerprint(*values: object) -> str:
    """Return the fingerprint of what a form shows, to detect concurrent changes."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


class Member(NamedTuple):
    """An account as shown to administrators; ``linked`` to a person of the identity provider or not."""

    username: str
    display_name: str
    department: str
    role: str
    email: str
    active: bool
    has_password: bool
    linked: bool

    @property
    def invited(self) -> bool:
        """Whether the user has no way to sign in yet."""
        return not self.has_password and not self.linked

    @property
    def seen(self) -> str:
        """Fingerprint of the editable fields, to detect concurrent changes."""
        return fingerprint(self.display_name, self.department, self.role, self.email, self.active)


class Changed(NamedTuple):
    """The changed account, with its previous role and status."""

    user_id: int
    role: str
    active: bool


def actor_of(user: User) -> Actor:
    """Return the actor of a user."""
    return Actor(user.id, user.username, user.display_name, user.role, user.language)


def find(connection: Connection, user_id: int) -> Actor | None:
    """Return the active user with this id, or ``None``; a single plain row, as it is read on every request."""
    statement, constants, order = _actor_sql(connection.dialect)
    given = {**constants, "user_id": user_id}
    found = connection.exec_driver_sql(
        statement, given if order is None else tuple(given[name] for name in order)
    ).first()
    if found is None:
        return None
    *values, names = found
    return Actor(*values)._replace(groups=frozenset(map(int, names.split(","))) if names else frozenset())


@lru_cache(maxsize=4)
def _actor_sql(dialect: Dialect) -> tuple[str, dict[str, Any], list[str] | None]:
    """Compile the statement once: SQLAlchemy takes longer to find it in its own cache than the driver to run it.

    Returns:
        The SQL, its parameters, and their order if they have no names.
    """
    unread = select_unread().scalar_subquery()
    # Only groups that something is restricted to: people without one share all entries of the cache.
    groups = (
        select(func.aggregate_strings(cast(GroupMember.group_id, String), ","))
        .where(GroupMember.user_id == User.id, GroupMember.group_id.in_(select(Reader.group_id)))
        .scalar_subquery()
    )
    asked = select(User.id, User.username, User.display_name, User.role, User.language, unread, groups)
    compiled = asked.where(User.id == bindparam("user_id", 0), User.active).compile(
        dialect=dialect, compile_kwargs={"render_postcompile": True}
    )
    return compiled.string, dict(compiled.params), compiled.positiontup if compiled.positional else None


def id_of(session: Session, username: str) -> int:
    """Return the id of the user with this name.

    Raises:
        Problem: ``no-such-user``.
    """
    found = session.scalar(select(User.id).where(User.username == username))
    if found is None:
        raise Problem("no-such-user")
    return found


def register(
    session: Session,
    *,
    username: str,
    display_name: str,
    department: str,
    role: str,
    email: str = "",
    password: str = "",
    password_hash: str = "",
    now: datetime,
) -> Actor:
    """Add a user; without password and hash, the user needs an invitation, and therefore a mail address.

    Raises:
        Problem: ``invalid`` for a weak password, or without password and address; ``username-taken``.
    """
    if not password and not password_hash and not email:
        raise Problem("invalid", errors=[FieldError("email", "missing")])
    if password and not PasswordPolicy().check(password, username=username):
        raise Problem("invalid", errors=[FieldError("password", "weak")])
    user = User(
        username=username,
        display_name=display_name,
        department=department,
        role=role,
        email=email.lower() or None,
        password_hash=hash_password(password) if password else password_hash or None,
        created_at=now,
    )
    session.add(user)
    _flush(session)
    return actor_of(user)


def change(
    session: Session,
    actor: Actor,
    username: str,
    *,
    display_name: str,
    department: str,
    role: str,
    email: str,
    active: bool,
    seen: str,
    now: datetime,
) -> Changed:
    """Change an account as an administrator; return its id and its previous role and status.

    Administrators cannot demote or deactivate themselves, so there is always one left.

    Raises:
        Problem: ``forbidden`` if the actor is no longer an administrator, ``no-such-user``, ``own-account``,
            ``username-taken`` if another user has the address, ``conflict`` if the account has changed since
            ``seen``.
    """
    both = select(User).where(or_(User.username == username, User.id == actor.id)).order_by(User.id)
    found = session.scalars(both.with_for_update()).all()
    user = next((each for each in found if each.username == username), None)
    # If two administrators deactivate each other, the second is no longer an administrator.
    if not any(
        each.id == actor.id and each.active and permissions.may_administer(actor_of(each)) for each in found
    ):
        raise Problem("forbidden")
    if user is None:
        raise Problem("no-such-user")
    if seen not in {"", _member(user).seen}:
        raise Problem("conflict")
    if user.id == actor.id and (role != user.role or not active):
        raise Problem("own-account")
    before = Changed(user.id, user.role, user.active)
    user.display_name, user.department, user.role = display_name, department, role
    user.email, user.active = email.lower() or None, active
    user.deactivated_at = None if active else user.deactivated_at or now
    _flush(session)
    return before


def set_language(session: Session, user_id: int, language: str) -> None:
    """Set the language of a user."""
    session.execute(update(User).where(User.id == user_id).values(language=language))


def _flush(session: Session) -> None:
    try:
        session.flush()
    except IntegrityError as error:
        raise Problem("username-taken") from error


def members(
    session: Session, *, query: str = "", after: str | None = None
) -> tuple[list[Member], str | None]:
    """Return a page of the accounts by user name, for administrators, and the cursor of the next page.

    Args:
        session: database session.
        query: text in the user name, name, department or address of each account.
        after: cursor of the page; ``None`` for the first.

    Raises:
        Problem: ``bad-cursor``.
    """
    columns = (User.username, User.display_name, User.department, User.email)
    wanted = _WITH_LINK.where(or_(*(column.icontains(query, autoescape=True) for column in columns)))
    try:
        page = keyset_page(
            wanted if query else _WITH_LINK, order_by=[User.username], after=after, limit=_ON_A_PAGE
        ).fetch(session)
    except InvalidCursorError as error:
        raise Problem("bad-cursor") from error
    return [_member(user, linked=linked) for user, linked in page.items], page.next_cursor


def member(session: Session, username: str) -> Member:
    """Return one account, for administrators.

    Raises:
        Problem: ``not-found``.
    """
    found = session.execute(_WITH_LINK.where(User.username == username)).first()
    if found is None:
        raise Problem("not-found")
    return _member(found[0], linked=found[1])


def for_import(session: Session) -> dict[str, Account]:
    """Return all accounts by user name, as an import compares them."""
    asked = select(User.username, User.email, User.password_hash, User.active, _LINKED.label("linked"))
    return {
        row.username: Account(row.email or "", row.active and row.password_hash is None and not row.linked)
        for row in session.execute(asked)
    }


def names(session: Session, user_ids: Iterable[int]) -> dict[int, str]:
    """Return user names by id."""
    asked = select(User.id, User.username).where(User.id.in_(set(user_ids)))
    return {row.id: row.username for row in session.execute(asked)}


def administrators(session: Session) -> int:
    """Return the number of active administrators."""
    return session.scalar(select(func.count(User.id)).where(User.role == "admin", User.active)) or 0


def _member(user: User, *, linked: bool = False) -> Member:
    return Member(
        user.username,
        user.display_name,
        user.department,
        user.role,
        user.email or "",
        user.active,
        user.password_hash is not None,
        linked,
    )
