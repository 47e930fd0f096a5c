"""Where a value begins and ends in free text: quotes and brackets of any kind, calls, bare words."""

from __future__ import annotations

import re
from typing import Final

from mks_hardening._core.redaction.step_limit import StepLimit

__all__ = ["ESCAPED_QUOTE", "OPENERS", "QUOTES", "end_of_line", "value_at"]

#: Quotes, also as they stand in JSON within JSON.
QUOTES: Final = r"\\{0,8}[\"'`]"
#: A quote as templates of HTML write it.
ESCAPED_QUOTE: Final = r"&(?:quot|#34|#39|#x27);"
#: Wide brackets and quotes that may stand around a value.
OPENERS: Final = "「『【“‘〔［《〈"  # noqa: RUF001
_WIDE_CLOSERS: Final = dict(zip(OPENERS, "」』】”’〕］》〉", strict=True))  # noqa: RUF001
_QUOTE: Final = re.compile(rf"[bfruBFRU]{{0,2}}(\"\"\"|'''|\\{{0,8}}[\"'`]|%22|{ESCAPED_QUOTE}|[{OPENERS}])")


def _bare(end: str) -> re.Pattern[str]:
    return re.compile(
        r"(?:(?:bearer|basic|digest|token|apikey|negotiate|await)[ \t]{1,4})?"
        rf"(?:[^\s&,;\"'<>\\\x1b{end}]|[,;](?![\s\"'{end}]|\Z|[\w.-]{{1,48}}[=:])|\\(?![\"'nrt]))*+",
        re.IGNORECASE,
    )


_BARE: Final = _bare("")
_BARE_IN_SENTENCE: Final = _bare("ぁ-ゖァ-ヺ一-鿿、。")
# A quotation around the line ends it; the quoted parameters of ``Digest realm="x"`` do not.
_REST_OF_LINE: Final = re.compile(r"(?:[^\r\n\"\x1b]|(?<==)\"[^\r\n\"]{0,512}+\")*+")
#: The quote without a backslash before it, searched for by one call however many have one.
_UNESCAPED: Final = {quote: re.compile(rf"{quote}(?<!\\{quote})") for quote in "\"'`」』】”’〕］》〉"}  # noqa: RUF001
#: Ends a Japanese clause, and stands in no value that was typed on a Latin keyboard.
_CLAUSE_END: Final = re.compile("[、。]")
_CLOSERS: Final = {"[": "]", "(": ")", "{": "}"}
_BRACKETS: Final = {opener: re.compile(rf"[\{opener}\{closer}]") for opener, closer in _CLOSERS.items()}
#: ``<hunter2>``, and ``<Secret 'hunter2'>`` as objects show themselves; ``<password>`` is the place for one.
_ANGLE: Final = re.compile(r"<(?![A-Za-z_ -]{1,64}>)[^<>\r\n]{1,256}>")
# The bracket first: the engine passes quickly over all else.
_OPENER: Final = re.compile(r"[(\[{](?<=\w.)")
#: A call longer than this is no value: an opening bracket that nobody has closed.
_LONGEST_CALL: Final = 4_096
#: A bare word is looked through at some 16 characters a step.
_CHARACTERS_OF_A_STEP: Final = 4


def value_at(text: str, start: int, effort: StepLimit, *, in_sentence: bool = False) -> tuple[int, int]:
    """The value that begins here, without its quotes.

    Args:
        text: with the value in it.
        start: where it begins, at a quote if there is one.
        effort: what may still be done.
        in_sentence: whether the next Japanese letter ends a value without quotes.
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
        # The value may end long before the word that was looked through for it, and the next name begin in there.
        effort.spend((end - start) >> _CHARACTERS_OF_A_STEP)
        closing = _closing_bracket(text, call.start(), call.start() + _LONGEST_CALL, effort)
        return start, closing if closing >= 0 else end_of_line(text, end)
    if text[end - 2 : end] in ("):", "]:"):  # the line of a ``def``: ``secret=None):``
        end -= 1
    if text[start : start + 1] != "<":
        end = start + len(text[start:end].rstrip(")]}>.」』】"))
    return start, end


def end_of_line(text: str, start: int) -> int:
    """Where the line ends, or a quotation around it."""
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
    """Where the bracket is closed, or -1; the rest of the text belongs to it where the effort ends."""
    opener = text[start]
    known: _Brackets | None = effort.brackets.get(opener)
    if known is None or known.text is not text or start < known.first:
        known = effort.brackets[opener] = _Brackets(text, opener, start)
    return known.closing(start, limit, effort)


class _Brackets:
    """The brackets of one kind in a text: each is looked at once, however many of them are never closed."""

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
