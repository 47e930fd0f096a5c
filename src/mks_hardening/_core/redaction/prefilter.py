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


# From rare to common in log lines; digits count as one character, other lower-case letters are never rare.
_RARE: Final = "JQZXKVGBUHWYNFDOLMPRCEIATS_%?&-0/:"
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
    literal: bytes
    needs: bytes
    form: int


def _rows(*, folded: bool) -> dict[bytes, list[_PrefilterRow]]:
    rows: dict[bytes, list[_PrefilterRow]] = {}
    for place, form in enumerate(SECRET_PATTERNS):
        if form.folded == folded:
            for literal in form.literals:
                row = _PrefilterRow(literal.encode(), form.needs.encode(), place)
                rows.setdefault(_rarest(literal + form.needs), []).append(row)
    return rows


_EXACT: Final = _rows(folded=False)
_FOLDED: Final = _rows(folded=True)
# Literals without a rare character; there is one, so it is searched for in every text.
_ALWAYS_ROWS: Final = tuple(_EXACT.pop(_ALWAYS, ()))
_BY_TRIGGER: Final = {ord(trigger): tuple(rows) for trigger, rows in _EXACT.items()}
_FOLDED_BY_TRIGGER: Final = {ord(trigger): tuple(rows) for trigger, rows in _FOLDED.items()}

_KEPT: Final = frozenset(b"".join((*_EXACT, *_FOLDED)) + _SEPARATORS + _DIGITS)
_DROP: Final = bytes(byte for byte in range(256) if byte not in _KEPT)
_NOT_SEPARATORS: Final = bytes(byte for byte in _KEPT if byte not in _SEPARATORS)

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

    __slots__ = ("_stems",)

    def __init__(self, stems: Iterable[str]) -> None:
        self._stems = re.compile(by_first_letter(stems))

    def suspects(self, text: str) -> SuspectedSecrets | None:
        """Return what the text may contain; ``None`` for nothing."""
        data = text.encode("utf-8", "surrogatepass")
        kept = data.translate(_ZEROED, _DROP)
        plain = data.isascii()
        forms = [row.form for row in _ALWAYS_ROWS if row.literal in data]
        has_assignment = b" to " in data  # ``password is set to abcd``
        if not (kept or forms or has_assignment) and plain:
            return None
        # Literals are ASCII, so the other bytes need not be searched for each of them.
        data = data if plain else data.translate(None, _NOT_ASCII)
        low = data.lower()
        for trigger in set(kept):
            if trigger in _BY_TRIGGER:
                rows = _BY_TRIGGER[trigger]
                forms += [row.form for row in rows if row.literal in data and row.needs in data]
            if trigger in _FOLDED_BY_TRIGGER:
                forms += [row.form for row in _FOLDED_BY_TRIGGER[trigger] if row.literal in low]
        digits = kept.count(b"0")
        cards = digits >= _SHORTEST_RUN and _RUN in data.translate(_RUNS, b" -.")
        if not plain:
            cards = cards or digits >= _SHORTEST_RUN
            if not cards and _FOREIGN_DIGIT.search(text):
                # Only as many as are missing: a text of such digits alone would produce as many matches.
                foreign = islice(_FOREIGN_DIGIT.finditer(text), _SHORTEST_RUN - digits)
                cards = digits + sum(1 for _ in foreign) >= _SHORTEST_RUN
            text = folded(text)
        # On text rather than bytes: nearly every byte of Japanese text is the first byte of some stem.
        named = (not plain or has_assignment or len(kept.translate(None, _NOT_SEPARATORS)) > 0) and (
            self._stems.search(text.lower() if plain else lowered(text)) is not None
        )
        if not (forms or cards or named):
            return None
        # In the order of the table, independent of the order of discovery.
        return SuspectedSecrets(tuple(map(SECRET_PATTERNS.__getitem__, sorted(set(forms)))), cards, named)


def everything() -> SuspectedSecrets:
    """Return a result that selects every pass."""
    return SuspectedSecrets(SECRET_PATTERNS, cards=True, named=True)
