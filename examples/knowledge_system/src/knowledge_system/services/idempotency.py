"""Idempotency keys: the response to a request with an ``Idempotency-Key`` is stored and returned for retries."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from knowledge_system.domain.problems import Problem
from knowledge_system.models import IdempotencyRecord
from knowledge_system.services.transactions import count_changed

_LEASE: Final = timedelta(seconds=60)
"""Longer than any request takes; after that, the process that claimed the key is assumed to have died."""
_KEPT: Final = timedelta(hours=24)


class Claim(NamedTuple):
    """The right to execute a request, or its stored response."""

    owner: int
    key: str
    token: str
    answer: str | None = None


def claim(sessions: sessionmaker[Session], owner: int, key: str, fingerprint: str, *, now: datetime) -> Claim:
    """Claim a key, unless it is in use or has a response.

    Args:
        sessions: factory of database sessions.
        owner: id of the user; each user has separate keys.
        key: key sent by the client.
        fingerprint: digest of method, path and body.
        now: current time.

    Raises:
        Problem: ``key-reused`` if the key was used for a different request, ``call-in-flight`` while it is being
            processed, ``call-unanswered`` if it was interrupted after the change and before the response.
    """
    digest, token = hashlib.sha256(key.encode()).hexdigest(), uuid.uuid4().hex
    until, expires = now + _LEASE, now + _KEPT
    with sessions.begin() as session:
        session.execute(
            delete(IdempotencyRecord).where(
                IdempotencyRecord.owner_id == owner,
                IdempotencyRecord.key == digest,
                IdempotencyRecord.expires_at <= now,
            )
        )
    row = IdempotencyRecord(
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
        known = session.get(IdempotencyRecord, (owner, digest), with_for_update=True)
        if known is None:  # released in the meantime
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
    """Record within the transaction of the change that it was made, so that it is not repeated.

    Raises:
        Problem: ``call-in-flight`` if another process has taken over the claim; the change is rolled back.
    """
    if count_changed(session, update(IdempotencyRecord).where(*_mine(mine)).values(changed=True)) != 1:
        raise Problem("call-in-flight", headers={"Retry-After": "1"})


def keep_answer(sessions: sessionmaker[Session], mine: Claim, answer: str) -> None:
    """Store the response."""
    with sessions.begin() as session:
        session.execute(update(IdempotencyRecord).where(*_mine(mine)).values(answer=answer))


def release(sessions: sessionmaker[Session], mine: Claim) -> None:
    """Release a claim whose request was rejected without a change, so that it can be corrected and retried."""
    with sessions.begin() as session:
        session.execute(delete(IdempotencyRecord).where(*_mine(mine), IdempotencyRecord.changed.is_(False)))


def remove_expired(session: Session, *, now: datetime) -> int:
    """Delete expired responses; return how many."""
    return count_changed(session, delete(IdempotencyRecord).where(IdempotencyRecord.expires_at <= now))


def _mine(mine: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        IdempotencyRecord.owner_id == mine.owner,
        IdempotencyRecord.key == mine.key,
        IdempotencyRecord.claim == mine.token,
    )
