"""Calls that may be sent again: the answer to an ``Idempotency-Key`` is kept, and given for every repetition."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError

from knowledge_system.domain.problems import Problem
from knowledge_system.models import RepeatableCall

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session, sessionmaker

__all__ = ["Claim", "claim", "keep_answer", "mark_changed", "release", "remove_expired"]

_LEASE: Final = timedelta(seconds=60)
"""Longer than any request may take; after that the process that had the call is gone."""
_KEPT: Final = timedelta(hours=24)


class Claim(NamedTuple):
    """The right to carry a call out, or what was answered when it was."""

    owner: int
    key: str
    token: str
    answer: str | None = None


def claim(sessions: sessionmaker[Session], owner: int, key: str, fingerprint: str, *, now: datetime) -> Claim:
    """Take the call, unless somebody has it or it was answered.

    Args:
        sessions: makes database sessions.
        owner: whose call it is; the keys of others are other keys.
        key: as the client chose it.
        fingerprint: digest of method, path and body.
        now: the moment.

    Raises:
        Problem: ``key-reused`` for another call under this key, ``call-in-flight`` while it is carried out,
            ``call-unanswered`` where that ended after the change and before the answer.
    """
    digest, token = hashlib.sha256(key.encode()).hexdigest(), uuid.uuid4().hex
    until, expires = now + _LEASE, now + _KEPT
    with sessions.begin() as session:
        session.execute(
            delete(RepeatableCall).where(
                RepeatableCall.owner_id == owner,
                RepeatableCall.key == digest,
                RepeatableCall.expires_at <= now,
            )
        )
    row = RepeatableCall(
        owner_id=owner,
        key=digest,
        fingerprint=fingerprint,
        claim=token,
        claimed_until=until,
        expires_at=expires,
    )
    try:
        with sessions.begin() as session:
            session.add(row)
        return Claim(owner, digest, token)
    except IntegrityError:
        pass
    with sessions.begin() as session:
        known = session.get(RepeatableCall, (owner, digest), with_for_update=True)
        if known is None:  # released meanwhile
            raise Problem("call-in-flight", headers={"Retry-After": "1"})
        if known.fingerprint != fingerprint:
            raise Problem("key-reused")
        if known.answer is not None:
            return Claim(owner, digest, token, known.answer)
        if known.claimed_until > now:
            raise Problem("call-in-flight", headers={"Retry-After": "1"})
        if known.changed:
            raise Problem("call-unanswered")
        known.claim, known.claimed_until = token, until
    return Claim(owner, digest, token)


def mark_changed(session: Session, mine: Claim) -> None:
    """Say in the transaction of the change that it is made, so that it cannot be made again.

    Raises:
        Problem: ``call-in-flight`` when another process has taken the call over; the change is rolled back.
    """
    done = session.execute(update(RepeatableCall).where(*_mine(mine)).values(changed=True))
    if done.rowcount != 1:  # type: ignore[attr-defined]  # an UPDATE gives a CursorResult
        raise Problem("call-in-flight", headers={"Retry-After": "1"})


def keep_answer(sessions: sessionmaker[Session], mine: Claim, answer: str) -> None:
    """Keep what is answered."""
    with sessions.begin() as session:
        session.execute(update(RepeatableCall).where(*_mine(mine)).values(answer=answer))


def release(sessions: sessionmaker[Session], mine: Claim) -> None:
    """Give a call back that was refused and changed nothing, so that it can be mended and sent again."""
    with sessions.begin() as session:
        session.execute(delete(RepeatableCall).where(*_mine(mine), RepeatableCall.changed.is_(False)))


def remove_expired(session: Session, *, now: datetime) -> int:
    """Forget answers whose time is over; how many."""
    done = session.execute(delete(RepeatableCall).where(RepeatableCall.expires_at <= now))
    number: int = done.rowcount  # type: ignore[attr-defined]  # a DELETE gives a CursorResult
    return number


def _mine(mine: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        RepeatableCall.owner_id == mine.owner,
        RepeatableCall.key == mine.key,
        RepeatableCall.claim == mine.token,
    )
