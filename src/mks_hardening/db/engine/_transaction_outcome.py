"""Outcome of transactions whose connection is lost: rolled back, or unknown because it happened during COMMIT.

The server rolls a transaction back when its client is gone, unless COMMIT arrived first. So the engine records
on the driver's error that COMMIT had not been sent. Without this mark, ``retry_on_serialization_failure`` treats
the outcome as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mks_hardening.db._transaction_failure import mark_rolled_back

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, ExceptionContext

__all__ = ["record_outcomes"]

_COMMITS: Final = ("do_commit", "do_commit_twophase", "do_prepare_twophase")
_AT_COMMIT: Final = "mks_at_commit"
# Text that ends a transaction itself; a word "commit" elsewhere only costs a retry.
_ENDS_TRANSACTION: Final = re.compile(r"\bcommit\b|(?:\A|;)\s*end\b|\bprepare\s+transaction\b", re.IGNORECASE)


def record_outcomes(engine: Engine) -> None:
    """Mark the errors of connections of ``engine`` that are lost before COMMIT."""
    from sqlalchemy import event

    for name in _COMMITS:
        setattr(engine.dialect, name, _marking(getattr(engine.dialect, name)))
    event.listen(engine, "handle_error", _failed)  # a dialect event, which adds no cost to statements


def _marking(commit: Callable[..., Any]) -> Callable[..., Any]:
    def marking(*args: Any, **kwargs: Any) -> Any:
        try:
            return commit(*args, **kwargs)
        except Exception as error:
            setattr(error, _AT_COMMIT, True)
            raise

    return marking


def _failed(context: ExceptionContext) -> None:
    if not context.is_disconnect:
        return
    is_before_commit = (
        not hasattr(context.original_exception, _AT_COMMIT)
        and not _ENDS_TRANSACTION.search(context.statement or "")
        and (context.connection is None or _is_in_transaction(context.connection))
    )
    if is_before_commit:
        mark_rolled_back(context.original_exception)


def _is_in_transaction(connection: Connection) -> bool:
    """Whether statements take effect only at COMMIT; under AUTOCOMMIT each one does at once."""
    if connection.invalidated:
        return False
    driver: Any = connection.connection.dbapi_connection
    return getattr(driver, "autocommit", None) is False
