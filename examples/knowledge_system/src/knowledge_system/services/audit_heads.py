"""Copies of the newest hash of the audit log, kept where its database is not.

The chain shows what was changed or left out in the middle; whoever owns the database could still remove its end, or
write all of it anew. A file, best on another host's disk, remembers where the chain ended each night, and so does
the log of the application. What was written since the last copy is covered by the next one.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from knowledge_system.models import AuditEntry

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

__all__ = ["Head", "first_missing", "keep", "newest"]

_LONGEST = 262_144
"""Bytes of the file that are read: about five years of nights."""


class Head(NamedTuple):
    """Where the chain ended."""

    id: int
    hash: str


def newest(session: Session) -> Head | None:
    """Where it ends now; ``None`` before the first entry."""
    found = session.execute(
        select(AuditEntry.id, AuditEntry.hash).order_by(AuditEntry.id.desc()).limit(1)
    ).first()
    return Head(*found) if found else None


def keep(file: Path, head: Head, *, now: datetime) -> None:
    """Add a line to the file, and wait until it is on the disk."""
    line = json.dumps({"at": now.isoformat(timespec="seconds"), "id": head.id, "hash": head.hash})
    with file.open("ab", buffering=0) as opened:
        before = os.fstat(opened.fileno()).st_size
        data = f"{line}\n".encode()
        try:
            while data:
                data = data[opened.write(data) :]
            os.fsync(opened.fileno())
        except OSError:
            # Half a line would make the file unreadable, and every later night look like an attack.
            opened.truncate(before)
            raise


def first_missing(session: Session, file: Path) -> Head | None:
    """The first kept end that is no entry of the log any more; ``None`` where each of them still is one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else.
    """
    kept = _kept(file)
    ids = {head.id for head in kept}
    there = {
        Head(*row)
        for row in session.execute(select(AuditEntry.id, AuditEntry.hash).where(AuditEntry.id.in_(ids)))
    }
    return next((head for head in kept if head not in there), None)


def _kept(file: Path) -> list[Head]:
    if not file.exists():
        return []
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - _LONGEST))
        lines = opened.read().splitlines()[0 if size <= _LONGEST else 1 :]
    told = [json.loads(line) for line in lines]
    return [Head(int(each["id"]), str(each["hash"])) for each in told]
