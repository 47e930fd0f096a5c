"""Which failures can get better by waiting."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.database.error_text import LOST, code_of, is_of_database
from mks_hardening.exceptions import BackendUnavailableError, DeliveryError

__all__ = ["is_transient"]

# Of PostgreSQL: waited too long for a lock, the server ends, starts or has ended.
# Not 57014: a statement that took too long takes as long again.
_CODES: Final = LOST | {"55P03", "57P01", "57P02", "57P03", "SQLITE_LOCKED", "2003", "2006", "2013"}
_CLASSES: Final = ("08", "53")  # the connection; too many connections, no memory, a full disk


def is_transient(error: BaseException) -> bool:
    """Whether an exception says that the other side may be back soon.

    Connections and time-outs, ``BackendUnavailableError``, temporary ``DeliveryError``, SMTP 4xx (RFC 5321, 4.2.1),
    HTTP 429 and 5xx of requests and httpx; databases that are away, full or starting, locks that were not given in
    time, and transactions that lost against others. What is wrong with the work itself stays wrong.
    """
    if isinstance(error, DeliveryError):
        return error.temporary
    if isinstance(error, (ConnectionError, TimeoutError, BackendUnavailableError)):
        return True
    # By their attributes and not by their classes, which would have to be imported to be known.
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
    # The pool of SQLAlchemy, which has a TimeoutError of its own.
    if kind.__module__ == "sqlalchemy.exc" and kind.__name__ == "TimeoutError":
        return True
    # SQLAlchemy says by it that the connection is gone; an IntegrityError stays wrong however often it is tried.
    if getattr(error, "connection_invalidated", False) is True:
        return True
    if not is_of_database(error):
        return False
    code = code_of(error)
    if code:
        return code in _CODES or code.startswith(_CLASSES)
    # No server has said anything: there was none, or it hung up.
    origin: object = getattr(error, "orig", None) or error
    return type(origin).__name__ == "OperationalError"
