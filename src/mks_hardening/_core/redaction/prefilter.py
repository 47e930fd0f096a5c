"""Prefilter: a cheap test for the kinds of secrets that a text can contain.

Almost no log line contains a secret, and running all patterns over each line would cost more than the rest of the
formatter. Everything here is derived from the pattern table: for each literal that starts a pattern, its rarest
character; for names, the characters that separate a name from its value. One ``bytes.translate`` removes everything
else, and only the remaining bytes decide which literals are searched for. Passes that the prefilter does not select
are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

from mks_hardening._core.memo import Memo
from mks_hardening._core.redaction.japanese_text import folded, lowered
from mks_hardening._core.redaction.secret_names import by_first_letter
from mks_hardening._core.redaction.secret_patterns import SECRET_PATTERNS, SecretPattern

__all__ = ["Prefilter", "SuspectedSecrets", "everything"]


class SuspectedSecrets(NamedTuple):
    """Kinds of secrets that a text may contain.

    Attributes:
        forms: rows of the pattern table.
        cards: whether it may contain a payment card number.
        named: whether it may contain a value after a secret name.
    """

    forms: tuple[SecretPattern, ...]
    cards: bool
    named: bool


#: The most frequent result, shared because creating one takes a fifth of the whole test.
_NAMED_ONLY: Final = SuspectedSecrets((), cards=False, named=True)

# From rare to common in log lines; digits count as one character, other lower-case letters are never rare.
_RARE: Final = 'JQZXKVGBUHWYNFDOLMPRCEIATS_%?&-0/:"'
_ALWAYS: Final = b""
_DIGITS: Final = b"0123456789"
_NOT_ASCII: Final = bytes(range(128, 256))
_ZEROED: Final = bytes.maketrans(_DIGITS, b"0" * 10)

#: ASCII characters that separate a name from its value. A value without a separator must contain a digit or a dash,
#: or its name an underscore, or ``to`` must precede it; outside ASCII, anything may separate them.
_SEPARATORS: Final = b"=:'\"`>%0_-"


def _rarest(literal: str) -> bytes:
    shown = re.sub("[0-9]", "0", literal)
    return next((letter.encode() for letter in _RARE if letter in shown), _ALWAYS)


class _PrefilterRow(NamedTuple):
    literal: str
    needs: str
    form: int


def _rows(*, folded: bool) -> dict[bytes, list[_PrefilterRow]]:
    rows: dict[bytes, list[_PrefilterRow]] = {}
    for place, form in enumerate(SECRET_PATTERNS):
        if form.folded == folded:
            for literal in form.literals:
                row = _PrefilterRow(literal, form.needs, place)
                rows.setdefault(_rarest(literal + form.needs), []).append(row)
    return rows


_EXACT: Final = _rows(folded=False)
_FOLDED: Final = _rows(folded=True)
# Literals without a rare character are searched for in every text.
_ALWAYS_ROWS: Final = tuple((row.literal, row.form) for row in _EXACT.pop(_ALWAYS, ()))
_TRIGGERS: Final = tuple({**_EXACT, **_FOLDED})

_KEPT: Final = frozenset(b"".join(_TRIGGERS) + _SEPARATORS + _DIGITS)
_DROP: Final = bytes(byte for byte in range(256) if byte not in _KEPT)
_NOT_SEPARATORS: Final = bytes(byte for byte in _KEPT if byte not in _SEPARATORS)


class _Candidates(NamedTuple):
    """What a text may contain, judging by its kept characters: literals, names with a value, card numbers."""

    exact: tuple[_PrefilterRow, ...]
    folded: tuple[_PrefilterRow, ...]
    separated: bool
    digits: int


def _candidates(kept: bytes) -> _Candidates:
    triggers = [trigger for trigger in _TRIGGERS if trigger in kept]
    return _Candidates(
        tuple(row for trigger in triggers for row in _EXACT.get(trigger, ())),
        tuple(row for trigger in triggers for row in _FOLDED.get(trigger, ())),
        len(kept.translate(None, _NOT_SEPARATORS)) > 0,
        kept.count(b"0"),
    )


# Log lines differ in their words and numbers, but rarely in their punctuation.
_CANDIDATES: Final = Memo(_candidates, longest=64)

# Runs that may contain a card number: digits become 0; spaces, dashes and dots are removed; others break the run.
_RUNS: Final = bytes(48 if byte in _DIGITS else 120 for byte in range(256))
_SHORTEST_RUN: Final = 14
_RUN: Final = b"0" * _SHORTEST_RUN
_FOREIGN_DIGIT: Final = re.compile(r"\d(?<![0-9])")


class Prefilter:
    """Prefilter for one set of stems.

    Args:
        stems: every secret name contains one of them.
    """

    __slots__ = ("_latin_stems", "_stems")

    def __init__(self, stems: Iterable[str]) -> None:
        words = tuple(stems)
        self._stems = re.compile(by_first_letter(words))
        # ASCII text contains no others, and the search takes three quarters of the time.
        self._latin_stems = re.compile(by_first_letter(filter(str.isascii, words)))

    def suspects(self, text: str) -> SuspectedSecrets | None:
        """Return what the text may contain; ``None`` for nothing."""
        data = text.encode("utf-8", "surrogatepass")
        exact, folded_rows, separated, digits = _CANDIDATES[data.translate(_ZEROED, _DROP)]
        plain = text.isascii()
        # Literals are ASCII, so the other bytes need not be searched for each of them. Text rather than bytes:
        # ``in`` on bytes first tries the literal as a number, which costs five times as much as the search.
        latin = text if plain else data.translate(None, _NOT_ASCII).decode("ascii")
        forms: list[int] = []  # filled without comprehensions: a call costs more than the searches
        for literal, place in _ALWAYS_ROWS:
            if literal in latin:
                forms.append(place)
        separated = separated or " to " in latin  # ``password is set to abcd``
        if plain and not (separated or exact or folded_rows or forms):
            return None
        for literal, needs, place in exact:
            if literal in latin and needs in latin:
                forms.append(place)
        low = latin.lower()
        for literal, _, place in folded_rows:
            if literal in low:
                forms.append(place)
        cards = digits >= _SHORTEST_RUN and _RUN in data.translate(_RUNS, b" -.")
        if not plain:
            cards = cards or digits >= _SHORTEST_RUN
            if not cards and _FOREIGN_DIGIT.search(text):
                # Only as many as are missing: a text of such digits alone would produce as many matches.
                foreign = islice(_FOREIGN_DIGIT.finditer(text), _SHORTEST_RUN - digits)
                cards = digits + sum(1 for _ in foreign) >= _SHORTEST_RUN
            # On text rather than bytes: nearly every byte of Japanese text is the first byte of some stem.
            named = self._stems.search(lowered(folded(text))) is not None
        else:
            named = separated and self._latin_stems.search(low) is not None
        if not (forms or cards):
            return _NAMED_ONLY if named else None
        # In the order of the table, independent of the order of discovery.
        return SuspectedSecrets(tuple(map(SECRET_PATTERNS.__getitem__, sorted(set(forms)))), cards, named)


def everything() -> SuspectedSecrets:
    """Return a result that selects every pass."""
    return SuspectedSecrets(SECRET_PATTERNS, cards=True, named=True)
