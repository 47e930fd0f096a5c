"""What may come in: fields by allow list, each with its type and bounds; everything else is refused.

The same field lists serve JSON bodies and HTML forms. Pure functions over plain values.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from knowledge_system.domain.problems import FieldFault, Problem

__all__ = [
    "Field",
    "Flag",
    "Integer",
    "Tags",
    "Text",
    "form_values",
    "is_visible",
    "parse_json_object",
    "take",
]

MAX_DEPTH = 8
MAX_FIELDS = 50

# C0 and C1 controls apart from tab and line ends, lone surrogates, bidirectional overrides: none has a place in an
# article, a name or a password, and NUL cannot be stored in PostgreSQL.
_REFUSED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")

# Letters by their category that draw nothing: Hangul fillers, the blank Braille pattern, the Mongolian separator.
_BLANK = frozenset("\u115f\u1160\u17b4\u17b5\u180e\u2800\u3164\uffa0")


def is_visible(text: str) -> bool:
    """Whether at least one character of it draws something by itself."""
    return any(c not in _BLANK and unicodedata.category(c)[0] not in "CMZ" for c in text)


class Text(NamedTuple):
    """A text; trimmed unless ``trim`` is false. ``multiline`` allows line ends and tabs."""

    max_length: int
    min_length: int = 1
    multiline: bool = False
    trim: bool = True
    pattern: re.Pattern[str] | None = None
    choices: tuple[str, ...] | None = None
    default: str | None = None

    def read(self, value: Any) -> tuple[Any, str, object]:
        """The value, or the code of the fault and its limit."""
        if not isinstance(value, str):
            return None, "type", ""
        text = value.replace("\r\n", "\n") if self.multiline else value
        text = text.strip() if self.trim else text
        # Before it is trimmed: four of the controls count as white space.
        if _REFUSED.search(value) or (not self.multiline and any(c in text for c in "\n\r\t\u2028\u2029")):
            return None, "characters", ""
        if self.trim and not is_visible(text):
            text = ""  # what nobody can see is not there
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
    """A whole number in a range; decimal digits are accepted as text, as forms send them, if ``from_text``."""

    minimum: int
    maximum: int
    from_text: bool = False
    default: int | None = None

    def read(self, value: Any) -> tuple[Any, str, object]:
        """The value, or the code of the fault and its limit."""
        if self.from_text and isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 1.0 is an integer in JSON Schema, as JSON knows one kind of number
        if not isinstance(value, int) or isinstance(value, bool):
            return None, "type", ""
        if not self.minimum <= value <= self.maximum:
            return None, "range", f"{self.minimum}–{self.maximum}"
        return value, "", ""


class Tags(NamedTuple):
    """A list of short texts without repetition; one text with separators is accepted, as forms send it."""

    max_items: int = 10
    max_length: int = 40
    from_text: bool = False
    default: tuple[str, ...] | None = ()

    def read(self, value: Any) -> tuple[Any, str, object]:
        """The value, or the code of the fault and its limit."""
        if self.from_text and isinstance(value, str):
            value = [part for part in re.split(r"[,、,\s]+", value) if part]
        if not isinstance(value, list):
            return None, "type", ""
        item = Text(self.max_length)
        names: dict[str, None] = {}
        for raw in value:
            name, fault, limit = item.read(raw)
            if fault:
                return None, fault, limit
            names[name] = None
        if len(names) > self.max_items:
            return None, "too-many", self.max_items
        return list(names), "", ""


class Flag(NamedTuple):
    """True or false, in JSON."""

    default: bool | None = None

    def read(self, value: Any) -> tuple[Any, str, object]:
        """The value, or the code of the fault and its limit."""
        return (value, "", "") if isinstance(value, bool) else (None, "type", "")


Field = Text | Integer | Tags | Flag


def take(values: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """The allowed fields of ``values``, read and checked.

    Raises:
        Problem: ``invalid`` with every fault: missing, unknown, of a wrong type or out of bounds.
    """
    taken: dict[str, Any] = {}
    faults = [FieldFault(name[:40], "unknown") for name in sorted(values.keys() - fields.keys())[:20]]
    for name, field in fields.items():
        if name not in values:
            if field.default is None:
                faults.append(FieldFault(name, "missing"))
            else:
                taken[name] = list(field.default) if isinstance(field.default, tuple) else field.default
            continue
        taken[name], fault, limit = field.read(values[name])
        if fault:
            faults.append(FieldFault(name, fault, limit))
    if faults:
        raise Problem("invalid", faults=faults)
    return taken


def form_values(encoded: bytes, *, ignore: Sequence[str] = ()) -> dict[str, str]:
    """The fields of a form or of an address, each at most once, in strict UTF-8.

    Raises:
        Problem: ``bad-request`` for other bytes than UTF-8 or too many fields, ``invalid`` for a repeated one.
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
            raise Problem("invalid", faults=[FieldFault(name[:40], "duplicate")])
        values[name] = value
    return {name: value for name, value in values.items() if name not in ignore}


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body``: strict UTF-8, no NaN, no repeated names, bounded depth.

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
