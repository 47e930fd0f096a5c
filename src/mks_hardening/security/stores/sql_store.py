"""Second factors in a table, through SQLAlchemy Core; conditional statements make every change atomic."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TypeVar

from mks_hardening._core.lazy import optional
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import StoredFactor

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table

__all__ = ["SQLAlchemyTwoFactorStore", "two_factor_table"]

_R = TypeVar("_R")


def two_factor_table(metadata: MetaData, *, name: str = "mks_two_factor", schema: str | None = None) -> Table:
    """The table of second factors in an application's metadata, so that its migrations know it.

    Raises:
        MissingDependencyError: SQLAlchemy is not installed.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import Column, LargeBinary, String, Table
    return Table(
        name,
        metadata,
        Column("user_id", String(255), primary_key=True),
        Column("version", String(32), nullable=False),
        Column("data", LargeBinary, nullable=False),
        schema=schema,
    )


class SQLAlchemyTwoFactorStore:
    """Keeps second factors in one table, in short transactions of its own.

    Works on SQLAlchemy 2.0 and later, tested on SQLite and PostgreSQL. The application keeps the engine and gives
    it time-outs (see ``mks_hardening.db.hardened_engine``).

    Args:
        engine: where the table is.
        table: made by ``two_factor_table``, perhaps in the metadata of the application; a plain one otherwise.

    Raises:
        MissingDependencyError: SQLAlchemy is not installed.
    """

    def __init__(self, engine: Engine, *, table: Table | None = None) -> None:
        with optional("sqlalchemy", extra="db"):
            from sqlalchemy import MetaData
        self._engine = engine
        self.table: Table = two_factor_table(MetaData()) if table is None else table

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

    def ping(self) -> bool:
        """Whether the database answers."""
        from sqlalchemy import literal, select

        try:
            return self._run(
                "ping", lambda connection: connection.execute(select(literal(1))).scalar_one() == 1
            )
        except BackendUnavailableError:
            return False

    def close(self) -> None:
        """Nothing to release; the engine belongs to the application."""

    def _run(self, operation: str, work: Callable[[Connection], _R]) -> _R:
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError

        try:
            with self._engine.begin() as connection:
                return work(connection)
        except PoolTimeoutError:
            raise BackendUnavailableError("database", "timeout", operation=operation, sent=False) from None
        except DBAPIError:
            # The driver's text may hold parameters; it stays out of the error and of its cause.
            raise BackendUnavailableError("database", "error", operation=operation) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
            with connection.begin_nested():
                connection.execute(insert(table).values(user_id=user_id, version=version, data=data))
        except IntegrityError:
            return False
        return True
    this = (table.c.user_id == user_id) & (table.c.version == expected)
    statement = (
        delete(table).where(this)
        if data is None
        else update(table).where(this).values(version=version, data=data)
    )
    return connection.execute(statement).rowcount == 1
