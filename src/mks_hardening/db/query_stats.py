"""Durations per statement in bounded memory: counts, rows, errors and percentiles from logarithmic buckets."""

from __future__ import annotations

from math import log2
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["QueryStats", "StatementStats"]

_FASTEST: Final = 1e-6
_PER_DOUBLING: Final = 4  # buckets are 19 % wide, so a percentile is at most that much too high
_BUCKETS: Final = 30 * _PER_DOUBLING  # up to 18 minutes
_LONGEST_TEXT: Final = 8192
_MOST_TEXTS: Final = 4096
_OTHER: Final = "other"


class StatementStats(NamedTuple):
    """What is known of one statement since the last reset; durations are milliseconds.

    Percentiles are upper bounds that are at most 19 % too high. ``fingerprint`` is ``other`` for the sum of all
    statements that came after the table was full.
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


class _Row:
    __slots__ = ("buckets", "calls", "errors", "longest", "rows", "total")

    def __init__(self) -> None:
        self.calls = self.errors = self.rows = 0
        self.total = self.longest = 0.0
        self.buckets = [0] * _BUCKETS

    def add(self, duration: float, rows: int, *, failed: bool) -> None:
        self.calls += 1
        self.errors += failed
        self.rows += rows
        self.total += duration
        self.longest = max(self.longest, duration)
        bucket = int(log2(duration / _FASTEST) * _PER_DOUBLING) if duration > _FASTEST else 0
        self.buckets[min(bucket, _BUCKETS - 1)] += 1

    def percentile(self, share: float) -> float:
        wanted = share * self.calls
        seen = 0
        for number, count in enumerate(self.buckets):
            seen += count
            if count and seen >= wanted:
                return min(self.longest, _FASTEST * 2 ** ((number + 1) / _PER_DOUBLING))
        return self.longest

    def frozen(self, fingerprint: str) -> StatementStats:
        shares = (1000 * self.percentile(share) for share in (0.5, 0.95, 0.99))
        return StatementStats(
            fingerprint, self.calls, self.errors, self.rows, 1000 * self.total, 1000 * self.longest, *shares
        )


class QueryStats:
    """A table of at most ``capacity`` fingerprints; the rest is added up in one row called ``other``."""

    __slots__ = ("_by_text", "_capacity", "_fingerprint", "_lock", "_rows")

    def __init__(self, fingerprint: Callable[[str], str], *, capacity: int) -> None:
        self._fingerprint = fingerprint
        self._capacity = capacity
        self._lock = Lock()
        self._rows: dict[str, _Row] = {}
        self._by_text: dict[str, _Row] = {}  # spares the lexer on statements seen before

    def add(self, text: str, duration: float, rows: int, *, failed: bool) -> None:
        """Count one execution of the statement."""
        row = self._by_text.get(text)
        fingerprint = "" if row else self._fingerprint(text)
        with self._lock:
            (row or self._row(text, fingerprint)).add(duration, rows, failed=failed)

    def _row(self, text: str, fingerprint: str) -> _Row:
        if fingerprint not in self._rows and len(self._rows) >= self._capacity:
            fingerprint = _OTHER
        row = self._rows.setdefault(fingerprint, _Row())
        if len(text) <= _LONGEST_TEXT:
            if len(self._by_text) >= _MOST_TEXTS:
                self._by_text.clear()
            self._by_text[text] = row
        return row

    def snapshot(self) -> list[StatementStats]:
        """All rows, those that took most time in total first."""
        with self._lock:
            rows = [row.frozen(fingerprint) for fingerprint, row in self._rows.items()]
        return sorted(rows, key=lambda row: -row.total_ms)

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._rows.clear()
            self._by_text.clear()
