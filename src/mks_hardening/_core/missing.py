"""Sentinel that users cannot store, to distinguish a missing value from ``None``."""

from __future__ import annotations

import enum
from typing import Final, Literal

__all__ = ["MISSING", "Missing", "MissingType"]


class Missing(enum.Enum):
    """Single-member enum, so that type checkers can narrow on ``is MISSING``."""

    MISSING = enum.auto()

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MissingType = Literal[Missing.MISSING]
MISSING: Final = Missing.MISSING
