"""The cheap question before the dear one: what kinds of secrets can this text hold at all?

Almost no log line can hold any, and running the patterns over each would cost more than the rest of the formatter.
Everything here is derived from the table: for each literal that a form begins with, its rarest character; for
names, the characters that part a name from its value. One ``bytes.translate`` throws everything else away; only
what is left decides which literals are then looked for. Passes that the gate does not name are not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

from mks_hardening._core.redaction.japanese_text import folded, lowered
from mks_hardening._core.redaction.secret_names import by_first_letter
from mks_hardening._core.redaction.secret_patterns import FORMS, SecretPattern

__all__ = ["Prefilter", "SuspectedSecrets", "everything"]


class SuspectedSecrets(NamedTuple):
    """What a text may hold.

    Attributes:
        forms: rows of the table.
        cards: a payment card number.
        named: a value behind a secret name.
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

#: ASCII characters that part a name from its value. A value that stands there without any must have a digit or a
#: dash, or its name an underscore, or is set *to* it; outside ASCII anything may part them.
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
    for place, form in enumerate(FORMS):
        if form.folded == folded:
            for literal in form.literals:
                row = _PrefilterRow(literal.encode(), form.needs.encode(), place)
                rows.setdefault(_rarest(literal + form.needs), []).append(row)
    return rows


_EXACT: Final = _rows(folded=False)
_FOLDED: Final = _rows(folded=True)
# Literals without any rare character; there is one, so they are looked for in every text.
_ALWAYS_ROWS: Final = tuple(_EXACT.pop(_ALWAYS, ()))
_BY_TRIGGER: Final = {ord(trigger): tuple(rows) for trigger, rows in _EXACT.items()}
_FOLDED_BY_TRIGGER: Final = {ord(trigger): tuple(rows) for trigger, rows in _FOLDED.items()}

_KEPT: Final = frozenset(b"".join((*_EXACT, *_FOLDED)) + _SEPARATORS + _DIGITS)
_DROP: Final = bytes(byte for byte in range(256) if byte not in _KEPT)
_NOT_SEPARATORS: Final = bytes(byte for byte in _KEPT if byte not in _SEPARATORS)

# Where a card number can hide: digits become 0, blanks, dashes and dots vanish, all else breaks the run.
_RUNS: Final = bytes(48 if byte in _DIGITS else 120 for byte in range(256))
_SHORTEST_RUN: Final = 14
_RUN: Final = b"0" * _SHORTEST_RUN
_FOREIGN_DIGIT: Final = re.compile(r"\d(?<![0-9])")


class Prefilter:
    """Asks for one set of stems.

    Args:
        stems: every secret name contains one of them.
    """

    __slots__ = ("_stems",)

    def __init__(self, stems: Iterable[str]) -> None:
        self._stems = re.compile(by_first_letter(stems))

    def suspects(self, text: str) -> SuspectedSecrets | None:
        """What the text may hold; ``None`` when nothing."""
        data = text.encode("utf-8", "surrogatepass")
        kept = data.translate(_ZEROED, _DROP)
        plain = data.isascii()
        forms = [row.form for row in _ALWAYS_ROWS if row.literal in data]
        said = b" to " in data  # ``password is set to abcd``
        if not (kept or forms or said) and plain:
            return None
        # Literals are ASCII: the rest need not be searched for each of them.
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
                # As many as are missing: a text of such digits alone would be as many matches.
                foreign = islice(_FOREIGN_DIGIT.finditer(text), _SHORTEST_RUN - digits)
                cards = digits + sum(1 for _ in foreign) >= _SHORTEST_RUN
            text = folded(text)
        # In text: nearly every byte of Japanese is one that some stem begins with.
        named = (not plain or said or len(kept.translate(None, _NOT_SEPARATORS)) > 0) and (
            self._stems.search(text.lower() if plain else lowered(text)) is not None
        )
        if not (forms or cards or named):
            return None
        # In the order of the table, whatever the order in which they were found.
        return SuspectedSecrets(tuple(map(FORMS.__getitem__, sorted(set(forms)))), cards, named)


def everything() -> SuspectedSecrets:
    """What a text may hold of which nothing is known."""
    return SuspectedSecrets(FORMS, cards=True, named=True)
