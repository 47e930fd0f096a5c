"""Where a value begins and ends in free text: quotes and brackets of any kind, calls, bare words."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ESCAPED_QUOTE", "OPENERS", "QUOTES", "end_of_line", "value_at"]

#: Quotes, also as they stand in JSON within JSON.
QUOTES: Final = r"\\{0,8}[\"'`]"
#: A quote as templates of HTML write it.
ESCAPED_QUOTE: Final = r"&(?:quot|#34|#39|#x27);"
#: Wide brackets and quotes that may stand around a value.
OPENERS: Final = "「『【“‘〔［《〈"  # noqa: RUF001
_WIDE_CLOSERS: Final = dict(zip(OPENERS, "」』】”’〕］》〉", strict=True))  # noqa: RUF001
_QUOTE: Final = re.compile(rf"[bfruBFRU]{{0,2}}(\"\"\"|'''|\\{{0,8}}[\"'`]|%22|{ESCAPED_QUOTE}|[{OPENERS}])")
_BARE: Final = re.compile(
    r"(?:(?:bearer|basic|digest|token|apikey|negotiate|await)[ \t]{1,4})?"
    r"(?:[^\s&,;\"'<>\\]|[,;](?![\s\"']|\Z|[\w.-]{1,48}[=:])|\\(?![\"'nrt]))*+",
    re.IGNORECASE,
)
# A quotation around the line ends it; the quoted parameters of ``Digest realm="x"`` do not.
_REST_OF_LINE: Final = re.compile(r"(?:[^\r\n\"]|(?<==)\"[^\r\n\"]{0,512}+\")*+")
#: Ends a Japanese clause, and stands in no value that was typed on a Latin keyboard.
_CLAUSE_END: Final = re.compile("[、。]")
_CLOSERS: Final = {"[": "]", "(": ")", "{": "}"}
_BRACKETS: Final = {opener: re.compile(rf"[\{opener}\{closer}]") for opener, closer in _CLOSERS.items()}
#: ``<hunter2>``, and ``<Secret 'hunter2'>`` as objects show themselves; ``<password>`` is the place for one.
_ANGLE: Final = re.compile(r"<(?![A-Za-z_ -]{1,64}>)[^<>\r\n]{1,256}>")
_OPENER: Final = re.compile(r"(?<=\w)[(\[{]")
#: A call longer than this is no value: an opening bracket that nobody has closed.
_LONGEST_CALL: Final = 4_096


def value_at(text: str, start: int) -> tuple[int, int]:
    """The value that begins here, without its quotes."""
    quote = _QUOTE.match(text, start)
    if quote:
        return quote.end(), _closing_quote(text, quote.end(), quote[1])
    if text[start : start + 1] in _CLOSERS:
        return start, _closing_bracket(text, start, len(text))
    match = _ANGLE.match(text, start) or _BARE.match(text, start)
    end = match.end() if match else start
    if text[start:end][:1].isascii() and (clause := _CLAUSE_END.search(text, start, end)):
        end = clause.start()
    # ``Secret('x')`` and ``decrypt("x")``: the quotes have ended the bare word within the brackets.
    call = _OPENER.search(text, start, end)
    if call and text[call.start() : end].count(call[0]) > text[call.start() : end].count(_CLOSERS[call[0]]):
        limit = min(len(text), call.start() + _LONGEST_CALL)
        closing = _closing_bracket(text, call.start(), limit)
        return start, closing if closing < limit or text[closing - 1] in ")]}" else end_of_line(text, end)
    if text[end - 2 : end] in ("):", "]:"):  # the line of a ``def``: ``secret=None):``
        end -= 1
    while end > start and text[start] != "<" and text[end - 1] in ")]}>.」』】":
        end -= 1
    return start, end


def end_of_line(text: str, start: int) -> int:
    """Where the line ends, or a quotation around it."""
    match = _REST_OF_LINE.match(text, start)
    return match.end() if match else start


def _closing_quote(text: str, start: int, quote: str) -> int:
    quote = _WIDE_CLOSERS.get(quote, quote)
    position = text.find(quote, start)
    while position > 0 and text[position - 1] == "\\" and len(quote) == 1:
        position = text.find(quote, position + 1)
    return position if position >= 0 else end_of_line(text, start)


def _closing_bracket(text: str, start: int, limit: int) -> int:
    opener = text[start]
    depth = 0
    for match in _BRACKETS[opener].finditer(text, start, limit):
        depth += 1 if match[0] == opener else -1
        if depth == 0:
            return match.end()
    return limit
