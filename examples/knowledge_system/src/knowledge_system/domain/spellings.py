"""What somebody may mean who searches: other spellings of a word, and words that were typed without a blank."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from itertools import islice, product
from typing import Final

__all__ = ["apart", "spelt"]

_MOST: Final = 8
_LONGEST: Final = 200
_KATAKANA: Final = r"\u30a1-\u30fa\u30fc"
# ローラー is also written ローラ.
_LONG_END: Final = rf"[{_KATAKANA}]{{3,}}\u30fc(?![{_KATAKANA}])"
_KANJI: Final = r"\u3005\u3400-\u9fff"
_SCRIPT: Final = re.compile(
    rf"[{_KANJI}]+|[{_KATAKANA}]+|[\u3041-\u3096]+|[^\W\u3041-\u30ff{_KANJI}]+|\S",
)
_SHORTEST: Final = 2


@lru_cache(maxsize=256)
def spelt(query: str) -> tuple[str, ...]:
    """The query, and the same in other spellings of its words."""
    typed = unicodedata.normalize("NFKC", query[:_LONGEST])
    choices: list[tuple[str, ...]] = []
    end = 0
    for word in _words().finditer(typed):
        choices += [(typed[end : word.start()],), _choices(word[0])]
        end = word.end()
    if not choices:
        return (query,)
    others = islice(map("".join, product(*choices, (typed[end:],))), 1, _MOST)
    return (query, *others)


@lru_cache(maxsize=256)
def apart(query: str) -> tuple[str, ...]:
    """The words of the query where its script changes, in all spellings: 鉄筋かぶり may be 鉄筋 and かぶり."""
    return tuple(dict.fromkeys(filter(None, map(_apart, spelt(query)))))


def _apart(query: str) -> str:
    parts = [_SCRIPT.findall(run) for run in unicodedata.normalize("NFKC", query[:_LONGEST]).split()]
    compound = [word for words in parts if len(words) > 1 for word in words]
    if not compound or min(map(len, compound)) < _SHORTEST:
        return ""
    return " ".join(word for words in parts for word in words)


def _choices(word: str) -> tuple[str, ...]:
    same = _same().get(word.casefold(), (word[:-1],))
    return (word, *(other for other in same if other.casefold() != word.casefold()))


@cache
def _words() -> re.Pattern[str]:
    known = sorted(_same(), key=len, reverse=True)
    # A kana word may stand within a longer one, an abbreviation only alone.
    whole = (rf"(?<![a-z0-9]){word}(?![a-z0-9])" if word.isascii() else word for word in known)
    return re.compile("|".join([*whole, _LONG_END]), re.IGNORECASE)


@cache
def _same() -> Mapping[str, tuple[str, ...]]:
    text = files("knowledge_system").joinpath("content", "spellings.toml").read_text(encoding="utf-8")
    return {word.casefold(): tuple(group) for group in tomllib.loads(text)["same"] for word in group}
