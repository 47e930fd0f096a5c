"""A database error as fields of a slow query's record."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.database.error_text import database_error, message_of
from mks_hardening._core.redaction.redactor import default_redactor

__all__ = ["describe_error"]

_LONGEST_MESSAGE: Final = 500


def describe_error(error: BaseException, *, show_values: bool = False) -> dict[str, str]:
    """Class and code of an error, and what else cannot hold a value.

    ``message`` is there when the message has one of the forms its code is known for, with ``?`` in place of what
    varies. A violated constraint is named in ``constraint``, ``table`` and ``column``, as far as PostgreSQL says so
    apart from the message.

    Args:
        error: what the driver or SQLAlchemy raised.
        show_values: give the driver's full message instead, redacted.
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
