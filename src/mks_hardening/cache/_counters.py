"""The counts of one cache, and the events that tell of them."""

from __future__ import annotations

from mks_hardening._core import hooks
from mks_hardening.cache.stats import CacheStats
from mks_hardening.events import CacheRead
from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["CacheCounters"]


class CacheCounters:
    """Counts reads, failures of the backend, and calls that went past the cache."""

    __slots__ = ("_bypasses", "_errors", "_hits", "_misses", "_namespace", "_stale")

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._hits = self._misses = self._stale = self._errors = self._bypasses = 0

    def read(self, *, found: bool) -> None:
        """A fresh value was found, or none."""
        if found:
            # Without a lock: a count that is lost in a race between threads is worth less than a lock on every
            # hit.
            self._hits += 1
        else:
            self._misses += 1
        if hooks.observers:
            self._tell("hit" if found else "miss")

    def stale(self) -> None:
        """A value past its time was handed out."""
        self._stale += 1
        self._tell("stale")

    def failed(self, error: BackendUnavailableError) -> None:
        """The backend could not do an operation."""
        self._errors += 1
        self._tell("error", error.reason)

    def refresh_failed(self) -> None:
        """A stale value could not be computed anew."""
        self._tell("error", "refresh")

    def bypass(self, reason: str) -> None:
        """A call went past the cache."""
        self._bypasses += 1
        self._tell("bypass", reason)

    def snapshot(self, *, owed: int) -> CacheStats:
        """The counts as they are now."""
        return CacheStats(
            hits=self._hits,
            misses=self._misses,
            stale=self._stale,
            errors=self._errors,
            bypasses=self._bypasses,
            owed_invalidations=owed,
        )

    def _tell(self, outcome: str, reason: str = "") -> None:
        if hooks.observers:
            hooks.emit(CacheRead(self._namespace, outcome, reason))
