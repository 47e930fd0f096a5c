"""Articles as text files with front matter: metadata between two lines of ``---``, then the body.

Each line is ``name: value`` with the value in JSON, which is also valid YAML. A value that is not valid JSON is
read as plain text, for files written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

_FENCE: Final = "---"
_LINE: Final = re.compile(r"([a-z][a-z_]{0,30}):(?:[ \t]+(.*))?")
_MOST_LINES: Final = 50


class FrontMatterError(ValueError):
    """The text does not begin with valid front matter; the message names the line."""


def dump(facts: Mapping[str, Any], body: str) -> str:
    """Serialize metadata and body."""
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in facts.items()]
    return "\n".join([_FENCE, *lines, _FENCE, "", body])


def load(text: str) -> tuple[dict[str, Any], str]:
    """Parse metadata and body; accepts CRLF line endings and a byte order mark.

    Raises:
        FrontMatterError: no opening or closing line, an invalid line, a duplicate name.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0].rstrip() != _FENCE:
        raise FrontMatterError("line 1")
    facts: dict[str, Any] = {}
    for number, line in enumerate(lines[1:_MOST_LINES], 1):
        if line.rstrip() == _FENCE:
            rest = lines[number + 1 :]
            return facts, "\n".join(rest[1:] if rest and not rest[0] else rest)
        found = _LINE.fullmatch(line.rstrip())
        if found is None or found[1] in facts:
            raise FrontMatterError(f"line {number + 1}")
        facts[found[1]] = _value(found[2] or "")
    raise FrontMatterError("no closing line")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
