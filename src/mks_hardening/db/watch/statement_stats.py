"""Statistics record of one statement."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StatementStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementStats:
    """Statistics of one statement since the last reset; durations are in milliseconds.

    Percentiles are upper bounds that are at most 5 % too high. ``fingerprint`` is ``other`` for the sum of all
    statements first seen after the table was full.
    """

    fingerprint: str
    calls: int
    errors: int
    rows: int
    total_ms: float
    max_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
