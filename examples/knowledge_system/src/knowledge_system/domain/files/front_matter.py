"""Articles as text files: facts between two lines of ``---``, then the body.

Each fact is a line ``name: value`` with the value in JSON, which every reader of YAML takes too; a value that is
not JSON counts as the text it is, for those who write such files by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["FrontMatterError", "dumped", "loaded"]

_FENCE: Final = "---"
_LINE: Final = re.compile(r"([a-z][a-z_]{0,30}):(?:[ \t]+(.*))?")
_MOST_LINES: Final = 50


class FrontMatterError(ValueError):
    """The text does not begin with facts as they have to be; the message says in which line."""


def dumped(facts: Mapping[str, Any], body: str) -> str:
    """The text of facts and body."""
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in facts.items()]
    return "\n".join([_FENCE, *lines, _FENCE, "", body])


def loaded(text: str) -> tuple[dict[str, Any], str]:
    """Facts and body of a text; line ends may be those of Windows, and a byte order mark may stand before it.

    Raises:
        FrontMatterError: no fence, a line that is no fact, a fact told twice.
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
