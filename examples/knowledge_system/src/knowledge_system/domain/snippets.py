"""Highlighted search terms and short excerpts of Markdown texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from knowledge_system.domain.search_variants import spelling_variants, split_compounds
from mks_hardening.db import SearchIndex

# Markdown syntax, which is removed from excerpts.
_MARKS = re.compile(
    r"\[[ xX]\] |!?\[([^\]\n]*)\]\([^)\n]*\)|^[#>|\-+*・ ]+|\*\*|~~|`|\|[-:| ]+\|", re.MULTILINE
)


def _all_spellings(word: str) -> Iterable[str]:
    return (*spelling_variants(word), *split_compounds(word))


_index = SearchIndex("article_search", synonyms=_all_spellings)


def marked(text: str, query: str) -> list[dict[str, Any]]:
    """Split the whole text into matching and other pieces."""
    return [
        {"text": piece.text, "found": piece.matches} for piece in _index.excerpt(text, query, length=None)
    ]


def excerpt(text: str, query: str) -> list[dict[str, Any]]:
    """Return an excerpt of a Markdown text around the first match in pieces; empty if there is none."""
    plain = " ".join(_MARKS.sub(r"\1", text).split())
    return [{"text": piece.text, "found": piece.matches} for piece in _index.excerpt(plain, query)]
