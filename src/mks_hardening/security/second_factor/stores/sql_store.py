"""Two-factor store in a database table, with SQLAlchemy Core; conditional statements make every change atomic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.checks import instance
from mks_hardening._core.optional_imports import optional
from mks_hardening.protocols import StoredFactor
from mks_hardening.security._transactions import SQLStoreBase, checked_metadata, insert_if_absent

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table

__all__ = ["SQLAlchemyTwoFactorStore", "two_factor_table"]


def two_factor_table(metadata: MetaData, *, name: str = "mks_two_factor", schema: str | None = None) -> Table:
    """Add the table of second factors to the application's metadata, for its migrations.

    Raises:
        ConfigurationError: a value has the wrong type.
        MissingDependencyError: SQLAlchemy is not installed.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import Column, LargeBinary, String, Table
    return Table(
        name,
        checked_metadata(metadata, schema=schema, name=name),
        Column("user_id", String(255), primary_key=True),
        Column("version", String(32), nullable=False),
        Column("data", LargeBinary, nullable=False),
        schema=schema,
    )


class SQLAlchemyTwoFactorStore(SQLStoreBase):
    """Store second factors in one table, with short transactions of its own.

    Works with SQLAlchemy 2.0 and later; tested with SQLite and PostgreSQL. The application owns the engine and
    sets its timeouts (see ``mks_hardening.db.hardened_engine``).

    Args:
        engine: the engine of the table's database.
        table: the result of ``two_factor_table``, for example in the application's metadata; or the name of a
            table outside of it.

    Raises:
        ConfigurationError: not an engine, or one for asyncio; not a table.
        MissingDependencyError: SQLAlchemy is not installed.
    """

    def __init__(self, engine: Engine, *, table: Table | str = "mks_two_factor") -> None:
        with optional("sqlalchemy", extra="db"):
            from sqlalchemy import MetaData, Table
        super().__init__(engine)
        self.table: Table = (
            two_factor_table(MetaData(), name=table)
            if isinstance(table, str)
            else instance(table, Table, parameter="table")
        )

    def create_table(self) -> None:
        """Create the table if it is missing, for applications without migrations."""
        self.table.create(self._engine, checkfirst=True)

    def load(self, user_id: str, /) -> StoredFactor | None:
        """Return the record of a user, or ``None``."""
        from sqlalchemy import select

        columns = self.table.c
        statement = select(columns.version, columns.data).where(columns.user_id == user_id)
        row = self._run("load", lambda connection: connection.execute(statement).one_or_none())
        return None if row is None else StoredFactor(row.version, bytes(row.data))

    def replace(self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str) -> bool:
        """Write or remove a record if its version is still the expected one."""
        from sqlalchemy import delete, update

        table = self.table
        # Compare and write in one statement: one of two writers loses at any isolation level.
        this = (table.c.user_id == user_id) & (table.c.version == expected)
        statement = (
            delete(table).where(this)
            if data is None
            else update(table).where(this).values(version=version, data=data)
        )

        def work(connection: Connection) -> bool:
            if expected is None and data is not None:
                return insert_if_absent(connection, table, user_id=user_id, version=version, data=data)
            return connection.execute(statement).rowcount == 1

        if self._run("replace", work):
            return True
        # If nothing changed, this may be a retry after the response of a committed write was lost: then this
        # version is in place.
        present = self.load(user_id)
        return data is None if present is None else present.version == version

    def scan(self, cursor: str | None, /, *, limit: int) -> tuple[list[str], str | None]:
        """Return user ids in the order of the database."""
        from sqlalchemy import select

        column = self.table.c.user_id
        statement = select(column).order_by(column).limit(limit)
        if cursor is not None:
            statement = statement.where(column > cursor)
        page = self._run("scan", lambda connection: list(connection.execute(statement).scalars()))
        return page, page[-1] if len(page) == limit else None

    def count(self) -> int:
        """Return the number of users with a record."""
        from sqlalchemy import func, select

        statement = select(func.count()).select_from(self.table)
        return self._run("count", lambda connection: connection.execute(statement).scalar_one())

    def __repr__(self) -> str:
        return f"SQLAlchemyTwoFactorStore(table={self.table.fullname!r})"
