"""Transactions in which rows do not change between a read and the following write."""

from __future__ import annotations

from sqlalchemy.orm import Session, SessionTransaction


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
