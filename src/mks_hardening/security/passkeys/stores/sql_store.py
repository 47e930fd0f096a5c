"""Passkey store in two database tables, with SQLAlchemy Core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.checks import instance
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.optional_imports import optional
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security._transactions import SQLStoreBase, checked_metadata, insert_if_absent

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table

    from mks_hardening.protocols import Clock

__all__ = ["PasskeyTables", "SQLAlchemyPasskeyStore", "passkey_tables"]

# More than one sign-in adds, so that the table shrinks, and few enough not to delay a sign-in.
_SWEPT: Final = 100


class PasskeyTables(NamedTuple):
    """The tables of owners and challenges."""

    owners: Table
    challenges: Table


def passkey_tables(
    metadata: MetaData, *, prefix: str = "mks_passkey", schema: str | None = None
) -> PasskeyTables:
    """Add the tables of passkeys to the application's metadata, for its migrations.

    Raises:
        ConfigurationError: a value has the wrong type.
        MissingDependencyError: SQLAlchemy is not installed.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import Column, Float, LargeBinary, String, Table
    checked_metadata(metadata, schema=schema, prefix=prefix)
    return PasskeyTables(
        Table(
            f"{prefix}_owner",
            metadata,
            Column("credential", String(64), primary_key=True),
            Column("user_id", String(255), nullable=False),
            schema=schema,
        ),
        Table(
            f"{prefix}_challenge",
            metadata,
            Column("key", String(64), primary_key=True),
            Column("data", LargeBinary, nullable=False),
            Column("expires_at", Float(53), nullable=False, index=True),
            schema=schema,
        ),
    )


class SQLAlchemyPasskeyStore(SQLStoreBase):
    """Store owners and challenges of passkeys in two tables, with short transactions of its own.

    Works with SQLAlchemy 2.0 and later; tested with SQLite and PostgreSQL. The application owns the engine and
    sets its timeouts (see ``mks_hardening.db.hardened_engine``).

    Args:
        engine: the engine of the tables' database.
        tables: the result of ``passkey_tables``, for example in the application's metadata; by default tables
            outside of it.
        clock: for tests.

    Raises:
        ConfigurationError: not an engine, or one for asyncio; not tables.
        MissingDependencyError: SQLAlchemy is not installed.
    """

    def __init__(
        self, engine: Engine, *, tables: PasskeyTables | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        with optional("sqlalchemy", extra="db"):
            from sqlalchemy import MetaData
        super().__init__(engine)
        self._clock = given_clock(clock)
        self.tables: PasskeyTables = (
            passkey_tables(MetaData())
            if tables is None
            else instance(tables, PasskeyTables, parameter="tables")
        )

    def create_tables(self) -> None:
        """Create the tables if they are missing, for applications without migrations."""
        for table in self.tables:
            table.create(self._engine, checkfirst=True)

    def save_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None:
        """Store the data of a challenge for ``ttl`` seconds, and delete up to 100 expired ones."""
        from sqlalchemy import delete, insert, select

        table, now = self.tables.challenges, self._clock.time()
        expired = (
            select(table.c.key)
            .where(table.c.expires_at <= now)
            .order_by(table.c.expires_at)
            .limit(_SWEPT)
            .with_for_update(skip_locked=True)  # concurrent deletions do not wait for each other
        )

        def work(connection: Connection) -> None:
            connection.execute(delete(table).where(table.c.key.in_(expired.scalar_subquery())))
            connection.execute(insert(table).values(key=key, data=data, expires_at=now + ttl))

        self._run("save_challenge", work)

    def consume_challenge(self, key: str, /) -> bytes | None:
        """Return and remove the data of a challenge, unless it has expired."""
        from sqlalchemy import delete

        table = self.tables.challenges
        statement = (
            delete(table).where(table.c.key == key).returning(table.c.data, table.c.expires_at)
        )  # of concurrent callers, one deletes the row
        row = self._run("consume_challenge", lambda connection: connection.execute(statement).one_or_none())
        return bytes(row.data) if row is not None and self._clock.time() < row.expires_at else None

    def assign_owner(self, credential: str, user_id: str, /) -> str:
        """Make a user the owner of a credential without one; return the owner.

        Raises:
            BackendUnavailableError: the database does not respond, or the credential was released at the same time.
        """
        owners = self.tables.owners
        if self._run(
            "assign_owner", lambda one: insert_if_absent(one, owners, credential=credential, user_id=user_id)
        ):
            return user_id
        owner = self.owner(credential)
        if owner is None:  # released at the same time
            raise BackendUnavailableError("database", "busy", operation="assign_owner")
        return owner

    def owner(self, credential: str, /) -> str | None:
        """Return the owner of a credential."""
        from sqlalchemy import select

        table = self.tables.owners
        statement = select(table.c.user_id).where(table.c.credential == credential)
        return self._run("owner", lambda connection: connection.execute(statement).scalar_one_or_none())

    def release(self, credential: str, user_id: str, /) -> bool:
        """Remove a credential if it belongs to this user; return whether it did."""
        from sqlalchemy import delete

        table = self.tables.owners
        statement = delete(table).where(table.c.credential == credential, table.c.user_id == user_id)
        return self._run("release", lambda connection: connection.execute(statement).rowcount == 1)

    def __repr__(self) -> str:
        return f"SQLAlchemyPasskeyStore(tables={[table.fullname for table in self.tables]})"
