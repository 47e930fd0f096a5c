"""Transactions that lock rows before they read them to write, and the number of rows that a statement changed."""

from __future__ import annotations

from sqlalchemy import Delete, Update
from sqlalchemy.orm import Session, SessionTransaction


def count_changed(session: Session, statement: Update | Delete) -> int:
    """Run an UPDATE or a DELETE; return how many rows it changed."""
    number: int = session.execute(statement).rowcount  # type: ignore[attr-defined]  # both give a CursorResult
    return number


class WritingSession(Session):
    """A session whose ``begin`` acquires the write lock on databases with a single writer (SQLite).

    Permissions are checked and rows are read before anything is written. On PostgreSQL, ``FOR UPDATE`` keeps those
    rows unchanged; SQLite has no equivalent: without the lock, another process could change what was checked, and
    the write that follows would fail because the database is locked.
    """

    def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002 - as it is overridden
        """Begin a write transaction."""
        begun = super().begin(nested=nested)
        if not nested and self.get_bind().dialect.name == "sqlite":
            connection = self.connection(execution_options={"sqlite_transaction_mode": "IMMEDIATE"})
            driver = connection.connection.driver_connection
            if driver is not None and not driver.in_transaction:  # a plain engine, without the area "db"
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        return begun
