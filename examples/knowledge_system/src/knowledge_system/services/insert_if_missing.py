"""Inserts that ignore existing rows, so that concurrent inserts of the same row do not fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session


def add_missing(session: Session, table: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose key does not exist; a concurrent insert of the same key waits and changes nothing."""
    # Each dialect takes as long to import as Werkzeug, and a process needs only that of its database.
    if session.get_bind().dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        session.execute(sqlite.insert(table).values(rows).on_conflict_do_nothing())
    else:
        from sqlalchemy.dialects import postgresql

        session.execute(postgresql.insert(table).values(rows).on_conflict_do_nothing())
