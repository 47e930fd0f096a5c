"""What may be told of a database error: its class, its code, and its message where that is a known form.

Drivers and servers put values anywhere into a message: into quotes, into DETAIL and CONTEXT, as names of tables
that do not exist, as the text of a RAISE. What cannot be told from a value is not shown: a message is compared with
the forms its code is known for, and the form is shown, never the message.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening._core.trace_text import safe_text
from mks_hardening.db.statement._error_forms import FORMS, TYPES

__all__ = ["describe_error"]

_LONGEST_MESSAGE: Final = 500
_LONGEST_COMPARED: Final = 1000  # a form with two gaps costs the square of it
_CODE: Final = re.compile(r"[0-9A-Z]{5}|SQLITE_[A-Z_]{2,40}", re.ASCII)
_NAME: Final = re.compile(r"[^\W\d][\w$]{0,62}")

# Where the server says which part of the schema was violated (fields of the protocol, not of the text).
_SCHEMA_FIELDS: Final = {"constraint": "constraint_name", "table": "table_name", "column": "column_name"}
_INTEGRITY: Final = "23"  # class of SQLSTATE in which those fields are filled by the server itself


def describe_error(error: BaseException, *, show_values: bool = False) -> dict[str, str]:
    """Class and code of an error, and what else cannot hold a value.

    ``message`` is there when the message has one of the forms its code is known for, with ``?`` in place of what
    varies. A violated constraint is named in ``constraint``, ``table`` and ``column``, as far as PostgreSQL says so
    apart from the message.

    Args:
        error: what the driver or SQLAlchemy raised.
        show_values: give the driver's full message instead, redacted.
    """
    origin = _driver_error(error)
    described = {"type": type(origin).__name__}
    code = _code(origin)
    message = _message(origin)
    shown = (
        default_redactor().redact_text(message)[:_LONGEST_MESSAGE] if show_values else _form(code, message)
    )
    if shown:
        described["message"] = shown
    if code:
        described["code"] = code
    if code.startswith(_INTEGRITY):
        described |= _schema_fields(origin)
    return described


def _driver_error(error: BaseException) -> BaseException:
    """SQLAlchemy keeps the driver's error in ``orig``; for asyncpg that is a wrapper around the cause."""
    origin = getattr(error, "orig", None)
    if not isinstance(origin, BaseException):
        origin = error
    cause = origin.__cause__
    return cause if cause is not None and type(cause).__module__.startswith("asyncpg.") else origin


def _code(origin: BaseException) -> str:
    # psycopg and asyncpg, psycopg2, sqlite3
    for name in ("sqlstate", "pgcode", "sqlite_errorname"):
        if found := _text(origin, name):
            # SQLite names variants (SQLITE_BUSY_SNAPSHOT); known ones have a place of their own.
            base = "_".join(found.split("_")[:2])
            return base if found not in FORMS and base in FORMS and base != "SQLITE_ERROR" else found
    number: object = origin.args[0] if len(origin.args) > 1 else None
    return str(number) if type(number) is int and str(number) in FORMS else ""


def _text(origin: BaseException, name: str) -> str:
    value: object = getattr(origin, name, None)
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def _message(origin: BaseException) -> str:
    arguments = origin.args
    if len(arguments) > 1 and type(arguments[0]) is int:  # MySQL's drivers: (number, message)
        return safe_text(arguments[1])
    return safe_text(origin)


def _form(code: str, message: str) -> str:
    first_line = message.strip().partition("\n")[0][:_LONGEST_COMPARED]
    for form, pattern in _patterns(code if code in FORMS else None):
        if found := pattern.search(first_line) if not code else pattern.fullmatch(first_line):
            kind = found["type"] if "<type>" in form else None
            return form.replace("<type>", kind or "?")
    return ""


@cache
def _patterns(code: str | None) -> tuple[tuple[str, re.Pattern[str]], ...]:
    if code is None:
        return ()
    return tuple((form, _pattern(form)) for form in FORMS[code])


def _pattern(form: str) -> re.Pattern[str]:
    anything = re.escape(form).replace(r"\?", ".*")
    kind = rf"(?:(?P<type>{TYPES})(?:\(\d+(?:,\d+)?\))?|.*)"
    return re.compile(anything.replace("<type>", kind), re.IGNORECASE)


def _schema_fields(origin: BaseException) -> dict[str, str]:
    """Psycopg keeps them in ``diag``, asyncpg on the error itself."""
    source: object = getattr(origin, "diag", origin)
    named = {name: getattr(source, attribute, None) for name, attribute in _SCHEMA_FIELDS.items()}
    return {name: value for name, value in named.items() if isinstance(value, str) and _NAME.fullmatch(value)}
