"""Statement statistics in bounded memory: counts, rows, errors, and percentiles from logarithmic buckets."""

from __future__ import annotations

from array import array
from math import log2
from sys import intern
from threading import RLock
from typing import TYPE_CHECKING, Final

from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.context import current
from mks_hardening._core.web.asgi_scope import current_route
from mks_hardening.db.statement.fingerprints import text_key
from mks_hardening.db.watch._call_site import call_site
from mks_hardening.db.watch.statement_stats import StatementCaller, StatementStats

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StatsTable"]

_FASTEST: Final = 1e-6
_PER_DOUBLING: Final = 15  # buckets are 4.8 % wide, so a percentile is at most that much too high
_BUCKETS: Final = 30 * _PER_DOUBLING  # up to 18 minutes
_MOST_TEXTS: Final = 4096
_MOST_CHARACTERS: Final = 1_000_000  # of these texts
_OTHER: Final = "other"
_LONGEST_STATEMENT: Final = 600
_MOST_CALLERS: Final = 10
_SAMPLED_FIRST: Final = 4
_SAMPLED_EVERY: Final = 64  # a power of two; walking the stack costs as much as the rest of the monitor


class _StatementRow:
    __slots__ = ("buckets", "callers", "calls", "errors", "longest", "rows", "statement", "total")

    def __init__(self, statement: str) -> None:
        self.statement = statement
        self.callers: dict[tuple[str, str], int] = {}
        self.calls = self.errors = self.rows = 0
        self.total = self.longest = 0.0
        # Bounded memory per statement; lists of durations would grow without limit (flask-sqlalchemy #181). As
        # long as the slowest execution needs.
        self.buckets = array("I")

    def count(self, bucket: int) -> None:
        """Count a duration for which there is no bucket yet, or whose bucket is full."""
        bucket = min(bucket, _BUCKETS - 1)
        if bucket < len(self.buckets):
            self.buckets = array("Q", self.buckets)
        else:
            self.buckets.extend([0] * (bucket + 1 - len(self.buckets)))
        self.buckets[bucket] += 1

    def note_caller(self, caller: str, route: str) -> None:
        """Count a place."""
        place = (caller, route)
        if place not in self.callers and len(self.callers) >= _MOST_CALLERS:
            place = (_OTHER, "")
        self.callers[place] = self.callers.get(place, 0) + 1

    def percentile(self, share: float) -> float:
        wanted = share * self.calls
        seen = 0
        for number, count in enumerate(self.buckets):
            seen += count
            if count and seen >= wanted:
                return min(self.longest, _FASTEST * 2 ** ((number + 1) / _PER_DOUBLING))
        return self.longest

    def frozen(self, fingerprint: str) -> StatementStats:
        sampled = sum(self.callers.values())
        places = sorted(self.callers.items(), key=lambda item: -item[1])
        return StatementStats(
            fingerprint=fingerprint,
            calls=self.calls,
            errors=self.errors,
            rows=self.rows,
            total_ms=1000 * self.total,
            max_ms=1000 * self.longest,
            p50_ms=1000 * self.percentile(0.5),
            p95_ms=1000 * self.percentile(0.95),
            p99_ms=1000 * self.percentile(0.99),
            statement=self.statement,
            callers=tuple(
                StatementCaller(caller=caller, route=route, share=count / sampled)
                for (caller, route), count in places
            ),
        )


class StatsTable:
    """Statistics of at most ``capacity`` fingerprints; further statements are summed in one row, ``other``."""

    __slots__ = (
        *("__weakref__", "_by_text", "_capacity", "_characters"),
        *("_fingerprint", "_lock", "_normalize", "_rows"),
    )

    def __init__(
        self,
        fingerprint: Callable[[str], str],
        *,
        capacity: int,
        normalize: Callable[[str], str] = lambda text: text,
    ) -> None:
        self._fingerprint = fingerprint
        self._normalize = normalize
        self._capacity = capacity
        self.reset_after_fork()
        register_after_fork(self)
        self._rows: dict[str, _StatementRow] = {}
        self._by_text: dict[str | bytes, _StatementRow] = {}  # saves the lexer for statements seen before
        self._characters = 0

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child, because a thread of the parent may hold it."""
        # Reentrant: the garbage collector may finish an abandoned result while this thread holds the lock.
        self._lock = RLock()

    def add(self, text: str, duration: float, rows: int, *, failed: bool) -> None:
        """Count one execution of a statement."""
        row = self._by_text.get(text)
        if row is None:  # new, or a long text, which is not kept
            row = self._row(text)
        bucket = int(log2(duration / _FASTEST) * _PER_DOUBLING) if duration > _FASTEST else 0
        with self._lock:
            calls = row.calls = row.calls + 1
            if failed:
                row.errors += 1
            row.rows += rows
            row.total += duration
            if duration > row.longest:  # noqa: PLR1730 - max() costs more
                row.longest = duration
            try:
                row.buckets[bucket] += 1
            except (IndexError, OverflowError):
                row.count(bucket)
        if calls <= _SAMPLED_FIRST or not calls & (_SAMPLED_EVERY - 1):
            place = intern(call_site()), intern(str(current().get("route") or current_route()))
            with self._lock:
                row.note_caller(*place)

    def _row(self, text: str) -> _StatementRow:
        key = text_key(text)
        row = self._by_text.get(key)
        if row is not None:
            return row
        fingerprint = self._fingerprint(text)
        with self._lock:
            statement = ""
            if fingerprint not in self._rows:
                if len(self._rows) >= self._capacity:
                    fingerprint = _OTHER
                else:
                    statement = self._normalize(text)[:_LONGEST_STATEMENT]
            row = self._rows.setdefault(fingerprint, _StatementRow(statement))
            self._characters += len(key)
            if len(self._by_text) >= _MOST_TEXTS or self._characters > _MOST_CHARACTERS:
                self._by_text.clear()
                self._characters = len(key)
            self._by_text[key] = row
            return row

    def snapshot(self) -> list[StatementStats]:
        """Return all rows, sorted by total time in descending order."""
        with self._lock:
            rows = [row.frozen(fingerprint) for fingerprint, row in self._rows.items()]
        return sorted(rows, key=lambda row: -row.total_ms)

    def reset(self) -> None:
        """Delete all statistics."""
        with self._lock:
            self._rows.clear()
            self._by_text.clear()
