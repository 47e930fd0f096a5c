"""Which failures can get better by waiting."""

from __future__ import annotations

from mks_hardening.exceptions import BackendUnavailableError, DeliveryError

__all__ = ["is_transient"]


def is_transient(error: BaseException) -> bool:
    """Whether an exception says that the other side may be back soon.

    Connections and time-outs, ``BackendUnavailableError``, temporary ``DeliveryError``, SMTP 4xx (RFC 5321, 4.2.1),
    HTTP 429 and 5xx of requests and httpx, and database connections that were lost. What is wrong with the work
    itself stays wrong.
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
    # SQLAlchemy says by it that the connection is gone; an IntegrityError stays wrong however often it is tried.
    return getattr(error, "connection_invalidated", False) is True
