"""Accounts of people whom an identity provider authenticates: linked once, by a verified address."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from knowledge_system.domain.problems import Problem
from knowledge_system.domain.provider_claims import ClaimsError
from knowledge_system.models import ProviderIdentity, User
from knowledge_system.services.identity import accounts

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from knowledge_system.domain.provider_claims import Identity

_UNUSABLE: Final = re.compile(r"[^a-z0-9._-]+")
_SHORTEST: Final = 3


class Found(NamedTuple):
    """The account of a person, and what was done to have it."""

    user_id: str
    done: Literal["", "linked", "created"]


def find(session: Session, identity: Identity) -> Found | None:
    """Return the account that is linked to a person."""
    user_id = session.scalar(select(ProviderIdentity.user_id).where(ProviderIdentity.key == identity.key))
    return None if user_id is None else Found(str(user_id), "")


def find_or_link(session: Session, identity: Identity, *, new_role: str, now: datetime) -> Found:
    """Return the account of a person; link or create it at their first sign-in.

    Afterwards only issuer and subject count: an address may be given to somebody else.

    Args:
        session: database session; the caller commits.
        identity: what the provider says.
        new_role: role of accounts that are created; empty if none are.
        now: time of the creation.

    Raises:
        ClaimsError: ``no_account``, ``unverified``: without a verified address; ``linked``: another person of the
            provider has the account of this address; ``disabled``: its user has left.
    """
    known = find(session, identity)
    if known is not None:
        return known
    if not identity.email:
        raise ClaimsError("unverified")
    user = session.scalar(select(User).where(User.email == identity.email).with_for_update())
    if user is not None and not user.active:
        raise ClaimsError("disabled")
    if user is None and not new_role:
        raise ClaimsError("no_account")
    try:
        with session.begin_nested():
            owner = user.id if user is not None else _create(session, identity, new_role, now)
            session.add(ProviderIdentity(key=identity.key, user_id=owner, linked_at=now))
    except (IntegrityError, Problem) as error:
        known = find(session, identity)  # the same person, in another tab
        if known is None:
            raise ClaimsError("linked") from error
        return known
    return Found(str(owner), "linked" if user is not None else "created")


def unlink(session: Session, user_id: int) -> bool:
    """Remove the link of an account, so that its address counts once more; return whether there was one."""
    gone = delete(ProviderIdentity).where(ProviderIdentity.user_id == user_id).returning(ProviderIdentity.key)
    return session.execute(gone).first() is not None


def _create(session: Session, identity: Identity, role: str, now: datetime) -> int:
    local = identity.email.partition("@")[0]
    name = _UNUSABLE.sub("", local).lstrip("0123456789._-")[:50]
    taken = session.scalar(select(User.id).where(User.username == name)) is not None
    if taken or len(name) < _SHORTEST:
        name = f"{name or 'user'}-{identity.key[:6]}"
    made = accounts.register(
        session,
        username=name,
        display_name=identity.name or local[:100],
        department="",
        role=role,
        email=identity.email,
        now=now,
    )
    return made.id
