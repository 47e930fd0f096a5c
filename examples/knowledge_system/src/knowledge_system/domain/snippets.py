"""Highlighted search terms and short excerpts.

The search index is normalised (NFKC, case-folded); here the text stays unchanged, and each character of the query
matches all its variants: ``ｺﾝｸﾘｰﾄ`` and ``こんくりーと`` are highlighted for ``コンクリート``, and ``髙`` for
``高``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import NamedTuple

from knowledge_system.domain.search_variants import equal_letters, folded, spelling_variants, split_compounds

__all__ = ["MarkedPiece", "excerpt", "marked", "pattern_of"]

_LONGEST_QUERY = 200
_MOST_WORDS = 10
_RUN = re.compile(r"[^\W_]+")
_BEFORE, _LENGTH = 40, 140
# Markdown syntax, which is removed from excerpts.
_MARKS = re.compile(
    r"\[[ xX]\] |!?\[([^\]\n]*)\]\([^)\n]*\)|^[#>|\-+*・ ]+|\*\*|~~|`|\|[-:| ]+\|", re.MULTILINE
)
_HALF_WIDTH = range(0xFF61, 0xFFA0)
_VOICED = "\uff9e\uff9f"
_KANA = frozenset(map(chr, range(0x3041, 0x30FF)))


class MarkedPiece(NamedTuple):
    """A part of a text, and whether it matches the search."""

    text: str
    found: bool


@lru_cache(maxsize=256)
def pattern_of(query: str) -> re.Pattern[str] | None:
    """Compile a query to a pattern of all variants, longest first; ``None`` if there is nothing to match."""
    typed = [
        word
        for text in (query, *split_compounds(query))
        for word in text[:_LONGEST_QUERY].split()[:_MOST_WORDS]
    ]
    words = [_plain(other) for word in typed for other in spelling_variants(word)]
    runs = [run for word in words for run in _RUN.findall(word)]
    # Each character matches its equivalents, so variants that differ only in those are merged.
    wanted = {folded(word): word for word in (*words, *runs) if word}
    if not wanted:
        return None
    return re.compile("|".join(map(_any_spelling, sorted(wanted.values(), key=len, reverse=True))))


def marked(text: str, pattern: re.Pattern[str] | None) -> tuple[MarkedPiece, ...]:
    """Split the whole text into matching and other pieces."""
    if pattern is None:
        return (MarkedPiece(text, found=False),)
    pieces, end = [], 0
    for match in pattern.finditer(text):
        pieces += [MarkedPiece(text[end : match.start()], found=False), MarkedPiece(match[0], found=True)]
        end = match.end()
    pieces.append(MarkedPiece(text[end:], found=False))
    return tuple(piece for piece in pieces if piece.text)


def excerpt(text: str, pattern: re.Pattern[str] | None) -> str:
    """Return an excerpt of a Markdown text around the first match; empty if there is none."""
    match = pattern.search(text) if pattern else None
    if match is None:
        return ""
    begin = max(0, match.start() - _BEFORE)
    end = min(len(text), begin + _LENGTH)
    plain = " ".join(_MARKS.sub(r"\1", text[begin:end]).split())
    return f"{'…' if begin else ''}{plain}{'…' if end < len(text) else ''}"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _any_spelling(word: str) -> str:
    return "".join(_any_form(letter, single=len(word) == 1) for letter in word)


def _any_form(letter: str, *, single: bool) -> str:
    # A single kana matches in its own script only, as in the search.
    equal = {letter} if single and letter in _KANA else equal_letters(letter)
    forms = {form for one in equal for form in (one, one.upper(), *_spellings().get(one, ()))}
    return "(?:" + "|".join(map(re.escape, sorted(forms, key=lambda form: (-len(form), form)))) + ")"


@cache
def _spellings() -> Mapping[str, set[str]]:
    """Map each character to its other forms: full-width letters and symbols, half-width kana."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    kana = [chr(code) for code in _HALF_WIDTH]
    voiced = [letter + mark for letter in kana for mark in _VOICED]
    for written in (*map(chr, range(0xFF01, 0xFF5F)), *kana, *voiced):
        plain = _plain(written)
        if len(plain) == 1:
            found[plain].add(written)
    return found
