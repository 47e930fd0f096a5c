"""Secret keys as operators write them: either alphabet of base64, with or without padding."""

from __future__ import annotations

import base64
from collections.abc import Sequence

__all__ = ["key_bytes"]


def key_bytes(texts: Sequence[str]) -> list[bytes]:
    """The keys themselves; the library has judged them when it read the settings."""
    spelled = (text.strip().replace("-", "+").replace("_", "/") for text in texts)
    return [base64.b64decode(f"{text}==") for text in spelled]
