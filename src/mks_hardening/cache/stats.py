"""What a cache tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """Counts since the cache was made, in this process.

    Attributes:
        hits: values found.
        misses: values not found, damaged ones included.
        stale: values handed out past their time while a new one was computed.
        errors: operations the backend could not do.
        bypasses: calls that were not cached on purpose (condition, no data, value too large).
        owed_invalidations: keys, tags and patterns that were forgotten while the backend was away, and that it must
            still be told of; now, not since the cache was made.
    """

    hits: int = 0
    misses: int = 0
    stale: int = 0
    errors: int = 0
    bypasses: int = 0
    owed_invalidations: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of reads that found a value, 0 to 1."""
        reads = self.hits + self.stale + self.misses
        return (self.hits + self.stale) / reads if reads else 0.0
