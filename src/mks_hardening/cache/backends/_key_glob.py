"""The glob patterns of Redis, for other backends."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

__all__ = ["escape_incomplete", "glob_pattern"]

_PIECE: Final = re.compile(
    r"\\(?P<literal>.)|(?P<star>\*+)|(?P<any>\?)"
    # Possessive: text read as a range, "[a-]", does not become the end of a set if there is no later bracket.
    r"|\[(?P<not>\^?+)(?P<set>(?:\\.|[^\]\\]-.|[^\]\\])*+)\]|(?P<other>.)",
    re.DOTALL,
)
_MEMBER: Final = re.compile(r"\\(.)|(.)-(.)|(.)", re.DOTALL)


def escape_incomplete(pattern: str) -> str:
    """Escape a trailing backslash and an unclosed bracket, so that the pattern can be followed by other text."""
    return "".join(
        f"\\{piece[0]}" if piece["other"] in {"\\", "["} else piece[0] for piece in _PIECE.finditer(pattern)
    )


@lru_cache(maxsize=128)
def glob_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a glob pattern to a regular expression, to be used with ``fullmatch``."""
    return re.compile("".join(_translated(piece) for piece in _PIECE.finditer(pattern)), re.DOTALL)


def _translated(piece: re.Match[str]) -> str:
    if piece["star"]:
        return ".*"
    if piece["any"]:
        return "."
    if piece["set"] is not None:
        members = "".join(_member(member) for member in _MEMBER.finditer(piece["set"]))
        # An empty set matches nothing in Redis; in a regular expression "[]" would extend over what follows.
        return f"[{piece['not']}{members}]" if members else ("." if piece["not"] else "(?!)")
    return re.escape(piece["literal"] or piece["other"])


def _member(member: re.Match[str]) -> str:
    escaped, first, last, single = member.groups()
    if first:
        # Redis reads [z-a] as [a-z]; re rejects it.
        low, high = sorted((first, last))
        return f"{re.escape(low)}-{re.escape(high)}"
    return re.escape(escaped or single)
