"""Payment card numbers: digits of a known issuer, of the length that it gives out, with a right check digit.

ISO/IEC 7812. Lengths matter: a Japanese article number (JAN, 13 digits that begin with 45 or 49) passes the check
digit as often as any number, and no card has 13 digits any more.
"""

from __future__ import annotations

import re
from typing import Final

from mks_hardening._core.redaction.effort import CUT, REDACTED, Effort

__all__ = ["SHORTEST_CARD", "is_card", "redact_cards"]

#: The smallest number that could be one.
SHORTEST_CARD: Final = 10**13

# Visa; Mastercard; American Express; Diners; Discover; JCB; UnionPay; Maestro.
_ISSUERS: Final = re.compile(
    r"4\d{15}(?:\d{3})?|(?:5[1-5]|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))\d{12,14}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|(?:6011|64[4-9]\d|65\d\d)\d{12}(?:\d{3})?|35(?:2[89]|[3-8]\d)\d{12}"
    r"|62\d{14,17}|(?:50|5[6-8]|6304|67)\d{10,14}(?<=\d{16})(?:\d{2,3})?"
)
# Groups of digits with one blank, dash or dot between them; a group longer than a card number belongs to none.
# What is too short for a card is passed over by the engine: a text of single digits would else be as many matches.
# Blanks and dashes of any width, and what people type for them: the long vowel mark, middle dots.
_MARKS: Final = r" .\-\u00a0\u2007\u202f\u3000\u2010-\u2015\u2212\uff0d\u30fc\uff70\u30fb"
# Letters of other scripts may stand beside it: カード4111…で.
_NO_WORD: Final = r"[\dA-Za-z_]"
_DIGITS: Final = re.compile(
    # A digit first: the engine passes quickly over all else.
    rf"\d(?<![\dA-Za-z_.].)(?=[\d{_MARKS}]{{13}})\d{{0,18}}+(?!{_NO_WORD})(?:[{_MARKS}]\d{{1,19}}+(?!{_NO_WORD})){{0,31}}+"
)
_SPLIT: Final = re.compile(f"([{_MARKS}])")
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_MOST_GROUPS: Final = 7
_EMBOSSED: Final = ([4, 4, 4, 4], [4, 4, 4, 4, 3], [4, 6, 5], [4, 6, 4])


def is_card(text: str) -> bool:
    """Whether the digits of the text are a plausible card number."""
    digits = "".join(filter(str.isdecimal, text))
    if not digits.isascii():
        digits = "".join(str(int(digit)) for digit in digits)
    if not 14 <= len(digits) <= 19 or not _ISSUERS.fullmatch(digits):
        return False
    doubled = sum(map(_DOUBLED.__getitem__, map(int, digits[-2::-2])))
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def redact_cards(text: str, effort: Effort) -> str:
    """Replace payment card numbers."""
    out: list[str] = []
    done = 0
    for match in _DIGITS.finditer(text):
        if match.end() - match.start() < 14:
            continue
        pieces = _SPLIT.split(match[0])
        if not effort.spend(8 + 8 * len(pieces)):
            return "".join((*out, text[done : match.start()], CUT))
        out += (text[done : match.start()], *_without_cards(pieces))
        done = match.end()
    return "".join((*out, text[done:])) if out else text


def _without_cards(pieces: list[str]) -> list[str]:
    groups, marks = pieces[::2], pieces[1::2]
    out: list[str] = []
    first = 0
    while first < len(groups):
        last = _end_of_card(groups, marks, first)
        out.append(REDACTED if last > first else groups[first])
        first = max(last, first + 1)
        out += marks[first - 1 : first]
    return out


def _end_of_card(groups: list[str], marks: list[str], first: int) -> int:
    """Where the card number that begins with this group ends: one long group, or three and more short ones."""
    if len(groups[first]) >= 14:
        fraction = first > 0 and marks[first - 1] == "."
        return first + 1 if not fraction and is_card(groups[first]) else first
    number = ""
    for last in range(first, min(len(groups), first + _MOST_GROUPS)):
        if not 2 <= len(groups[last]) <= _MOST_GROUPS or (
            last > first and (marks[last - 1] == ".") != (marks[first] == ".")
        ):
            break
        number += groups[last]
        if len(number) > 19:
            break
        # With dots only as it is embossed: anything else may be an address or a version.
        dotted = (
            "." in marks[first:last] and [len(group) for group in groups[first : last + 1]] not in _EMBOSSED
        )
        if len(number) >= 14 and not dotted and is_card(number):
            return last + 1
    return first
