"""Rows that are added unless they are there: of two people who add the same at once, neither fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["add_missing"]


def add_missing(session: Session, table: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add those rows whose key is not there yet; the second of two waits for the first and changes nothing."""
    if session.get_bind().dialect.name == "sqlite":
        session.execute(sqlite.insert(table).values(rows).on_conflict_do_nothing())
    else:
        session.execute(postgresql.insert(table).values(rows).on_conflict_do_nothing())
