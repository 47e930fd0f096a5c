"""Decoding of secret keys in either base64 alphabet, with or without padding."""

from __future__ import annotations

import base64
from collections.abc import Sequence


def key_bytes(texts: Sequence[str]) -> list[bytes]:
    """Decode the keys, which the library validated when it read the settings."""
    spelled = (text.strip().replace("-", "+").replace("_", "/") for text in texts)
    return [base64.b64decode(f"{text}==") for text in spelled]
