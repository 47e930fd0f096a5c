"""Parser for the ``Forwarded`` field (RFC 7239), from right to left.

Each proxy appends one element, so the last elements are the trustworthy ones. Parsing from the right prevents what
a client wrote on the left, such as an unclosed quote, from changing the meaning of what proxies appended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

__all__ = ["elements_from_right"]

# The elements that trusted proxies appended are at the end.
_LONGEST = 4096  # characters examined, from the right
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - the grammar of a token
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_PAIR = re.compile(rf"({_TOKEN})=(?:({_TOKEN})|({_QUOTED}))[ \t]*(?:;[; \t]*|\Z)")
_ESCAPED = re.compile(r"\\(.)")
_MARK_REVERSED = re.compile(r'"(\\*)|,')


def elements_from_right(text: str) -> Iterator[Mapping[str, str]]:
    """Yield each element, the last one first, with lower-case names and unquoted values.

    Stops at the first element that violates the grammar, is empty or repeats a parameter, and at elements more than
    4096 characters from the end.
    """
    reversed_text = text[: -_LONGEST - 1 : -1]
    start, end = 0, len(reversed_text)
    while start < end:
        comma = _next_comma(reversed_text, start)
        cut_off = comma == end and len(text) > _LONGEST
        element = _parse(reversed_text[start:comma][::-1].strip(" \t"))
        if cut_off or not element:
            return
        yield element
        start = comma + 1


def _next_comma(reversed_text: str, start: int) -> int:
    """Return the position of the next comma outside quotes, or the end of the text."""
    quoted = False
    for mark in _MARK_REVERSED.finditer(reversed_text, start):
        if mark[0] == ",":
            if not quoted:
                return mark.start()
        elif not quoted or len(mark[1]) % 2 == 0:  # an odd number of backslashes escapes the quote
            quoted = not quoted
    return len(reversed_text)


def _parse(element: str) -> dict[str, str] | None:
    pairs: dict[str, str] = {}
    position = 0
    while position < len(element):
        pair = _PAIR.match(element, position)
        if pair is None or pair[1].lower() in pairs:
            return None
        pairs[pair[1].lower()] = pair[2] or _ESCAPED.sub(r"\1", pair[3][1:-1])
        position = pair.end()
    return pairs
