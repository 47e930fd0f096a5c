"""Short transactions of a store on the application's engine, with errors that contain no values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mks_hardening._core.checks import instance, text_of
from mks_hardening._core.database.error_text import error_summary
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData

__all__ = ["checked_engine", "checked_metadata", "in_transaction", "is_answering"]

R = TypeVar("R")


def checked_engine(engine: Engine) -> Engine:
    """Return the engine if it is a synchronous one.

    Raises:
        ConfigurationError: not an engine, or one for asyncio, which cannot run these transactions.
    """
    from sqlalchemy import Engine

    return instance(engine, Engine, parameter="engine")


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


def in_transaction(engine: Engine, operation: str, work: Callable[[Connection], R]) -> R:
    """Run ``work`` in a transaction and return its result after the commit.

    Raises:
        BackendUnavailableError: the connection pool was exhausted, or the database reported an error.
    """
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError

    try:
        with engine.begin() as connection:
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


def is_answering(engine: Engine) -> bool:
    """Return whether the database responds."""
    from sqlalchemy import literal, select

    try:
        return in_transaction(
            engine, "ping", lambda connection: connection.execute(select(literal(1))).scalar_one() == 1
        )
    except BackendUnavailableError:
        return False
