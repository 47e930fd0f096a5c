"""Names of test cases that are the same in every process, as running them side by side needs."""

from __future__ import annotations

import re

__all__ = ["plain_repr"]


def plain_repr(value: object) -> str:
    """``repr`` without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
