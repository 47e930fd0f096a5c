"""Classification of errors as transient, so that a retry can succeed."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.database.error_text import SERIALIZATION_CODES, code_of, is_of_database
from mks_hardening.exceptions import BackendUnavailableError, DeliveryError

__all__ = ["is_transient"]

# PostgreSQL: read-only (a standby, or the old primary after a failover), lock timeout, server shutting down,
# starting or stopped.
# Not 57014: a statement that exceeded its timeout would exceed it again.
_CODES: Final = SERIALIZATION_CODES | {
    "25006",
    "55P03",
    "57P01",
    "57P02",
    "57P03",
    "SQLITE_LOCKED",
    "2003",
    "2006",
    "2013",
}
_CLASSES: Final = ("08", "53")  # connection errors; too many connections, out of memory, disk full


def is_transient(error: BaseException) -> bool:
    """Whether an exception indicates a temporary failure, so that a retry can succeed.

    Transient are connection errors and timeouts, ``BackendUnavailableError``, temporary ``DeliveryError``, SMTP 4xx
    (RFC 5321, 4.2.1), HTTP 429 and 5xx of requests and httpx, databases that are unavailable, full, starting or
    read-only, lock timeouts, and transactions that lost a conflict with others. Errors of the work itself are not
    transient.
    """
    if isinstance(error, DeliveryError):
        return error.temporary
    if isinstance(error, (ConnectionError, TimeoutError, BackendUnavailableError)):
        return True
    # By attributes instead of classes, which would have to be imported.
    status: object = getattr(error, "smtp_code", None)
    if isinstance(status, int):
        return 400 <= status < 500
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status == 429 or status >= 500
    if type(error).__module__.partition(".")[0] in {"requests", "urllib3", "httpx"}:
        return any(
            "Timeout" in kind.__name__ or "ConnectionError" in kind.__name__ for kind in type(error).__mro__
        )
    return _of_database(error)


def _of_database(error: BaseException) -> bool:
    kind = type(error)
    # SQLAlchemy's connection pool has its own TimeoutError.
    if kind.__module__ == "sqlalchemy.exc" and kind.__name__ == "TimeoutError":
        return True
    # SQLAlchemy sets it if the connection is lost; an IntegrityError would recur in every attempt.
    if getattr(error, "connection_invalidated", False) is True:
        return True
    if not is_of_database(error):
        return False
    code = code_of(error)
    if code:
        return code in _CODES or code.startswith(_CLASSES)
    # Without an error code no server has responded: it was unreachable, or it closed the connection.
    origin: object = getattr(error, "orig", None) or error
    return type(origin).__name__ == "OperationalError"
