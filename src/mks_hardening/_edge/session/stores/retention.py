"""Retention of ended sessions in a store."""

from __future__ import annotations

from typing import Final

__all__ = ["RETENTION"]

# Seconds for which an ended or expired session is kept, only to report the reason to later requests.
RETENTION: Final = 300.0
