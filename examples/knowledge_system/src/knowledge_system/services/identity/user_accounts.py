"""The user table as the account source of ``SignIn``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exists, select, update

from knowledge_system.domain.problems import Problem
from knowledge_system.models import User
from mks_hardening.security import SignInAccount

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

__all__ = ["UserAccounts", "account_of"]


class UserAccounts:
    """``Accounts`` implementation over the user table; each call uses its own transaction.

    Args:
        sessions: factory of database sessions.
        mail_domain: domain of the default address ``username@mail_domain``, for users without an address.
    """

    def __init__(self, sessions: sessionmaker[Session], *, mail_domain: str = "") -> None:
        self._sessions = sessions
        self._mail_domain = mail_domain

    def find(self, name: str, /) -> SignInAccount | None:
        """Return the account with this user name."""
        with self._sessions() as session:
            return self._account(session.scalar(select(User).where(User.username == name)))

    def get(self, user_id: str, /) -> SignInAccount | None:
        """Return the account with this id."""
        with self._sessions() as session:
            return self._account(session.get(User, int(user_id)))

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        """Replace the stored password hash, unless it has changed in the meantime."""
        change = (
            update(User)
            .where(User.id == int(user_id), User.password_hash == expected)
            .values(password_hash=stored)
        )
        with self._sessions.begin() as session:
            return bool(session.execute(change.returning(User.id)).first())

    def set_email(self, user_id: str, email: str, /) -> None:
        """Replace the mail address.

        Raises:
            Problem: ``username-taken``: another user has the address by now.
        """
        taken = exists().where(User.email == email.lower(), User.id != int(user_id))
        change = update(User).where(User.id == int(user_id), ~taken).values(email=email.lower())
        with self._sessions.begin() as session:
            done = session.execute(change)
        if done.rowcount != 1:  # type: ignore[attr-defined]  # an UPDATE gives a CursorResult
            raise Problem("username-taken")

    def _account(self, user: User | None) -> SignInAccount | None:
        return account_of(user, mail_domain=self._mail_domain)


def account_of(user: User | None, *, mail_domain: str = "") -> SignInAccount | None:
    """Return the user's account for ``SignIn``; the default address is ``username@mail_domain``."""
    if user is None:
        return None
    usual = f"{user.username}@{mail_domain}" if mail_domain else ""
    return SignInAccount(
        user_id=str(user.id),
        name=user.username,
        password_hash=user.password_hash,
        disabled=not user.active,
        email=user.email or usual,
    )
