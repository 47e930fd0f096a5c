"""Which spellings of a tag are the same tag: pure."""

from __future__ import annotations

import unicodedata

__all__ = ["key_of"]


def key_of(name: str) -> str:
    """The same for ``ＲＣ``, ``RC`` and ``rc``: in one form (NFKC), without the case.

    Folding can undo the form (Unicode 3.13, D147), so it is made again.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
