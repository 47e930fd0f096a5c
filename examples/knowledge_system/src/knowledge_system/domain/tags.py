"""Normalisation of tags."""

from __future__ import annotations

import unicodedata


def key_of(name: str) -> str:
    """Return the key of a tag, equal for ``ＲＣ``, ``RC`` and ``rc``: NFKC, case-folded.

    Case folding can undo the normalisation (Unicode 3.13, D147), so it is applied again.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
