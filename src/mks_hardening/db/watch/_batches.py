"""Bound values of a statement, to distinguish batches, pages and chunks from N+1.

A batch contains a list of several values (``IN (…)``, an array, rows of VALUES), and the next batch contains
another list. ``WHERE parent = :id AND status IN ('open', 'new')`` also contains a list, but its executions differ
in the parent. Pages and chunks differ only in the bounds of a range: ``id > :last … LIMIT 100``, ``OFFSET``, ``id
BETWEEN :a AND :b``. A chunk may also repeat itself, as ``DELETE … LIMIT 1000`` does until nothing is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Final, NamedTuple, TypeAlias, cast
from uuid import UUID

from mks_hardening.db.statement._lexer import raw_tokens_of

__all__ = ["BoundValues", "ValueReader"]

# Parameters as the driver receives them, by position or by name.
Parameters: TypeAlias = "Sequence[object] | Mapping[str, object]"

_PLACEHOLDER: Final = re.compile(
    r"%\((?P<name>\w+)\)s|[:@$](?P<word>[^\W\d]\w*)|[$?:](?P<number>\d+)|(?P<next>\?|%s)"
)
_VALUES: Final = frozenset({"value", "number", "unended"})
_QUERIES: Final = frozenset({"select", "with", "table"})
# Values from the first to the second are not conditions: SET updated_at = :now and selected columns vary in
# batches.
_NO_CONDITION: Final = frozenset({"select", "set"})
_CONDITIONS: Final = frozenset({"from", "where", "returning"})
# PostgreSQL accepts an array as text here: '{1,2,3}'.
_ARRAYS: Final = frozenset({"any", "all", "some", "unnest"})
# What a value after these is: FETCH FIRST is a LIMIT.
_ROLES: Final = {
    **dict.fromkeys((">", ">=", "between"), "lower"),
    **dict.fromkeys(("<", "<="), "upper"),
    **dict.fromkeys(("limit", "first"), "limit"),
    "offset": "offset",
}
_PLAIN: Final = frozenset(
    {int, str, float, bool, bytes, type(None), Decimal, datetime, date, UUID}
)  # hashable
_WRITING: Final = frozenset({"insert", "update", "delete", "merge"})  # also FOR UPDATE


class BoundValues(NamedTuple):
    """Values of one execution, hashed so that they can only be compared for equality.

    Attributes:
        single: hash of the values, except those in lists, in SET, and in the columns of a SELECT.
        fixed: hash of these values without the bounds of ranges, and without values that are equal to a bound.
        has_list: whether there is a list of several values.
        may_be_page: whether the statement can read or write a page or chunk.
    """

    single: int
    fixed: int
    has_list: bool
    may_be_page: bool


@dataclass(slots=True)
class _Place:
    """Place of a value: in the text, or among the parameters.

    Attributes:
        text: literal or placeholder.
        key: position or name of the parameter; ``None`` for a literal.
        role: ``lower`` or ``upper`` bound of a range, ``limit``, ``offset``, or empty.
        in_array: whether an array may be given as text here.
    """

    text: str
    key: int | str | None = None
    role: str = ""
    in_array: bool = False

    def is_list(self, value: object) -> bool:
        """Whether the value is a list of several, or an array as text (``{1,2}``), bound or quoted."""
        if isinstance(value, str):
            text = value.strip("'") if self.in_array else ""
            return text.startswith("{") and text.endswith("}") and "," in text
        return isinstance(value, (list, tuple, set, frozenset)) and len(cast("Sequence[object]", value)) > 1

    def value(self, parameters: Parameters) -> object:
        """Value of one execution."""
        if self.key is None:
            return self.text
        try:
            return cast("dict[int | str, object]", parameters)[self.key]  # or a tuple, by position
        except (KeyError, IndexError, TypeError):
            return self.text


@dataclass(slots=True)
class _Bracket:
    """Content of a pair of brackets, or of the whole statement."""

    kind: str = ""  # "list", "row" of VALUES, "array", or anything else
    values: list[_Place] = field(default_factory=list[_Place])
    commas: int = 0
    rows: list[list[_Place]] = field(default_factory=list[list[_Place]])
    in_rows: bool = False
    left_out: bool = False
    last: str = ""
    role: str = ""  # of the next value
    between: bool = False

    def opened(self, text: str) -> _Bracket:
        if self.in_rows:
            return _Bracket("row")
        if text == "[" or self.last == "in":
            return _Bracket("list", left_out=self.left_out)
        kind = "array" if self.last in _ARRAYS else ""
        return _Bracket(kind, values=self.values, left_out=self.left_out, role=self.role)

    def closed(self, inner: _Bracket) -> bool:
        """Merge a closed bracket; return whether it was a list of several values."""
        several = inner.end_rows()
        if inner.kind == "row":
            self.rows.append(inner.values)
        elif inner.kind == "list" and inner.commas:
            return True
        elif inner.values is not self.values:
            self.values += inner.values
        return several

    def end_rows(self) -> bool:
        """End the rows of VALUES; return whether there were several."""
        rows, self.rows, self.in_rows = self.rows, [], False
        if len(rows) == 1:
            self.values += rows[0]
        return len(rows) > 1

    def note_role(self, text: str) -> None:
        """Note what a word or an operator says about the next value."""
        self.role = "upper" if text == "and" and self.between else _ROLES.get(text, "")
        self.between = text == "between" or (self.between and text != "and")


class ValueReader:
    """Reader of the values of one statement, whose text is analysed once.

    Args:
        sql: text as passed to the driver.
        dialect: dialect of the lexer.
    """

    __slots__ = ("_bounds", "_has_list", "_may_be_page", "_others", "_single")

    def __init__(self, sql: str, dialect: str) -> None:
        brackets = [_Bracket()]
        places: list[_Place] = []
        self._has_list = False
        words: set[str] = set()
        for text, place in _placed(sql, dialect):
            here = brackets[-1]
            if place is not None:
                place.role, place.in_array = here.role, here.kind == "array"
                places.append(place)
                if not here.left_out:
                    here.values.append(place)
            elif text in {"(", "["}:
                brackets.append(here.opened(text))
            elif text in {")", "]"} and len(brackets) > 1:
                self._has_list |= brackets[-2].closed(brackets.pop())
            elif text == ",":
                here.commas += 1
            else:
                words.add(text)
                here.note_role(text)
                self._has_list |= here.end_rows()
                here.in_rows = text == "values"
                if text in _QUERIES:
                    here.kind = ""
                if text in _NO_CONDITION or text in _CONDITIONS:
                    here.left_out = text in _NO_CONDITION
            here.last = text
        self._has_list |= brackets[0].end_rows()
        self._single = brackets[0].values
        self._others = [place for place in places if all(place is not one for one in self._single)]
        roles = {place.role for place in self._single}
        has_limit = "limit" in {place.role for place in places}
        self._may_be_page = {"lower", "upper"} <= roles or (
            has_limit and (bool(roles & {"lower", "upper", "offset"}) or not words.isdisjoint(_WRITING))
        )

    def read(self, parameters: Parameters) -> BoundValues:
        """Read the values of one execution."""
        has_list = self._has_list
        for place in self._others:
            has_list = has_list or place.is_list(place.value(parameters))
        marks: list[object] = []
        places: list[_Place] = []
        for place in self._single:
            value = place.value(parameters)
            kind = type(value)
            if kind not in _PLAIN or place.in_array:
                if place.is_list(value):
                    has_list = True
                    continue
                value = _mark(value)
            marks.append((kind, value))
            places.append(place)
        single = fixed = hash(tuple(marks))
        if self._may_be_page:
            bounds = {mark for mark, place in zip(marks, places, strict=True) if place.role}
            fixed = hash(tuple(mark for mark in marks if mark not in bounds))
        return BoundValues(single, fixed, has_list, self._may_be_page)


def _placed(sql: str, dialect: str) -> Iterator[tuple[str, _Place | None]]:
    """Each token in lower case, with its place if it is a value."""
    following = 0
    for kind, text in raw_tokens_of(sql, dialect):
        if kind not in _VALUES:
            yield text.lower(), None
            continue
        found = _PLACEHOLDER.fullmatch(text)
        key: int | str | None = None
        if found is not None and found["next"]:
            key = following
            following += 1
        elif found is not None:
            key = found["name"] or found["word"] or max(0, int(found["number"]) - 1)
        yield text.lower(), _Place(text, key)


def _mark(value: object) -> object:
    """Hashable substitute by which two values can be compared."""
    try:
        return hash(value)
    except Exception:  # noqa: BLE001 - a parameter is foreign code
        return None
