"""Safe text of a database error: its class, its code, and its message if that has a known form.

Drivers and servers put values anywhere into a message: into quotes, into DETAIL and CONTEXT, as names of missing
tables, as the text of a RAISE. Text that cannot be distinguished from a value is not shown: a message is compared
with the known forms of its code, and the form is shown, never the message.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final, NamedTuple

from mks_hardening._core.exception_text import safe_text

__all__ = [
    "SERIALIZATION_CODES",
    "DatabaseError",
    "code_of",
    "database_error",
    "database_error_text",
    "error_summary",
    "error_text",
    "is_of_database",
    "message_of",
]

SERIALIZATION_CODES: Final = frozenset({"40001", "40P01", "SQLITE_BUSY", "1020", "1205", "1213"})
"""Codes of a transaction that lost to a concurrent one and may be retried.

MySQL 1205 is a lock timeout, MariaDB 1020 a row that changed since the snapshot.
"""

_LONGEST_COMPARED: Final = 1000  # a form with two gaps takes quadratic time
_LONGEST_STATEMENT: Final = 2000
_CODE: Final = re.compile(r"[0-9A-Z]{5}|SQLITE_[A-Z_]{2,40}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{4}|[A-Z]{3}-[0-9]{4,5}", re.ASCII)
_NAME: Final = re.compile(r"[^\W\d][\w$]{0,62}")
_DRIVERS: Final = frozenset((
    *("psycopg", "psycopg2", "asyncpg", "pg8000", "sqlite3", "_sqlite3", "aiosqlite", "pymysql", "MySQLdb"),
    *("mysql", "mariadb", "aiomysql", "asyncmy", "oracledb", "cx_Oracle", "pyodbc", "pymssql"),
))  # fmt: skip
# Packages that wrap a driver's error and include its text.
_WRAPPERS: Final = ("sqlalchemy.exc", "sqlalchemy.dialects.", "django.db.utils")

# Fields in which the server names the violated part of the schema (protocol fields, not the text).
_SCHEMA_FIELDS: Final = {"constraint": "constraint_name", "table": "table_name", "column": "column_name"}
_INTEGRITY: Final = "23"  # SQLSTATE class for which the server itself sets those fields

# Escapes, dollar quotes, comments: the end of a literal then depends on the dialect, which is unknown here.
_UNREADABLE: Final = re.compile(r"\\|--|/\*|#|\$\w*\$")
_VALUES: Final = re.compile(r"'(?:[^']|'')*(?:'|\Z)|(?<![\w$])[0-9][\w.]*")


class DatabaseError(NamedTuple):
    """A database error without its values.

    Attributes:
        origin: exception of the driver.
        code: SQLSTATE, SQLite's error name or MySQL's number; empty if the driver provides none.
        form: the message with ``?`` for its variable parts; empty if it has no known form.
        schema: violated schema objects, if the server names them outside the message.
    """

    origin: BaseException
    code: str
    form: str
    schema: dict[str, str]


def database_error(error: BaseException) -> DatabaseError:
    """Return an error of a driver, or of SQLAlchemy or Django around it, without its values."""
    origin = _driver_error(error)
    code = _code(origin)
    schema = _schema_fields(origin) if code.startswith(_INTEGRITY) else {}
    return DatabaseError(origin, code, _form(code, message_of(origin)), schema)


def code_of(error: BaseException) -> str:
    """Return SQLSTATE, SQLite's error name or MySQL's number of any exception; empty if there is none."""
    return _code(_driver_error(error))


def error_summary(error: BaseException) -> str:
    """Return the class of any exception, with the safe text of a database error, in one line."""
    kind = type(error).__name__
    try:
        if not is_of_database(error):
            return kind
        _, code, form, _ = database_error(error)
    except Exception:  # noqa: BLE001 - a property that raises; the class is known
        return kind
    text = " ".join(filter(None, (form, f"[{code}]" if code else "")))
    return f"{kind}: {text}" if text else kind


def database_error_text(error: BaseException) -> str | None:
    """Return the text of a database error without its values; ``None`` for other errors."""
    try:
        return _safe_text_of(error) if is_of_database(error) else None
    except Exception as failure:  # noqa: BLE001 - a property that raises; the log record must be written
        return f"<database error whose attributes raise {type(failure).__name__}>"


def error_text(error: BaseException, *, limit: int = 4096) -> str:
    """Return ``safe_text`` of any exception, without the values of a database error."""
    safe = database_error_text(error)
    return safe_text(error if safe is None else safe, limit=limit)


def is_of_database(error: BaseException) -> bool:
    """Return whether it is an error of a driver, or of SQLAlchemy or Django around one."""
    for kind in type(error).__mro__:
        module = kind.__module__
        if module.partition(".")[0] in _DRIVERS:
            return True
        if module.startswith(_WRAPPERS):
            return _is_of_driver(_driver_error(error))
    return False


def _is_of_driver(error: BaseException) -> bool:
    return any(
        kind.__module__.partition(".")[0] in _DRIVERS or kind.__module__.startswith("sqlalchemy.dialects.")
        for kind in type(error).__mro__
    )


def _safe_text_of(error: BaseException) -> str:
    found = database_error(error)
    kind = type(found.origin)
    parts = [f"({kind.__module__}.{kind.__qualname__})"] if found.origin is not error else []
    parts += [text for text in (found.form, f"[{found.code}]" if found.code else "") if text]
    parts += [f"({', '.join(f'{name} {value}' for name, value in found.schema.items())})"] * bool(
        found.schema
    )
    if not (found.form or found.code):
        parts.append("[message not shown]")
    statement = getattr(error, "statement", None)
    shown = _statement(statement) if isinstance(statement, str) else ""
    return " ".join(parts) + (f"\n[SQL: {shown}]" if shown else "")


def _statement(text: str) -> str:
    """Return the statement without its literals; empty if they cannot be identified with certainty."""
    text = text[:_LONGEST_STATEMENT]
    return "" if _UNREADABLE.search(text) else _VALUES.sub("?", text)


def _driver_error(error: BaseException) -> BaseException:
    """Return the driver's error: SQLAlchemy keeps it in ``orig``, where asyncpg has a wrapper around the cause."""
    origin = getattr(error, "orig", None)
    if not isinstance(origin, BaseException):
        origin = error
    cause = origin.__cause__
    wraps = type(origin).__module__.startswith(_WRAPPERS)
    return cause if cause is not None and wraps and _is_of_driver(cause) else origin


def _code(origin: BaseException) -> str:
    # psycopg and asyncpg, psycopg2, sqlite3
    known = _forms()
    for name in ("sqlstate", "pgcode", "sqlite_errorname"):
        if found := _text(origin, name):
            # SQLite has extended names (SQLITE_BUSY_SNAPSHOT); known ones have their own entry.
            base = "_".join(found.split("_")[:2])
            return base if found not in known and base in known and base != "SQLITE_ERROR" else found
    first: object = origin.args[0] if origin.args else None
    if isinstance(first, str):  # pyodbc: (SQLSTATE, message)
        return first if len(origin.args) > 1 and _CODE.fullmatch(first) else ""
    # Drivers of Oracle and MySQL: (number, message)
    number = getattr(first, "full_code", None) if len(origin.args) == 1 else first
    return str(number) if _NUMBER.fullmatch(str(number)) else ""


def _forms() -> dict[str, tuple[str, ...]]:
    # A long table, which a process without database errors never needs.
    from mks_hardening._core.database.known_messages import FORMS

    return FORMS


def _text(origin: BaseException, name: str) -> str:
    value: object = getattr(origin, name, None)
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def message_of(origin: BaseException) -> str:
    """Return the message of a driver's error, including its values."""
    arguments = origin.args
    if len(arguments) > 1 and type(arguments[0]) is int:  # drivers of MySQL: (number, message)
        return safe_text(arguments[1])
    return safe_text(origin)


def _form(code: str, message: str) -> str:
    first_line = message.strip().partition("\n")[0][:_LONGEST_COMPARED]
    for form, pattern in _patterns(code if code in _forms() else None):
        if found := pattern.search(first_line) if not code else pattern.fullmatch(first_line):
            kind = found["type"] if "<type>" in form else None
            return form.replace("<type>", kind or "?")
    return ""


@cache
def _patterns(code: str | None) -> tuple[tuple[str, re.Pattern[str]], ...]:
    if code is None:
        return ()
    return tuple((form, _pattern(form)) for form in _forms()[code])


def _pattern(form: str) -> re.Pattern[str]:
    from mks_hardening._core.database.known_messages import TYPES

    anything = re.escape(form).replace(r"\?", ".*")
    kind = rf"(?:(?P<type>{TYPES})(?:\(\d+(?:,\d+)?\))?|.*)"
    return re.compile(anything.replace("<type>", kind), re.IGNORECASE)


def _schema_fields(origin: BaseException) -> dict[str, str]:
    """Return the violated schema objects; psycopg keeps them in ``diag``, asyncpg on the error itself."""
    source: object = getattr(origin, "diag", origin)
    named = {name: getattr(source, attribute, None) for name, attribute in _SCHEMA_FIELDS.items()}
    return {name: value for name, value in named.items() if isinstance(value, str) and _NAME.fullmatch(value)}
