"""Search in Japanese: text is indexed by pairs and triples of characters and asked for by triples.

Sphinx's own splitter guesses words, and misses compounds and mixed scripts. Terms of up to two characters are
optional to its search, so that a run of three or more has to be asked for by its triples.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sphinx import search

if TYPE_CHECKING:
    from sphinx.application import Sphinx

CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_RUNS = re.compile(f"[{CJK}]+|[^\\W{CJK}]+")


class Japanese(search.SearchLanguage):
    """Splits at scripts, and what is Japanese into pairs and triples."""

    lang = "ja"
    language_name = "Japanese"
    # `var`, because Sphinx's own script declares the name once more.
    js_splitter_code = f"""
var splitQuery = (query) =>
  (query.normalize("NFKC").match(/[{CJK}]+|(?:(?![{CJK}])[\\p{{L}}\\p{{N}}_])+/gu) || []).flatMap((run) =>
    /^[{CJK}]{{3,}}$/.test(run) ? [...run].slice(2).map((c, i) => run.slice(i, i + 2) + c) : [run]);
"""

    def split(self, input: str) -> Iterator[str]:  # type: ignore[override]  # noqa: A002 - the base's name
        """The terms of a text, as the index keeps them."""
        for run in _RUNS.findall(unicodedata.normalize("NFKC", input)):
            if len(run) > 1 and re.fullmatch(f"[{CJK}]+", run):
                for size in (2, 3):
                    yield from (run[start : start + size] for start in range(len(run) - size + 1))
            else:
                yield run


def setup(_: Sphinx) -> dict[str, Any]:
    """Take the place of Sphinx's Japanese."""
    search.languages["ja"] = Japanese
    return {"parallel_read_safe": True}
