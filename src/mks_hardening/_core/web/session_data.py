"""What several packages know of session data: its keys, and its form in the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

__all__ = ["SIGN_IN_FACTS", "json_text"]

SIGN_IN_FACTS: Final = "sign_in"
"""How and when the user of the session was authenticated; written by ``SignIn``, valid in this session only."""

# json.dumps() creates an encoder in each call if it gets options.
json_text: Final[Callable[[object], str]] = json.JSONEncoder(
    allow_nan=False, ensure_ascii=False, separators=(",", ":")
).encode
"""Encode a JSON value as session stores do.

Raises:
    TypeError: JSON cannot represent the value.
    ValueError: NaN, infinity, or a value that contains itself.
"""
