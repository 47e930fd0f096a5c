"""Start and end of a value in free text: quotes and brackets of any kind, calls, bare words."""

from __future__ import annotations

import re
from typing import Final

from mks_hardening._core.redaction.step_limit import StepLimit

__all__ = ["ESCAPED_QUOTE", "OPENERS", "PLAIN_ASSIGNMENT", "QUOTES", "end_of_line", "value_at"]

#: Quotes, also escaped as in JSON within JSON.
QUOTES: Final = r"\\{0,8}[\"'`]"
#: Quotes as HTML entities.
ESCAPED_QUOTE: Final = r"&(?:quot|#34|#39|#x27);"
#: Fullwidth brackets and quotes that may enclose a value.
OPENERS: Final = "「『【“‘〔［《〈"  # noqa: RUF001
_WIDE_CLOSERS: Final = dict(zip(OPENERS, "」』】”’〕］》〉", strict=True))  # noqa: RUF001
_QUOTE: Final = re.compile(rf"[bfruBFRU]{{0,2}}(\"\"\"|'''|\\{{0,8}}[\"'`]|%22|{ESCAPED_QUOTE}|[{OPENERS}])")


#: Schemes and keywords after which the value follows.
_SCHEMES: Final = r"(?i:bearer|basic|digest|token|apikey|negotiate|await)[ \t]"


def _bare(end: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?:{_SCHEMES}{{1,4}})?"
        rf"(?:[^\s&,;\"'<>\\\x1b{end}]|[,;](?![\s\"'{end}]|\Z|[\w.-]{{1,48}}[=:])|\\(?![\"'nrt]))*+",
        re.IGNORECASE,
    )


_BARE: Final = _bare("")
_BARE_IN_SENTENCE: Final = _bare("ぁ-ゖァ-ヺ一-鿿、。")
#: The most frequent form, for which ``value_at`` returns the same span: an ASCII word after ``=``, up to a space.
PLAIN_ASSIGNMENT: Final = re.compile(rf"=(?!{_SCHEMES})(?P<value>[A-Za-z0-9_]{{1,128}}+)(?=[ \r\n]|\Z)")
# A quotation mark around the line ends it; the quoted parameters of ``Digest realm="x"`` do not.
_REST_OF_LINE: Final = re.compile(r"(?:[^\r\n\"\x1b]|(?<==)\"[^\r\n\"]{0,512}+\")*+")
#: A quote without a backslash before it, found in one search regardless of the number of escaped quotes.
_UNESCAPED: Final = {quote: re.compile(rf"{quote}(?<!\\{quote})") for quote in "\"'`」』】”’〕］》〉"}  # noqa: RUF001
#: Ends a Japanese clause; does not occur in values typed on a Latin keyboard.
_CLAUSE_END: Final = re.compile("[、。]")
_CLOSERS: Final = {"[": "]", "(": ")", "{": "}"}
_BRACKETS: Final = {opener: re.compile(rf"[\{opener}\{closer}]") for opener, closer in _CLOSERS.items()}
#: ``<hunter2>``, and ``<Secret 'hunter2'>`` as in a ``repr``; ``<password>`` is a placeholder.
_ANGLE: Final = re.compile(r"<(?![A-Za-z_ -]{1,64}>)[^<>\r\n]{1,256}>")
# The bracket first, so that the engine skips everything else quickly.
_OPENER: Final = re.compile(r"[(\[{](?<=\w.)")
#: A longer call is not a value but an opening bracket that is never closed.
_LONGEST_CALL: Final = 4_096
#: A bare word is scanned at 16 characters per step (a shift by 4).
_CHARACTERS_OF_A_STEP: Final = 4


def value_at(text: str, start: int, effort: StepLimit, *, in_sentence: bool = False) -> tuple[int, int]:
    """Return the span of the value that starts here, without its quotes.

    Args:
        text: text that contains the value.
        start: start of the value, at the quote if there is one.
        effort: remaining steps.
        in_sentence: whether the next Japanese letter ends an unquoted value.
    """
    quote = _QUOTE.match(text, start)
    if quote:
        return quote.end(), _closing_quote(text, quote.end(), quote[1])
    if text[start : start + 1] in _CLOSERS:
        closing = _closing_bracket(text, start, len(text), effort)
        return start, closing if closing >= 0 else len(text)
    bare = _BARE_IN_SENTENCE if in_sentence else _BARE
    match = _ANGLE.match(text, start) or bare.match(text, start)
    end = match.end() if match else start
    if text[start:end][:1].isascii() and (clause := _CLAUSE_END.search(text, start, end)):
        end = clause.start()
    # ``Secret('x')`` and ``decrypt("x")``: the quotes have ended the bare word within the brackets.
    call = _OPENER.search(text, start, end)
    if call and text[call.start() : end].count(call[0]) > text[call.start() : end].count(_CLOSERS[call[0]]):
        # The value may end long before the end of the scanned word, and the next name may start within it.
        effort.spend((end - start) >> _CHARACTERS_OF_A_STEP)
        closing = _closing_bracket(text, call.start(), call.start() + _LONGEST_CALL, effort)
        return start, closing if closing >= 0 else end_of_line(text, end)
    if text[end - 2 : end] in ("):", "]:"):  # end of a ``def`` line: ``secret=None):``
        end -= 1
    if text[start : start + 1] != "<":
        end = start + len(text[start:end].rstrip(")]}>.」』】"))
    return start, end


def end_of_line(text: str, start: int) -> int:
    """Return the end of the line, or of a quotation around it."""
    match = _REST_OF_LINE.match(text, start)
    return match.end() if match else start


def _closing_quote(text: str, start: int, quote: str) -> int:
    closer = _WIDE_CLOSERS.get(quote, quote)
    position = text.find(closer, start)
    if position > 0 and text[position - 1] == "\\" and closer in _UNESCAPED:
        unescaped = _UNESCAPED[closer].search(text, position)
        position = unescaped.start() if unescaped else -1
    return position if position >= 0 else end_of_line(text, start)


def _closing_bracket(text: str, start: int, limit: int, effort: StepLimit) -> int:
    """Return the end of the bracket, or -1; the end of the text when the step limit is reached."""
    opener = text[start]
    known: _Brackets | None = effort.brackets.get(opener)
    if known is None or known.text is not text or start < known.first:
        known = effort.brackets[opener] = _Brackets(text, opener, start)
    return known.closing(start, limit, effort)


class _Brackets:
    """Brackets of one kind in a text: each is examined once, even if many are never closed."""

    __slots__ = ("_closed", "_found", "_open", "_seen", "first", "text")

    def __init__(self, text: str, opener: str, first: int) -> None:
        self.text = text
        self.first = first
        self._found = _BRACKETS[opener].finditer(text, first)
        self._open: list[int] = []
        self._closed: dict[int, int] = {}
        self._seen = first

    def closing(self, start: int, limit: int, effort: StepLimit) -> int:
        while start not in self._closed and self._seen <= limit:
            match = next(self._found, None)
            if match is None:
                return -1
            if not effort.spend(1):
                return len(self.text)
            self._seen = match.end()
            if match[0] in _CLOSERS:
                self._open.append(match.start())
            elif self._open:
                self._closed[self._open.pop()] = self._seen
        end = self._closed.get(start, -1)
        return end if end <= limit else -1
