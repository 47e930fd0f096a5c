"""Second factors in a table, through SQLAlchemy Core; conditional statements make every change atomic."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mks_hardening._core.checks import instance
from mks_hardening._core.closing import Closing
from mks_hardening._core.optional_imports import optional
from mks_hardening.protocols import StoredFactor
from mks_hardening.security._transactions import (
    checked_engine,
    checked_metadata,
    in_transaction,
    is_answering,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table

__all__ = ["SQLAlchemyTwoFactorStore", "two_factor_table"]

_R = TypeVar("_R")


def two_factor_table(metadata: MetaData, *, name: str = "mks_two_factor", schema: str | None = None) -> Table:
    """The table of second factors in an application's metadata, so that its migrations know it.

    Raises:
        ConfigurationError: a value of another kind.
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


class SQLAlchemyTwoFactorStore(Closing):
    """Keeps second factors in one table, in short transactions of its own.

    Works on SQLAlchemy 2.0 and later, tested on SQLite and PostgreSQL. The application keeps the engine and gives
    it time-outs (see ``mks_hardening.db.hardened_engine``).

    Args:
        engine: where the table is.
        table: made by ``two_factor_table``, perhaps in the metadata of the application; or the name of a plain one.

    Raises:
        ConfigurationError: no engine, or one for asyncio; no table.
        MissingDependencyError: SQLAlchemy is not installed.
    """

    def __init__(self, engine: Engine, *, table: Table | str = "mks_two_factor") -> None:
        with optional("sqlalchemy", extra="db"):
            from sqlalchemy import MetaData, Table
        self._engine = checked_engine(engine)
        self.table: Table = (
            two_factor_table(MetaData(), name=table)
            if isinstance(table, str)
            else instance(table, Table, parameter="table")
        )

    def create_table(self) -> None:
        """Create the table if it is missing, for applications without migrations."""
        self.table.create(self._engine, checkfirst=True)

    def load(self, user_id: str, /) -> StoredFactor | None:
        """The record of a user, or ``None``."""
        from sqlalchemy import select

        columns = self.table.c
        statement = select(columns.version, columns.data).where(columns.user_id == user_id)
        row = self._run("load", lambda connection: connection.execute(statement).one_or_none())
        return None if row is None else StoredFactor(row.version, bytes(row.data))

    def replace(self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str) -> bool:
        """Write or remove a record if its version is still the expected one."""
        changed = self._run(
            "replace",
            lambda connection: _replaced(
                connection, self.table, user_id, data, expected=expected, version=version
            ),
        )
        if changed:
            return True
        # Nothing changed may mean that our own write was committed, its answer lost, and this is the second try:
        # then our version is in place.
        present = self.load(user_id)
        return data is None if present is None else present.version == version

    def scan(self, cursor: str | None, /, *, limit: int) -> tuple[list[str], str | None]:
        """User ids in the order of the database."""
        from sqlalchemy import select

        column = self.table.c.user_id
        statement = select(column).order_by(column).limit(limit)
        if cursor is not None:
            statement = statement.where(column > cursor)
        page = self._run("scan", lambda connection: list(connection.execute(statement).scalars()))
        return page, page[-1] if len(page) == limit else None

    def count(self) -> int:
        """How many users have a record."""
        from sqlalchemy import func, select

        statement = select(func.count()).select_from(self.table)
        return self._run("count", lambda connection: connection.execute(statement).scalar_one())

    def ping(self) -> bool:
        """Whether the database answers."""
        return is_answering(self._engine)

    def close(self) -> None:
        """Nothing to release; the engine belongs to the application."""

    def _run(self, operation: str, work: Callable[[Connection], _R]) -> _R:
        return in_transaction(self._engine, operation, work)

    def __repr__(self) -> str:
        return f"SQLAlchemyTwoFactorStore(table={self.table.fullname!r})"


def _replaced(
    connection: Connection,
    table: Table,
    user_id: str,
    data: bytes | None,
    *,
    expected: str | None,
    version: str,
) -> bool:
    from sqlalchemy import delete, insert, update
    from sqlalchemy.exc import IntegrityError

    if expected is None:
        if data is None:
            return False
        try:
            # In a savepoint: on PostgreSQL a failed statement ends the whole transaction, and with it the look at
            # what is there.
            with connection.begin_nested():
                connection.execute(insert(table).values(user_id=user_id, version=version, data=data))
        except IntegrityError:
            return False
        return True
    # Compared and written in one statement: no isolation level is needed for one of two writers to lose.
    this = (table.c.user_id == user_id) & (table.c.version == expected)
    statement = (
        delete(table).where(this)
        if data is None
        else update(table).where(this).values(version=version, data=data)
    )
    return connection.execute(statement).rowcount == 1
