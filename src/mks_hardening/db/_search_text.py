"""Text of a search index: folded characters, grams, the words of a query, and highlighted excerpts."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from operator import add
from typing import Final, NamedTuple, TypeAlias

from mks_hardening._core.checks import text_of
from mks_hardening.exceptions import MksHardeningError

__all__ = [
    "BOUNDARY",
    "SYMBOLS",
    "ExcerptPiece",
    "SearchQueryError",
    "Spelling",
    "Term",
    "excerpt",
    "grams",
    "normalize_text",
    "pairs",
    "query_words",
    "spellings",
]

SYMBOLS: Final = "%+#&_@$"
"""ASCII symbols that belong to words: ``50%``, ``C++``, ``R&D``."""
BOUNDARY: Final = "\u241e"
"""Stands between the title and the body, so that no phrase reaches from one to the other."""
_CHARACTER: Final = rf"(?:[^\W_]|[{re.escape(SYMBOLS)}°±×÷‰¥€£])"  # noqa: RUF001 - the symbols themselves
_RUN: Final = re.compile(f"{_CHARACTER}+")
_WORD: Final = re.compile(r'"([^"]*)"|([^\s"]+)')
_QUOTES: Final = str.maketrans("“”„‟〝〞〟", '"' * 7)
_LONGEST_QUERY: Final = 200
_MOST_WORDS: Final = 32

_HIRAGANA: Final = "".join(map(chr, (*range(0x3041, 0x3097), 0x309D, 0x309E)))
_KATAKANA: Final = "".join(chr(ord(letter) + 0x60) for letter in _HIRAGANA)
_HALF_WIDTH_KANA: Final = [chr(code) for code in range(0xFF61, 0xFFA0)]
_FULL_WIDTH: Final = [chr(code) for code in (*range(0xFF01, 0xFF5F), 0xFFE1, 0xFFE5)]
# Forms of one kanji in names of people, places and companies, the first of which stands for its group: new and old
# forms of the kanji for common use (常用漢字表, 2010) and for names (戸籍法施行規則 別表第二), and forms of family
# registers (文字情報基盤 MJ縮退マップ). 斎 and 斉 are two kanji, but one name in practice.
_KANJI_FORMS: Final = (
    "高髙 崎﨑嵜 吉𠮷 浜濱濵 辺邊邉 斎齋斉齊 広廣 沢澤 国國 島嶋嶌 桜櫻 浅淺 滝瀧 竜龍 黒黑 徳德 恵惠 栄榮 橋槗 "
    "富冨 柳栁 条條 峰峯 桑桒 渕淵 鉄鐵 関關 万萬 円圓 桧檜 薮藪 槙槇 巌巖 宝寶 湾灣 弥彌 寿壽 来來 礼禮 静靜 真眞 "
    "慎愼 渋澁 塩鹽 豊豐 亀龜 瀬瀨 頼賴 館舘 彦彥 顕顯 勲勳 郎郞 晋晉 穂穗 薫薰 寛寬 総總 緑綠 縄繩 荘莊 蔵藏 郷鄕 "
    "衛衞 剣劍 稲稻 鎮鎭 麦麥 黄黃 曽曾 鴎鷗 桟棧"
)
_FOLDS: Final = str.maketrans(
    {
        **dict(zip(_KATAKANA, _HIRAGANA, strict=True)),
        **{form: group[0] for group in _KANJI_FORMS.split() for form in group[1:]},
        **dict.fromkeys("ヶゖ", "け"),  # 霞ヶ関, 霞ケ関
        **dict.fromkeys("ヵゕ", "か"),
    }
)

Spelling: TypeAlias = tuple[str, ...]
"""Phrases that a document must all contain; each is one run of characters, or several with single spaces."""
Term: TypeAlias = tuple[Spelling, ...]
"""A word of a query in all its spellings; a document must contain one of them."""


class SearchQueryError(MksHardeningError, ValueError):
    """A search query is too long; a web application responds with 400."""


class ExcerptPiece(NamedTuple):
    """A part of a text, unchanged, and whether it is a match."""

    text: str
    matches: bool


def normalize_text(text: str | None) -> str:
    """Return the words of a text as they are compared: runs of folded characters, separated by single spaces."""
    # Case folding can undo the normal form (Unicode 3.13, D147), so the text is normalized again.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text or "").casefold())
    return " ".join(_RUN.findall(folded.translate(_FOLDS)))


def pairs(run: str) -> list[str]:
    """Return each pair of adjacent characters."""
    return list(map(add, run, run[1:]))


def grams(text: str) -> list[str]:
    """Return the grams of a normalized text in order: the pairs of each run, then its last character."""
    return [gram for run in text.split() for gram in (*pairs(run), run[-1])]


def query_words(query: str) -> list[str]:
    """Return the distinct phrases and words of a query, normalized.

    Raises:
        ConfigurationError: the query is not a string, for example because a request has none.
        SearchQueryError: the query has more than 200 characters or 32 words.
    """
    text_of(query, parameter="query")
    if len(query) > _LONGEST_QUERY:
        raise SearchQueryError(
            f"a search query has at most {_LONGEST_QUERY} characters, this one has {len(query)}"
        )
    found: dict[str, None] = {}
    for phrase, word in _WORD.findall(unicodedata.normalize("NFKC", query).translate(_QUOTES)):
        found |= dict.fromkeys([normalize_text(phrase)] if phrase else normalize_text(word).split())
    found.pop("", None)
    if len(found) > _MOST_WORDS:
        raise SearchQueryError(f"a search query has at most {_MOST_WORDS} words, this one has {len(found)}")
    return list(found)


def spellings(query: str, synonyms: Callable[[str], Iterable[str]] | None) -> tuple[Term, ...]:
    """Return the words of a query, each with its spellings.

    Raises:
        SearchQueryError: as for ``query_words``.
    """

    def others(word: str) -> Iterable[str]:
        return synonyms(word) if synonyms else ()

    return tuple(
        tuple(
            dict.fromkeys(
                [(word,), *filter(None, (tuple(normalize_text(other).split()) for other in others(word)))]
            )
        )
        for word in query_words(query)
    )


def excerpt(
    text: str, terms: tuple[Term, ...], *, length: int | None, before: int
) -> tuple[ExcerptPiece, ...]:
    """Return the part of a text around the first match, in pieces; empty if nothing matches.

    Args:
        text: the text as it is displayed.
        terms: words of the query.
        length: length of the part in characters; ``None`` returns the whole text, also without a match.
        before: characters before the first match.
    """
    pattern = _pattern(terms)
    first = pattern.search(text) if pattern else None
    if length is not None:
        if first is None:
            return ()
        begin = max(0, first.start() - before)
        end = min(len(text), begin + length)
        text = f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"
    return tuple(piece for piece in _pieces(text, pattern) if piece.text)


def _pieces(text: str, pattern: re.Pattern[str] | None) -> Iterator[ExcerptPiece]:
    end = 0
    for match in pattern.finditer(text) if pattern else ():
        yield ExcerptPiece(text[end : match.start()], matches=False)
        yield ExcerptPiece(match[0], matches=True)
        end = match.end()
    yield ExcerptPiece(text[end:], matches=False)


@lru_cache(maxsize=256)
def _pattern(terms: tuple[Term, ...]) -> re.Pattern[str] | None:
    """Compile the words to a pattern that matches them in every form, longest first."""
    phrases = {phrase for term in terms for spelling in term for phrase in spelling}
    between = rf"(?:(?!{_CHARACTER})[\s\S])+"
    words = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
    forms = (between.join("".join(map(_any_form, run)) for run in phrase.split()) for phrase in words)
    return re.compile("|".join(forms)) if words else None


def _any_form(letter: str) -> str:
    forms = {letter, letter.upper(), *_forms().get(letter, ())}
    return "(?:" + "|".join(map(re.escape, sorted(forms, key=lambda form: (-len(form), form)))) + ")"


@cache
def _forms() -> Mapping[str, set[str]]:
    """Map each folded character to the forms in which it is written."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    voiced = [letter + mark for letter in _HALF_WIDTH_KANA for mark in "\uff9e\uff9f"]
    for written in (*_FULL_WIDTH, *_HALF_WIDTH_KANA, *voiced, *map(chr, _FOLDS)):
        folded = normalize_text(written)
        if len(folded) == 1:
            found[folded].add(written)
    return found
