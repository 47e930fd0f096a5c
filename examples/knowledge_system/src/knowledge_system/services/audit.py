"""Audit log with a hash chain: each entry contains the hash of the previous one, which reveals changes and gaps.

Entries are written in the transaction of the action they record, and the database rejects changes and deletions.
The owner of the database could still rewrite the whole chain; a copy of the newest hash stored elsewhere reveals
that (``audit_heads``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import or_, select, text
from sqlalchemy.orm import Session

from knowledge_system.domain.permissions import Actor
from knowledge_system.models import AuditEntry

FIRST = "0" * 64
"""The previous hash of the first entry."""
_READ_AT_ONCE = 1000
_LOCK = 0x6D6B735F61756474


class Fact(NamedTuple):
    """What was done, to what, and further details; never a secret."""

    action: str
    subject: str
    detail: dict[str, Any]


def chained(previous: str, values: tuple[str, int | None, str, str, str, str]) -> str:
    """Return the hash of an entry: of the previous hash, time, actor id, actor name, action, subject and detail."""
    serialized = json.dumps([previous, *values], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(serialized.encode("utf-8")).hexdigest()


def append(session: Session, actor: Actor, fact: Fact, *, now: datetime) -> None:
    """Append an entry to the chain; concurrent writers wait until the transaction ends."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    newest = select(AuditEntry.hash).order_by(AuditEntry.id.desc()).limit(1)
    previous = session.scalar(newest) or FIRST
    detail = json.dumps(fact.detail, ensure_ascii=False, sort_keys=True)
    entry = AuditEntry(
        at=now,
        actor_id=actor.id or None,
        actor_name=actor.username,
        action=fact.action,
        subject=fact.subject,
        detail=detail,
        previous=previous,
    )
    entry.hash = chained(previous, _values(entry))
    session.add(entry)
    session.flush()


def entries(
    session: Session,
    *,
    query: str,
    before: int | None,
    most: int = 50,
    codes: Callable[[str], Sequence[str]] = lambda _word: (),
) -> list[dict[str, Any]]:
    """Return entries, newest first, in which every word of the query occurs.

    Args:
        session: database session.
        query: up to five words from user name, action, subject or detail; further words are ignored.
        before: only entries with a lower id.
        most: maximum number of entries.
        codes: returns the stored codes of actions and subjects that a word of the query may stand for.
    """
    asked = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(most)
    if before is not None:
        asked = asked.where(AuditEntry.id < before)
    searched = (AuditEntry.actor_name, AuditEntry.action, AuditEntry.subject, AuditEntry.detail)
    for word in query.split()[:5]:
        texts = (word, *codes(word))
        asked = asked.where(
            or_(*(column.icontains(text, autoescape=True) for column in searched for text in texts))
        )
    return [
        {
            "id": entry.id,
            "at": entry.at,
            "actor": entry.actor_name,
            "action": entry.action,
            "subject": entry.subject,
            "detail": json.loads(entry.detail),
            "hash": entry.hash,
        }
        for entry in session.scalars(asked)
    ]


def first_broken_entry(session: Session) -> int | None:
    """Return the id of the first entry that breaks the chain; ``None`` if the chain is intact."""
    previous, last = FIRST, 0
    while found := session.scalars(
        select(AuditEntry).where(AuditEntry.id > last).order_by(AuditEntry.id).limit(_READ_AT_ONCE)
    ).all():
        for entry in found:
            if entry.previous != previous or entry.hash != chained(previous, _values(entry)):
                return entry.id
            previous, last = entry.hash, entry.id
        session.expunge_all()
    return None


def _values(entry: AuditEntry) -> tuple[str, int | None, str, str, str, str]:
    return (
        entry.at.isoformat(timespec="microseconds"),
        entry.actor_id,
        entry.actor_name,
        entry.action,
        entry.subject,
        entry.detail,
    )
