"""Base class of the stores in a database: short transactions, and errors that contain no values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mks_hardening._core.checks import instance, text_of
from mks_hardening._core.closing import Closing
from mks_hardening._core.database.error_text import error_summary
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table

__all__ = ["SQLStoreBase", "checked_metadata", "insert_if_absent"]

R = TypeVar("R")


def checked_metadata(metadata: MetaData, *, schema: str | None, **names: str) -> MetaData:
    """Return the metadata for tables with these names.

    Raises:
        ConfigurationError: a value has the wrong type, or a name is empty.
    """
    from sqlalchemy import MetaData

    for parameter, name in names.items():
        text_of(name, parameter=parameter, empty=False)
    if schema is not None:
        text_of(schema, parameter="schema", empty=False)
    return instance(metadata, MetaData, parameter="metadata")


class SQLStoreBase(Closing):
    """A store with short transactions of its own on the application's engine."""

    def __init__(self, engine: Engine) -> None:
        from sqlalchemy import Engine

        # Not an engine for asyncio, which cannot run these transactions.
        self._engine = instance(engine, Engine, parameter="engine")

    def ping(self) -> bool:
        """Return whether the database responds."""
        from sqlalchemy import literal, select

        try:
            return self._run(
                "ping", lambda connection: connection.execute(select(literal(1))).scalar_one() == 1
            )
        except BackendUnavailableError:
            return False

    def close(self) -> None:
        """Do nothing: the engine belongs to the application."""

    def _run(self, operation: str, work: Callable[[Connection], R]) -> R:
        """Run ``work`` in a transaction and return its result after the commit.

        Raises:
            BackendUnavailableError: the connection pool was exhausted, or the database reported an error.
        """
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError

        try:
            with self._engine.begin() as connection:
                return work(connection)
        # Nothing was sent: the caller may retry without a risk of doing the work twice.
        except PoolTimeoutError:
            raise BackendUnavailableError("database", "timeout", operation=operation, sent=False) from None
        except DBAPIError as error:
            # The driver's message may contain parameters, so it is neither in the error nor its cause.
            # ``error_summary`` reports, for example, that a table is missing.
            raise BackendUnavailableError(
                "database", "error", operation=operation, detail=error_summary(error)
            ) from None


def insert_if_absent(connection: Connection, table: Table, **values: object) -> bool:
    """Insert a row and return true, unless a row with its primary key exists."""
    from sqlalchemy import insert
    from sqlalchemy.exc import IntegrityError

    try:
        # In a savepoint: on PostgreSQL a failed statement aborts the whole transaction.
        with connection.begin_nested():
            connection.execute(insert(table).values(**values))
    except IntegrityError:
        return False
    return True
