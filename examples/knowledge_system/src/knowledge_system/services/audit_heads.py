"""Copies of the audit log's newest hash, stored outside its database.

The chain reveals changes and gaps in the middle; the owner of the database could still remove its end, or rewrite
it completely. Each night the head of the chain is appended to a file, preferably on another host's disk, and
written to the application log. Entries after the last copy are covered by the next one.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from knowledge_system.models import AuditEntry

_LONGEST = 262_144
"""Bytes read from the end of the file: about five years of nights."""


class Head(NamedTuple):
    """The last entry of the chain: who keeps its hash can tell later that nothing before it was changed."""

    id: int
    hash: str


def newest(session: Session) -> Head | None:
    """Return the current head; ``None`` if the log is empty."""
    found = session.execute(
        select(AuditEntry.id, AuditEntry.hash).order_by(AuditEntry.id.desc()).limit(1)
    ).first()
    return Head(*found) if found else None


def keep(file: Path, head: Head, *, now: datetime) -> None:
    """Append a line to the file and sync it to disk."""
    line = json.dumps({"at": now.isoformat(timespec="seconds"), "id": head.id, "hash": head.hash})
    with file.open("ab", buffering=0) as opened:
        before = os.fstat(opened.fileno()).st_size
        data = f"{line}\n".encode()
        try:
            while data:
                data = data[opened.write(data) :]
            os.fsync(opened.fileno())
        except OSError:
            # A partial line would make the file unreadable, and look like tampering every night.
            opened.truncate(before)
            raise


def first_missing(session: Session, file: Path) -> Head | None:
    """Return the first stored head that is missing from the log; ``None`` if all of them are present.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has invalid content.
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
    entries = [json.loads(line) for line in lines]
    return [Head(int(each["id"]), str(each["hash"])) for each in entries]
