"""Keys in environment variables: decoding, and detection of guessable keys."""

from __future__ import annotations

import base64
import binascii
from typing import Final

__all__ = ["KEY_BYTES", "is_guessable", "key_from_base64"]

KEY_BYTES: Final = 32

# 32 random bytes contain about 30 distinct values; their base64 and hexadecimal text contains at least 10.
_FEWEST_DIFFERENT: Final = 8
_PLACEHOLDERS: Final = (
    b"changeme",
    b"change-me",
    b"change_me",
    b"password",
    b"secret",
    b"example",
    b"default",
)


def key_from_base64(text: str) -> bytes | None:
    """Return 32 bytes from either alphabet of RFC 4648, with or without padding; ``None`` for anything else."""
    padded = text + "=" * (-len(text) % 4)
    try:
        key = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None


def is_guessable(key: bytes) -> bool:
    """Return whether a key was typed rather than generated: few distinct bytes, or a placeholder of an example."""
    lower = key.lower()
    return len(set(key)) < _FEWEST_DIFFERENT or any(word in lower for word in _PLACEHOLDERS)
