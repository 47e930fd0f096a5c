"""Query expansion: other words for the same thing, and words typed without a space.

The search index of the library treats hiragana and katakana, old and new forms of a kanji, width and case as
equal. This module adds the words of ``content/spellings.toml``, and those without a long vowel mark at the end. It
changes the query, so that the index does not depend on the list.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from itertools import islice, product
from typing import Final

from knowledge_system.domain import content
from mks_hardening.db import SearchIndex

_MOST: Final = 9
_LONGEST: Final = 200
_HIRAGANA: Final = r"\u3041-\u3096"
_KATAKANA: Final = r"\u30a1-\u30fa\u30fc"
# ローラー is also written ローラ.
_LONG_END: Final = re.compile(rf"(?<=[{_HIRAGANA}\u30fc]{{2}}[{_HIRAGANA}])\u30fc(?![{_HIRAGANA}\u30fc])")
_KANJI: Final = r"\u3005\u3400-\u9fff"
_SCRIPT: Final = re.compile(rf"[{_KANJI}]+|[{_KATAKANA}]+|[{_HIRAGANA}]+|[^\W\u3041-\u30ff{_KANJI}]+|\S")
_SHORTEST: Final = 2
_MOST_WORDS: Final = 32


@lru_cache(maxsize=1024)
def spelling_variants(word: str) -> tuple[str, ...]:
    """Return the word followed by its variants; at most 9 in total."""
    choices = [same or _ends(part) for part, same in _by_words(word)]
    return tuple(islice(map("".join, product(*choices)), _MOST))


@lru_cache(maxsize=256)
def split_compounds(query: str) -> tuple[str, ...]:
    """Split a query where the script changes, with variants: 鉄筋かぶり may mean 鉄筋 and かぶり."""
    choices = [same or (part,) for part, same in _by_words(query)]
    spellings = islice(map("".join, product(*choices)), _MOST)
    return tuple(dict.fromkeys(filter(None, map(_apart, spellings))))


def _by_words(query: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the parts of a query, each with its variants if it is in the word list."""
    typed = unicodedata.normalize("NFKC", query[:_LONGEST])
    end = 0
    for word in _words().finditer(_folded(typed)):
        yield typed[end : word.start()], ()
        original = typed[word.start() : word.end()]
        spellings = {word[0]: original}
        for other in _same()[word[0]]:
            spellings.setdefault(_folded(other), other)
        yield original, tuple(spellings.values())
        end = word.end()
    yield typed[end:], ()


def _ends(part: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((part, _LONG_END.sub("", part))))


def _apart(query: str) -> str:
    parts = [_SCRIPT.findall(run) for run in query.split()]
    compound = [word for words in parts if len(words) > 1 for word in words]
    spaced = " ".join(word for words in parts for word in words)
    if not compound or min(map(len, compound)) < _SHORTEST or len(spaced) > _LONGEST:
        return ""
    return spaced if spaced.count(" ") < _MOST_WORDS else ""


@cache
def _words() -> re.Pattern[str]:
    # A kana word also matches within a longer word; an abbreviation matches only as a whole word.
    return re.compile(
        "|".join(
            rf"(?<![a-z0-9]){word}(?![a-z0-9])" if word.isascii() else word
            for word in sorted(_same(), key=len, reverse=True)
        )
    )


@cache
def _same() -> Mapping[str, tuple[str, ...]]:
    return {
        _folded(word): tuple(group) for group in content.read_toml("spellings.toml")["same"] for word in group
    }


def _folded(text: str) -> str:
    """Fold each character as the search index does, keeping its position."""
    return "".join(folded if len(folded := SearchIndex.normalize(letter)) == 1 else letter for letter in text)
