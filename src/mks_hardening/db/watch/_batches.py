"""Bound values of a statement, to distinguish batches from N+1: batches differ only in lists.

A batch contains a list of several values (``IN (…)``, an array, rows of VALUES), and the next batch contains
another list. ``WHERE parent = :id AND status IN ('open', 'new')`` also contains a list, but its executions differ
in the parent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

from mks_hardening.db.statement._lexer import raw_tokens_of

__all__ = ["BoundValues", "values_of"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundValues:
    """Values of one execution, hashed so that they can only be compared for equality.

    Attributes:
        single: hash of the values, except those in lists, in SET, and in the columns of a SELECT.
        has_list: whether there is a list of several values.
    """

    single: int
    has_list: bool


@dataclass(slots=True)
class _Bracket:
    """Content of a pair of brackets, or of the whole statement."""

    kind: str = ""  # "list", "row" of VALUES, "array", or anything else
    values: list[object] = field(default_factory=list[object])
    commas: int = 0
    rows: list[list[object]] = field(default_factory=list[list[object]])
    in_rows: bool = False
    left_out: bool = False
    last: str = ""

    def opened(self, text: str) -> _Bracket:
        if self.in_rows:
            return _Bracket("row")
        if text == "[" or self.last == "in":
            return _Bracket("list", left_out=self.left_out)
        kind = "array" if self.last in _ARRAYS else ""
        return _Bracket(kind, values=self.values, left_out=self.left_out)

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


def values_of(sql: str, parameters: Parameters, dialect: str) -> BoundValues:
    """Extract the values of one execution from its text and parameters."""
    brackets = [_Bracket()]
    has_list = False
    for text, value in _valued(sql, parameters, dialect):
        here = brackets[-1]
        if value is not None:
            if _is_several(value) or (here.kind == "array" and _is_array_text(value)):
                has_list = True
            elif not here.left_out:
                here.values.append(_mark(value))
        elif text in {"(", "["}:
            brackets.append(here.opened(text))
        elif text in {")", "]"} and len(brackets) > 1:
            has_list |= brackets[-2].closed(brackets.pop())
        elif text == ",":
            here.commas += 1
        else:
            has_list |= here.end_rows()
            here.in_rows = text == "values"
            if text in _QUERIES:
                here.kind = ""
            if text in _NO_CONDITION or text in _CONDITIONS:
                here.left_out = text in _NO_CONDITION
        here.last = text
    has_list |= brackets[0].end_rows()
    return BoundValues(single=hash(tuple(brackets[0].values)), has_list=has_list)


def _valued(sql: str, parameters: Parameters, dialect: str) -> Iterator[tuple[str, object]]:
    """Each token in lower case, with its value if it is one."""
    by_name = cast("Mapping[str, object]", parameters if isinstance(parameters, Mapping) else {})
    by_position = () if isinstance(parameters, Mapping) else parameters
    following = iter(by_position)
    for kind, text in raw_tokens_of(sql, dialect):
        found = _PLACEHOLDER.fullmatch(text) if kind in _VALUES else None
        if found is None:
            yield text.lower(), text if kind in _VALUES else None
        elif found["next"]:
            yield text, next(following, text)
        elif found["number"]:
            place = int(found["number"]) - 1
            yield text, by_position[place] if 0 <= place < len(by_position) else text
        else:
            yield text, by_name.get(found["name"] or found["word"], text)


def _is_several(value: object) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) and len(cast("Sequence[object]", value)) > 1


def _is_array_text(value: object) -> bool:
    """Whether the value is an array as text (``{1,2}``), bound or quoted in the statement."""
    text = value.strip("'") if isinstance(value, str) else ""
    return text.startswith("{") and text.endswith("}") and "," in text


def _mark(value: object) -> object:
    """Hashable substitute by which two values can be compared."""
    with suppress(Exception):
        return type(value), hash(value)
    return type(value)
