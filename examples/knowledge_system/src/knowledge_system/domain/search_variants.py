"""Query expansion: spelling variants of a word, and words typed without a space.

Three kinds of variants are equivalent: hiragana and katakana (こんくりーと, コンクリート), old and new forms of a
kanji (髙橋, 高橋), and the words of ``content/spellings.toml``. The index normalises width and case (NFKC).
Variants are added to the query, so that the index does not change and two releases can share it.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from itertools import combinations, islice, product
from typing import Any, Final

__all__ = ["equal_letters", "folded", "spelling_variants", "split_compounds"]

_MOST: Final = 8
_LONGEST: Final = 200
_KATAKANA: Final = r"\u30a1-\u30fa\u30fc"
# Letters that exist in both scripts; the long vowel mark is the same in both.
_HIRAGANA_LETTERS: Final = "".join(map(chr, (*range(0x3041, 0x3097), 0x309D, 0x309E)))
_KATAKANA_LETTERS: Final = "".join(chr(ord(letter) + 0x60) for letter in _HIRAGANA_LETTERS)
_TO_KATAKANA: Final = str.maketrans(_HIRAGANA_LETTERS, _KATAKANA_LETTERS)
_TO_HIRAGANA: Final = str.maketrans(_KATAKANA_LETTERS, _HIRAGANA_LETTERS)
# A single kana is an ending (締め) or a particle, which is not written in the other script.
_KANA_RUN: Final = (
    rf"[{_HIRAGANA_LETTERS}][{_HIRAGANA_LETTERS}\u30fc]+|[{_KATAKANA_LETTERS}][{_KATAKANA_LETTERS}\u30fc]+"
)
# ローラー is also written ローラ.
_LONG_END: Final = re.compile(rf"[{_KATAKANA}]{{3,}}\u30fc")
_KANJI: Final = r"\u3005\u3400-\u9fff"
_SCRIPT: Final = re.compile(
    rf"[{_KANJI}]+|[{_KATAKANA}]+|[\u3041-\u3096]+|[^\W\u3041-\u30ff{_KANJI}]+|\S",
)
_SHORTEST: Final = 2


@lru_cache(maxsize=1024)
def spelling_variants(word: str) -> tuple[str, ...]:
    """Return the word followed by its variants, those with the fewest changes first; at most 9 in total."""
    choices = [choice for part, same in _by_words(word) for choice in ([same] if same else _letters(part))]
    if all(len(choice) == 1 for choice in choices):
        return (word,)
    return (word, *islice(_changed(choices), 1, _MOST + 1))


@lru_cache(maxsize=256)
def split_compounds(query: str) -> tuple[str, ...]:
    """Split a query where the script changes, with variants: 鉄筋かぶり may mean 鉄筋 and かぶり."""
    choices = [same or (part,) for part, same in _by_words(query)]
    spellings = islice(map("".join, product(*choices)), _MOST)
    return tuple(dict.fromkeys(filter(None, map(_apart, spellings))))


def equal_letters(letter: str) -> frozenset[str]:
    """Return all characters equivalent to this one, including itself."""
    return _equal().get(letter, frozenset((letter,)))


def folded(text: str) -> str:
    """Replace each character by the representative of its equivalents, position by position."""
    return text.translate(_folds())


def _by_words(query: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the parts of a query, each with its variants if it is in the word list."""
    typed = unicodedata.normalize("NFKC", query[:_LONGEST])
    end = 0
    for word in _words().finditer(typed):
        yield typed[end : word.start()], ()
        yield word[0], _same_words(word[0])
        end = word.end()
    yield typed[end:], ()


def _letters(part: str) -> Iterator[tuple[str, ...]]:
    """Yield the alternatives of each kana run and each kanji in a part without listed words."""
    end = 0
    for found in _kana_and_variants().finditer(part):
        yield (part[end : found.start()],)
        typed = found[0]
        if typed in _equal() and len(typed) == 1:
            yield (typed, *sorted(equal_letters(typed) - {typed}))
        else:
            yield tuple(dict.fromkeys((typed, *_kana(typed))))
        end = found.end()
    yield (part[end:],)


def _kana(word: str) -> Iterator[str]:
    katakana, hiragana = word.translate(_TO_KATAKANA), word.translate(_TO_HIRAGANA)
    yield from (katakana, hiragana)
    if _LONG_END.fullmatch(katakana):
        yield from (katakana[:-1], hiragana[:-1])


def _changed(choices: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield the original, then all combinations with one change, then with two, and so on."""
    open_ = [place for place, choice in enumerate(choices) if len(choice) > 1]
    for number in range(len(open_) + 1):
        for places in combinations(open_, number):
            for picked in product(*(choices[place][1:] for place in places)):
                changes = dict(zip(places, picked, strict=True))
                yield "".join(changes.get(place, choice[0]) for place, choice in enumerate(choices))


def _apart(query: str) -> str:
    parts = [_SCRIPT.findall(run) for run in query.split()]
    compound = [word for words in parts if len(words) > 1 for word in words]
    if not compound or min(map(len, compound)) < _SHORTEST:
        return ""
    return " ".join(word for words in parts for word in words)


def _same_words(typed: str) -> tuple[str, ...]:
    group = _same()[folded(typed.casefold())]
    kana = _kana(typed) if re.fullmatch(_KANA_RUN, typed) else ()
    others = {other.casefold(): other for other in (*group, *kana)}
    others.pop(typed.casefold(), None)
    return (typed, *others.values())


@cache
def _words() -> re.Pattern[str]:
    # A kana word also matches within a longer word; an abbreviation matches only as a whole word.
    return re.compile(
        "|".join(
            rf"(?<![a-z0-9]){word}(?![a-z0-9])"
            if word.isascii()
            else "".join(f"[{''.join(sorted(equal_letters(letter)))}]" for letter in word)
            for word in sorted(_same(), key=len, reverse=True)
        ),
        re.IGNORECASE,
    )


@cache
def _kana_and_variants() -> re.Pattern[str]:
    variants = "".join(letter for group in _listed()["letters"] for letter in group)
    return re.compile(rf"{_KANA_RUN}|[{variants}]")


@cache
def _equal() -> Mapping[str, frozenset[str]]:
    groups = [*_listed()["letters"], *zip(_HIRAGANA_LETTERS, _KATAKANA_LETTERS, strict=True)]
    return {letter: frozenset(group) for group in groups for letter in group}


@cache
def _folds() -> Mapping[int, str]:
    return {ord(letter): min(group) for letter, group in _equal().items()}


@cache
def _same() -> Mapping[str, tuple[str, ...]]:
    return {folded(word.casefold()): tuple(group) for group in _listed()["same"] for word in group}


@cache
def _listed() -> Mapping[str, Any]:
    text = files("knowledge_system").joinpath("content", "spellings.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
