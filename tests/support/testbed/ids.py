"""Test case names that are equal in every process, as parallel test runs require."""

from __future__ import annotations

import re

__all__ = ["plain_repr"]


def plain_repr(value: object) -> str:
    """``repr`` without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
