"""Transactions in which what was read is still so when it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from sqlalchemy.orm import SessionTransaction

__all__ = ["WritingSession"]


class WritingSession(Session):
    """A session whose ``begin`` waits for its turn to write, where the database has one for everybody.

    Rules are asked and rows are read before anything is written. PostgreSQL keeps rows that were read
    ``FOR UPDATE`` as they are; SQLite knows no such thing, and its driver begins a transaction with the first
    change only, so another process could change in between what the rules were asked about.
    """

    def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002 - as it is overridden
        """Begin a transaction that writes."""
        begun = super().begin(nested=nested)
        if not nested and self.get_bind().dialect.name == "sqlite":
            self.connection().exec_driver_sql("BEGIN IMMEDIATE")
        return begun
