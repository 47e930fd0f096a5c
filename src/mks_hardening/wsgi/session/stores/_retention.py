"""How long a store remembers a session that has ended."""

from __future__ import annotations

from typing import Final

__all__ = ["RETENTION"]

# Seconds an ended or expired session is remembered, only so that the reason can be named to late requests.
RETENTION: Final = 300.0
