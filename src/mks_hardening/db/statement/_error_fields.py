"""Database errors as fields of a slow-query log record."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.database.error_text import database_error, message_of
from mks_hardening._core.redaction.redactor import default_redactor

__all__ = ["describe_error"]

_LONGEST_MESSAGE: Final = 500


def describe_error(error: BaseException, *, show_values: bool = False) -> dict[str, str]:
    """Return class and code of an error, and other fields that cannot contain values.

    ``message`` is included if the message has one of the known forms of its code, with ``?`` in place of variable
    parts. For a violated constraint, ``constraint``, ``table`` and ``column`` are included as far as PostgreSQL
    reports them separately from the message.

    Args:
        error: exception raised by the driver or SQLAlchemy.
        show_values: include the driver's full message instead, redacted.
    """
    found = database_error(error)
    described = {"type": type(found.origin).__name__}
    shown = found.form
    if show_values:
        shown = default_redactor().redact_text(message_of(found.origin))[:_LONGEST_MESSAGE]
    if shown:
        described["message"] = shown
    if found.code:
        described["code"] = found.code
    return described | found.schema
