"""One short transaction of a store on the application's engine, whose errors hold no values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mks_hardening._core.checks import instance, text_of
from mks_hardening._core.database.error_text import cause_of
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData

__all__ = ["checked_engine", "checked_metadata", "in_transaction", "is_answering"]

R = TypeVar("R")


def checked_engine(engine: Engine) -> Engine:
    """An engine for ``def``.

    Raises:
        ConfigurationError: this is none; one for asyncio has none of what a transaction here needs.
    """
    from sqlalchemy import Engine

    return instance(engine, Engine, parameter="engine")


def checked_metadata(metadata: MetaData, *, schema: str | None, **names: str) -> MetaData:
    """Where tables of these names go.

    Raises:
        ConfigurationError: a value of another kind, or an empty name.
    """
    from sqlalchemy import MetaData

    for parameter, name in names.items():
        text_of(name, parameter=parameter, empty=False)
    if schema is not None:
        text_of(schema, parameter="schema", empty=False)
    return instance(metadata, MetaData, parameter="metadata")


def in_transaction(engine: Engine, operation: str, work: Callable[[Connection], R]) -> R:
    """What ``work`` returns, committed.

    Raises:
        BackendUnavailableError: the pool was exhausted, or the database refused.
    """
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError

    try:
        with engine.begin() as connection:
            return work(connection)
    # Nothing was sent: whoever asks may try again without asking twice.
    except PoolTimeoutError:
        raise BackendUnavailableError("database", "timeout", operation=operation, sent=False) from None
    except DBAPIError as error:
        # The driver's text may hold parameters; it stays out of the error and of its cause. That a table is missing
        # is told.
        raise BackendUnavailableError(
            "database", "error", operation=operation, detail=cause_of(error)
        ) from None


def is_answering(engine: Engine) -> bool:
    """Whether the database answers."""
    from sqlalchemy import literal, select

    try:
        return in_transaction(
            engine, "ping", lambda connection: connection.execute(select(literal(1))).scalar_one() == 1
        )
    except BackendUnavailableError:
        return False
