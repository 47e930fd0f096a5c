"""Which articles belong to another one: shared tags, the same site and category, words of their titles. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Candidate", "nearest"]

_OTHER = re.compile(r"[\W_]+")
_TAG, _SITE, _CATEGORY, _WORDS = 3.0, 2.0, 1.0, 6.0
_LEAST = 1.5
"""Below this, the same category and a few letters are all that two articles share."""


class Candidate(NamedTuple):
    """An article as far as it matters for this; ``text`` is its title and summary."""

    id: int
    title: str
    text: str
    category: str
    site: str
    tags: frozenset[str]


def nearest(subject: Candidate, candidates: Iterable[Candidate], *, most: int) -> Sequence[Candidate]:
    """The candidates that have most in common with the subject, nearest first; of equal ones the newest."""
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


@lru_cache(maxsize=512)  # the newest of a site are weighed for each of its articles
def _pairs(text: str) -> frozenset[str]:
    """Neighbouring letters, as the search sees them: Japanese has no blanks between words."""
    plain = _OTHER.sub("", unicodedata.normalize("NFKC", text).casefold())
    return frozenset([plain[i : i + 2] for i in range(len(plain) - 1)])
