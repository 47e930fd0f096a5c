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
    ``FOR UPDATE`` as they are; SQLite knows no such thing: without the lock another process could change in between
    what the rules were asked about, and the write that comes after would be refused as locked.
    """

    def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002 - as it is overridden
        """Begin a transaction that writes."""
        begun = super().begin(nested=nested)
        if not nested and self.get_bind().dialect.name == "sqlite":
            connection = self.connection(execution_options={"sqlite_transaction_mode": "IMMEDIATE"})
            driver = connection.connection.driver_connection
            if driver is not None and not driver.in_transaction:  # without the area "db": a plain engine
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        return begun
