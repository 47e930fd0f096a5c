"""The text of a database error without the values that drivers put into it."""

from __future__ import annotations

import re
from typing import Final

from mks_hardening._core.redact import default_redactor

__all__ = ["describe_error"]

_LONGEST_MESSAGE: Final = 500
_SINGLE_QUOTED: Final = re.compile(r"'(?:[^']|'')*(?:'|\Z)")
# 'invalid input syntax for type integer: "abc"': a double quoted text after a colon, or one that is no identifier,
# is a value; the others name tables, columns and constraints.
_QUOTED: Final = re.compile(r'(: )?"(?:([\w.]+)"|[^"]*(?:"|\Z))')


def describe_error(error: BaseException, *, show_values: bool = False) -> dict[str, str]:
    """Type, SQLSTATE (where the driver gives one) and message of an error.

    Drivers quote values: PostgreSQL in DETAIL ("Key (email)=(…) already exists"), in CONTEXT and in the quoted line
    of the statement. So only the first line is kept, with quoted values replaced by ``?``.
    """
    origin = getattr(error, "orig", None) or error
    message = str(origin) if show_values else _without_values(str(origin))
    described = {
        "type": type(origin).__name__,
        "message": default_redactor().redact_text(message)[:_LONGEST_MESSAGE],
    }
    state = getattr(origin, "sqlstate", None) or getattr(origin, "sqlite_errorname", None)
    if isinstance(state, str):
        described["code"] = state
    return described


def _without_values(message: str) -> str:
    first_line = message.strip().partition("\n")[0]
    return _QUOTED.sub(_name_or_mark, _SINGLE_QUOTED.sub("'?'", first_line))


def _name_or_mark(quoted: re.Match[str]) -> str:
    colon, name = quoted.groups()
    return quoted.group() if name and not colon else f'{colon or ""}"?"'
