"""Classification of the failure of a transaction: what its outcome is, and whether running it again is safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import Final, cast

from mks_hardening._core.database.error_text import SERIALIZATION_CODES, code_of

__all__ = ["TransactionFailure", "failure_of", "is_in_aborted_transaction", "mark_rolled_back"]

_MOST_RELATED: Final = 100  # examined errors: each may have a cause, a context and group members
_ABORTED: Final = "25P02"  # in_failed_sql_transaction
# PostgreSQL: connection does not exist, connection failure, shutdown by an administrator or after a crash. They can
# also arrive instead of the response to COMMIT.
_LOST_CODES: Final = frozenset({"08003", "08006", "57P01", "57P02"})
_ROLLED_BACK: Final = "mks_rolled_back"


class TransactionFailure(IntEnum):
    """Kinds of failures; of several related errors, the highest kind decides."""

    OTHER = 0
    """The same would happen again."""
    CONFLICT = 1
    """The server rolled the transaction back because of a concurrent one."""
    CONNECTION_LOST = 2
    """The connection was lost before COMMIT, so the server rolled the transaction back."""
    OUTCOME_UNKNOWN = 3
    """The connection was lost during COMMIT, or it is unknown when."""


def failure_of(error: BaseException, *, handled: BaseException | None = None) -> TransactionFailure:
    """Classify the error that ended a transaction.

    The driver's error may be the cause or context of an application error, or a member of an exception group.

    Args:
        error: exception raised by the transaction.
        handled: exception that the caller was already handling, and that is the context of every later error.
    """
    return max(map(_failure_of_one, _related(error, handled)), default=TransactionFailure.OTHER)


def is_in_aborted_transaction(error: BaseException, *, handled: BaseException | None = None) -> bool:
    """Whether a statement was refused because its transaction had already failed."""
    return any(
        code_of(one) == _ABORTED or type(one).__name__ == "PendingRollbackError"
        for one in _related(error, handled)
    )


def mark_rolled_back(error: BaseException | None) -> None:
    """Record on a driver's error that the connection was lost before COMMIT."""
    while error is not None and not hasattr(error, _ROLLED_BACK):
        with suppress(AttributeError):  # an exception class with __slots__
            setattr(error, _ROLLED_BACK, True)
        error = error.__cause__  # SQLAlchemy's errors for asyncpg wrap those of the driver


def _failure_of_one(error: BaseException) -> TransactionFailure:
    code = code_of(error)
    if code in SERIALIZATION_CODES:
        return TransactionFailure.CONFLICT
    # SQLAlchemy sets it where it discards the connection.
    if code not in _LOST_CODES and getattr(error, "connection_invalidated", False) is not True:
        return TransactionFailure.OTHER
    if hasattr(error, _ROLLED_BACK) or hasattr(getattr(error, "orig", None), _ROLLED_BACK):
        return TransactionFailure.CONNECTION_LOST
    return TransactionFailure.OUTCOME_UNKNOWN


def _related(error: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    seen = {id(handled)}
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) <= _MOST_RELATED:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        yield one
        seen.add(id(one))
        waiting += [one.__context__, one.__cause__]
        if isinstance(one, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", one).exceptions
