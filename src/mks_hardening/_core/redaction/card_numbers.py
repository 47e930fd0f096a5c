"""Payment card numbers: a known issuer prefix, a length that the issuer uses, and a valid check digit.

ISO/IEC 7812. Lengths matter: a Japanese article number (JAN, 13 digits starting with 45 or 49) passes the check
digit as often as any number, and cards with 13 digits no longer exist.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

from mks_hardening._core.redaction.step_limit import CUT, REDACTED, StepLimit

__all__ = ["SHORTEST_CARD", "is_card", "redact_cards"]

#: The smallest possible card number.
SHORTEST_CARD: Final = 10**13

# Visa; Mastercard; American Express; Diners; Discover; JCB; UnionPay; Maestro.
_ISSUERS: Final = re.compile(
    r"4\d{15}(?:\d{3})?|(?:5[1-5]|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))\d{12,14}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|(?:6011|64[4-9]\d|65\d\d)\d{12}(?:\d{3})?|35(?:2[89]|[3-8]\d)\d{12}"
    r"|62\d{14,17}|(?:50|5[6-8]|6304|67)\d{10,14}(?<=\d{16})(?:\d{2,3})?"
)
# Groups of digits with one space, dash or dot between them; a longer group is not part of a card number.
# The lookahead skips runs that are too short: otherwise a text of single digits would produce as many matches.
# Spaces and dashes of any width, and characters typed in their place: the long vowel mark, middle dots.
_MARKS: Final = r" .\-\u00a0\u2007\u202f\u3000\u2010-\u2015\u2212\uff0d\u30fc\uff70\u30fb"
# Letters of other scripts may be adjacent: カード4111…で.
_NO_WORD: Final = r"[\dA-Za-z_]"
_DIGITS: Final = re.compile(
    # A digit first, so that the engine skips everything else quickly. HDFS blocks have negative numbers: blk_-1608…
    rf"\d(?<![\dA-Za-z_.].)(?<!_-.)(?=[\d{_MARKS}]{{13}})\d{{0,18}}+(?!{_NO_WORD})(?:[{_MARKS}]\d{{1,19}}+(?!{_NO_WORD})){{0,31}}+"
)
_SPLIT: Final = re.compile(f"([{_MARKS}])")
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_FIRST_DIGITS: Final = "23456"
_MOST_GROUPS: Final = 7
_EMBOSSED: Final = ([4, 4, 4, 4], [4, 4, 4, 4, 3], [4, 6, 5], [4, 6, 4])


def is_card(text: str) -> bool:
    """Return whether the digits of the text form a plausible card number."""
    digits = "".join(filter(str.isdecimal, text))
    return 14 <= len(digits) <= 19 and _DigitRun([digits]).without_cards(StepLimit()) is not None


def redact_cards(text: str, effort: StepLimit) -> str:
    """Replace payment card numbers; truncate the text when the step limit is reached."""
    out: list[str] = []
    done = 0
    for match in _DIGITS.finditer(text):
        if match.end() - match.start() < 14:
            continue
        pieces = _SPLIT.split(match[0])
        if not effort.spend(6 + len(pieces)):
            return "".join((*out, text[done : match.start()], CUT))
        clean = _DigitRun(pieces).without_cards(effort)
        if clean is not None:
            out += (text[done : match.start()], *clean)
            done = match.end()
    return "".join((*out, text[done:])) if out else text


class _DigitRun:
    """Groups of digits with one separator between each two.

    The sums for the check digit are computed once for the whole run. Any part of it is then checked with one
    subtraction, so the cost per group does not depend on the length of the run.
    """

    __slots__ = ("digits", "groups", "marks", "starts", "sums")

    def __init__(self, pieces: list[str]) -> None:
        self.groups = pieces[::2]
        self.marks = pieces[1::2]
        numbers = list(map(int, "".join(self.groups)))
        self.digits = "".join(map(str, numbers))
        self.starts = (0, *accumulate(map(len, self.groups)))
        # For a number that ends at an even index, the digits at even indexes are doubled (the last but one, …).
        even, odd = numbers.copy(), numbers
        even[::2] = map(_DOUBLED.__getitem__, even[::2])
        odd[1::2] = map(_DOUBLED.__getitem__, odd[1::2])
        self.sums = ((0, *accumulate(even)), (0, *accumulate(odd)))

    def without_cards(self, effort: StepLimit) -> list[str] | None:
        """Return the pieces with ``[REDACTED]`` for each card number; ``None`` if there is none."""
        cards: list[tuple[int, int]] = []
        done = 0
        starts = self.starts[:-1]
        candidates = [place for place, start in enumerate(starts) if self.digits[start] in _FIRST_DIGITS]
        effort.spend(2 * len(candidates))
        for first in candidates:
            if first >= done and (last := self._end_of_card(first)) > first:
                cards.append((first, last))
                done = last
        if not cards:
            return None
        pieces = [piece for pair in zip(self.groups, [*self.marks, ""], strict=True) for piece in pair]
        for first, last in reversed(cards):
            pieces[2 * first : 2 * last - 1] = [REDACTED]
        return pieces

    def _end_of_card(self, first: int) -> int:
        """Return the end of the card number that starts at this group: one long group or up to seven short ones."""
        start = self.starts[first]
        if len(self.groups[first]) >= 14:
            fraction = first > 0 and self.marks[first - 1] == "."
            return first + 1 if not fraction and self._is_card(start, self.starts[first + 1]) else first
        for last in range(first, min(len(self.groups), first + _MOST_GROUPS)):
            if not 2 <= len(self.groups[last]) <= _MOST_GROUPS or (
                last > first and (self.marks[last - 1] == ".") != (self.marks[first] == ".")
            ):
                break
            end = self.starts[last + 1]
            if end - start > 19:
                break
            if end - start >= 14 and self._is_card(start, end) and not self._is_oddly_dotted(first, last):
                return last + 1
        return first

    def _is_card(self, start: int, end: int) -> bool:
        sums = self.sums[end % 2]
        return (
            14 <= end - start <= 19
            and (sums[end] - sums[start]) % 10 == 0
            and _ISSUERS.fullmatch(self.digits[start:end]) is not None
        )

    def _is_oddly_dotted(self, first: int, last: int) -> bool:
        """Whether a dotted number is not grouped as on a card; it may be an address or a version."""
        return (
            "." in self.marks[first:last]
            and [len(group) for group in self.groups[first : last + 1]] not in _EMBOSSED
        )
