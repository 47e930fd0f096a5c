"""Export of the audit log for auditors: each entry of a period with its hashes, as CSV or JSON Lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, sessionmaker

from knowledge_system.domain.validation import FORMULA_STARTS
from knowledge_system.models import AuditEntry

_COLUMNS: Final = ("id", "at", "actor_id", "actor_name", "action", "subject", "detail", "previous", "hash")
_READ_AT_ONCE: Final = 1000


def exported(
    sessions: sessionmaker[Session], *, since: datetime | None, until: datetime | None, last: int
) -> Iterator[dict[str, Any]]:
    """Yield the entries of a period, oldest first, read in batches.

    Args:
        sessions: factory of database sessions.
        since: first moment; ``None`` for the beginning.
        until: moment after the last one; ``None`` for the end.
        last: id of the last entry.
    """
    done = 0
    while True:
        with sessions() as session:
            found = session.scalars(
                _batch(since, until).where(AuditEntry.id > done, AuditEntry.id <= last)
            ).all()
            rows = [{name: getattr(entry, name) for name in _COLUMNS} for entry in found]
        yield from ({**row, "at": row["at"].isoformat()} for row in rows)
        if len(rows) < _READ_AT_ONCE:
            return
        done = rows[-1]["id"]


def _batch(since: datetime | None, until: datetime | None) -> Select[Any]:
    asked = select(AuditEntry).order_by(AuditEntry.id).limit(_READ_AT_ONCE)
    if since is not None:
        asked = asked.where(AuditEntry.at >= since)
    return asked if until is None else asked.where(AuditEntry.at < until)


def as_csv(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Write entries as CSV that spreadsheets read as UTF-8; text that would be a formula gets an apostrophe."""
    yield "\ufeff".encode() + _line(_COLUMNS)
    for row in rows:
        yield _line(["" if row[name] is None else harmless(str(row[name])) for name in _COLUMNS])


def as_json_lines(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Write entries as JSON, one in each line; ``detail`` is the text that the hash covers."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _line(values: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue().encode()


def harmless(text: str) -> str:
    """Keep a spreadsheet from running a cell (CWE-1236)."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
