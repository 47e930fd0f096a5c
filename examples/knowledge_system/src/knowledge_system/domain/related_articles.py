"""Related articles, scored by shared tags, site, category and words of the titles."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

_OTHER = re.compile(r"[\W_]+")
_TAG, _SITE, _CATEGORY, _WORDS = 3.0, 2.0, 1.0, 6.0
_LEAST = 1.5
"""Minimum score: below it, articles share only the category and a few characters."""


class Candidate(NamedTuple):
    """An article with the data used for scoring; ``text`` is its title and summary."""

    id: int
    title: str
    text: str
    category: str
    site: str
    tags: frozenset[str]


def nearest(subject: Candidate, candidates: Iterable[Candidate], *, most: int) -> Sequence[Candidate]:
    """Return the most similar candidates, best first; among equal scores, the newest first."""
    grams = _pairs(subject.text)
    weighed = [(_worth(subject, grams, one), one) for one in candidates if one.id != subject.id]
    ordered = sorted(weighed, key=lambda pair: (-pair[0], -pair[1].id))
    return [one for worth, one in ordered[:most] if worth >= _LEAST]


def _worth(subject: Candidate, grams: frozenset[str], one: Candidate) -> float:
    shared = _TAG * len(subject.tags & one.tags)
    shared += _SITE if subject.site and subject.site == one.site else 0
    shared += _CATEGORY if subject.category == one.category else 0
    others = _pairs(one.text)
    both = len(grams & others)
    return shared + _WORDS * both / (len(grams) + len(others) - both or 1)


@lru_cache(maxsize=512)  # the newest of a site are compared with each of its articles
def _pairs(text: str) -> frozenset[str]:
    """Return the character bigrams, as in the search index: Japanese has no spaces between words."""
    plain = _OTHER.sub("", unicodedata.normalize("NFKC", text).casefold())
    return frozenset([plain[i : i + 2] for i in range(len(plain) - 1)])
