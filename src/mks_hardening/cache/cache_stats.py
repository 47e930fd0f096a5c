"""Statistics of a cache."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """Counts in this process since the cache was created.

    Attributes:
        hits: values found.
        misses: values not found, including damaged ones.
        stale: expired values returned while a new one was computed.
        errors: operations that the backend could not perform.
        bypasses: calls that were not cached (condition, not plain data, value too large).
        pending_invalidations: keys, tags and patterns that were invalidated during an outage and that the
            backend has not received yet; the current number, not a total.
    """

    hits: int = 0
    misses: int = 0
    stale: int = 0
    errors: int = 0
    bypasses: int = 0
    pending_invalidations: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of reads that found a value, fresh or stale, from 0 to 1."""
        reads = self.hits + self.stale + self.misses
        return (self.hits + self.stale) / reads if reads else 0.0
