"""People to invite, from a CSV file of a spreadsheet: UTF-8 with or without BOM, or Shift_JIS.

Any file gives a report with one entry for each line; nothing in it is taken on trust.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from knowledge_system.domain import fields
from knowledge_system.domain.permissions import ROLES
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.domain.translations import say
from knowledge_system.domain.validation import FORMULA_STARTS, Tags

MOST_BYTES: Final = 131_072
MOST_PEOPLE: Final = 300
_MOST_CELL: Final = 1000
COLUMNS: Final = {
    "username": "ユーザー名",
    "display_name": "氏名",
    "role": "役割",
    "email": "メールアドレス",
    "department": "部署",
    "groups": "グループ",
}
"""Columns of the file, with the names of their headings; department and groups may be missing."""
_OPTIONAL: Final = {"department", "groups"}
_FIELDS: Final = {
    **{name: fields.ACCOUNT[name] for name in COLUMNS if name != "groups"},
    "email": fields.EMAIL_ADDRESS,
    "groups": Tags(from_text=True),
}
_ROLES: Final = {
    text.casefold(): role for role, name in ROLES.items() for text in (role, name, say(name, "en"))
}

State = Literal["new", "waiting", "known", "bad"]


class Account(NamedTuple):
    """An existing account: its address, and whether its invitation waits for a password."""

    email: str
    waiting: bool


class Line(NamedTuple):
    """A line of the file.

    Attributes:
        number: line number in the file, from 1.
        state: ``new``, ``waiting`` (invited before), ``known`` (has an account, which stays as it is) or ``bad``.
        values: what the line says, valid unless the state is ``bad``.
        errors: what is wrong with it.
    """

    number: int
    state: State
    values: dict[str, Any]
    errors: tuple[FieldError, ...] = ()


def decoded(content: bytes) -> str:
    """Return the text of a file.

    Raises:
        Problem: ``invalid``: the file is too large, or neither UTF-8 nor Shift_JIS.
    """
    if len(content) > MOST_BYTES:
        raise _refused("csv-too-large", MOST_BYTES // 1024)
    for encoding in ("utf-8-sig", "cp932"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise _refused("csv-text")


def report(text: str, accounts: Mapping[str, Account]) -> list[Line]:
    """Return what an import would do with each line.

    Args:
        text: the decoded file.
        accounts: existing accounts by user name.

    Raises:
        Problem: ``invalid``: a heading is missing, unknown or repeated, or there are no or too many lines.
    """
    rows = _rows(text)
    _, heading = next(rows, (0, []))
    names = {label: name for name, japanese in COLUMNS.items() for label in (name, japanese)}
    columns = [names.get(cell.strip(), "") for cell in heading]
    if "" in columns or len(columns) != len(set(columns)) or COLUMNS.keys() - _OPTIONAL - set(columns):
        raise _refused("csv-heading", "、".join(COLUMNS.values()))
    taken = {account.email: name for name, account in accounts.items() if account.email}
    seen: set[str] = set()
    lines: list[Line] = []
    for number, cells in rows:
        if len(lines) == MOST_PEOPLE:
            raise _refused("csv-too-many", MOST_PEOPLE)
        line = _read(number, columns, cells)
        username, email = str(line.values["username"]), str(line.values["email"]).lower()
        errors = [
            FieldError(name, code)
            for name, code, wrong in (
                ("username", "repeated", username in seen),
                ("email", "repeated", bool(email) and email in seen),
                ("email", "taken", taken.get(email, username) != username),
            )
            if wrong
        ]
        seen |= {username, email}
        known = accounts.get(username)
        state: State = "new" if known is None else "waiting" if known.waiting else "known"
        errors = [*line.errors, *errors]
        lines.append(line._replace(state="bad" if errors else state, errors=tuple(errors)))
    if not lines:
        raise _refused("file-empty")
    return lines


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, with their line numbers."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for cells in rows:
            if any(cell.strip() for cell in cells):
                yield number, cells
            number = rows.line_num + 1
    except csv.Error as error:
        raise _refused("csv-line", number) from error


def _read(number: int, columns: Iterable[str], cells: list[str]) -> Line:
    given = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
    values: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    errors = [] if len(cells) <= len(given) else [FieldError("line", "unknown")]
    for name, field in _FIELDS.items():
        cell = given.get(name, "")
        if name == "role":
            cell = _ROLES.get(cell.casefold(), cell)
        values[name] = cell[:_MOST_CELL]
        if cell.startswith(FORMULA_STARTS):
            errors.append(FieldError(name, "formula"))
            continue
        value, code, limit = field.read(cell)
        if code:
            errors.append(FieldError(name, code, limit))
        else:
            values[name] = value
    return Line(number, "bad", values, tuple(errors))


def _refused(code: str, limit: object = "") -> Problem:
    return Problem("invalid", errors=[FieldError("file", code, limit)])
