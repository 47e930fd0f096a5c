"""The user table as the account source of ``SignIn``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import exists, select, update

from knowledge_system.domain.problems import Problem
from knowledge_system.models import ProviderIdentity, User
from knowledge_system.services.transactions import count_changed
from mks_hardening.security import SignInAccount

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker


class UserAccounts:
    """``Accounts`` implementation over the user table; each call uses its own transaction.

    Args:
        sessions: factory of database sessions.
        reads: factory of sessions that only read.
        mail_domain: domain of the default address ``username@mail_domain``, for users without an address.
        passwords_of: who keeps the password beside the identity provider: these user names; ``None`` for everybody.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        *,
        reads: sessionmaker[Session],
        mail_domain: str = "",
        passwords_of: frozenset[str] | None = None,
    ) -> None:
        self._sessions = sessions
        self._reads = reads
        self._mail_domain = mail_domain
        self._passwords_of = passwords_of

    def find(self, name: str, /) -> SignInAccount | None:
        """Return the account with this user name."""
        with self._reads() as session:
            user = session.scalar(select(User).where(User.username == name))
            # For a password or a reset: neither is for an account of the provider.
            return None if self._by_provider_alone(session, user) else self._account(user)

    def get(self, user_id: str, /) -> SignInAccount | None:
        """Return the account with this id."""
        with self._reads() as session:
            user = session.get(User, int(user_id))
            account = self._account(user)
            if account is not None and self._by_provider_alone(session, user):
                return replace(account, password_hash=None)
            return account

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
            if count_changed(session, change) != 1:
                raise Problem("username-taken")

    def _by_provider_alone(self, session: Session, user: User | None) -> bool:
        if user is None or self._passwords_of is None or user.username in self._passwords_of:
            return False
        return session.scalar(select(exists().where(ProviderIdentity.user_id == user.id))) is True

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
