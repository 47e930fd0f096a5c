"""Input validation by allow list: typed fields with limits; everything else is rejected.

The same field lists serve JSON bodies and HTML forms.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from knowledge_system.domain.problems import FieldError, Problem

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""A cell that begins with one of these may be run by a spreadsheet (CWE-1236)."""
MAX_DEPTH = 8
MAX_FIELDS = 50

# C0 and C1 controls except tab and line breaks, lone surrogates, bidirectional overrides: not needed in
# articles, names or passwords; PostgreSQL cannot store NUL.
_REFUSED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")

# Invisible characters in a letter or symbol category: Hangul fillers, blank Braille pattern, Mongolian vowel
# separator.
_BLANK = frozenset("\u115f\u1160\u17b4\u17b5\u180e\u2800\u3164\uffa0")


def is_visible(text: str) -> bool:
    """Whether at least one character of the text is visible by itself."""
    return any(c not in _BLANK and unicodedata.category(c)[0] not in "CMZ" for c in text)


def printable(text: str) -> str:
    """Return a text without the characters that are refused, for texts that people did not type here."""
    return _REFUSED.sub("", text)


class Text(NamedTuple):
    """A text, trimmed unless ``trim`` is false; ``multiline`` allows line breaks and tabs."""

    max_length: int
    min_length: int = 1
    multiline: bool = False
    trim: bool = True
    pattern: re.Pattern[str] | None = None
    choices: tuple[str, ...] | None = None
    default: str | None = None

    def read(self, value: Any) -> tuple[Any, str, object]:
        """Return the value, error code and limit; the code is empty if the value is valid."""
        if not isinstance(value, str):
            return None, "type", ""
        text = value.replace("\r\n", "\n") if self.multiline else value
        text = text.strip() if self.trim else text
        # Checked on the untrimmed value: ``strip`` also removes four of the control characters.
        if _REFUSED.search(value) or (not self.multiline and any(c in text for c in "\n\r\t\u2028\u2029")):
            return None, "characters", ""
        if self.trim and not is_visible(text):
            text = ""  # invisible text counts as empty
        if len(text) < self.min_length:
            return None, "too-short" if text else "missing", self.min_length
        if len(text) > self.max_length:
            return None, "too-long", self.max_length
        if self.choices is not None and text not in self.choices:
            return None, "choice", ""
        if self.pattern is not None and text and not self.pattern.fullmatch(text):
            return None, "pattern", ""
        return text, "", ""


class Integer(NamedTuple):
    """An integer in a range; ``from_text`` also accepts decimal digits, as forms send them."""

    minimum: int
    maximum: int
    from_text: bool = False
    default: int | None = None

    def read(self, value: Any) -> tuple[Any, str, object]:
        """Return the value, error code and limit; the code is empty if the value is valid."""
        if self.from_text and isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON Schema: 1.0 is an integer, as JSON has one number type
        if not isinstance(value, int) or isinstance(value, bool):
            return None, "type", ""
        if not self.minimum <= value <= self.maximum:
            return None, "range", f"{self.minimum}–{self.maximum}"
        return value, "", ""


class Tags(NamedTuple):
    """A list of short, distinct texts; ``from_text`` also accepts one text with separators, as forms send it."""

    max_items: int = 10
    max_length: int = 40
    from_text: bool = False
    default: tuple[str, ...] | None = ()

    def read(self, value: Any) -> tuple[Any, str, object]:
        """Return the value, error code and limit; the code is empty if the value is valid."""
        if self.from_text and isinstance(value, str):
            value = [part for part in re.split(r"[,、,\s]+", value) if part]
        if not isinstance(value, list):
            return None, "type", ""
        item = Text(self.max_length)
        names: dict[str, None] = {}
        for raw in value:
            name, error, limit = item.read(raw)
            if error:
                return None, error, limit
            names[name] = None
        if len(names) > self.max_items:
            return None, "too-many", self.max_items
        return list(names), "", ""


class Flag(NamedTuple):
    """A JSON boolean."""

    default: bool | None = None

    def read(self, value: Any) -> tuple[Any, str, object]:
        """Return the value, error code and limit; the code is empty if the value is valid."""
        return (value, "", "") if isinstance(value, bool) else (None, "type", "")


Field = Text | Integer | Tags | Flag


def take(values: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Validate ``values`` and return the allowed fields.

    Raises:
        Problem: ``invalid`` with all errors: missing, unknown, wrong type or out of range.
    """
    taken: dict[str, Any] = {}
    errors = [FieldError(name[:40], "unknown") for name in sorted(values.keys() - fields.keys())[:20]]
    for name, field in fields.items():
        if name not in values:
            if field.default is None:
                errors.append(FieldError(name, "missing"))
            else:
                taken[name] = list(field.default) if isinstance(field.default, tuple) else field.default
            continue
        taken[name], error, limit = field.read(values[name])
        if error:
            errors.append(FieldError(name, error, limit))
    if errors:
        raise Problem("invalid", errors=errors)
    return taken


def form_values(encoded: bytes, *, ignore: Sequence[str] = ()) -> dict[str, str]:
    """Parse form data or a query string in strict UTF-8; each field may occur only once.

    Raises:
        Problem: ``bad-request`` for invalid UTF-8 or too many fields, ``invalid`` for a repeated field.
    """
    try:
        pairs = parse_qsl(
            encoded.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise Problem("bad-request") from error
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values and name not in ignore:
            raise Problem("invalid", errors=[FieldError(name[:40], "duplicate")])
        values[name] = value
    return {name: value for name, value in values.items() if name not in ignore}


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Parse ``body`` as a JSON object: strict UTF-8, no NaN, no repeated names, limited depth.

    Raises:
        Problem: ``bad-json``.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Problem("bad-json") from error
    if not isinstance(value, dict) or _too_deep(value):
        raise Problem("bad-json")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name is repeated")
    return values


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        children: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                children.extend(item.values())
            elif isinstance(item, list):
                children.extend(item)
        if not children:
            return False
        level = children
    return True
