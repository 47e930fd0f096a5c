"""The counters of a cache and the events it emits."""

from __future__ import annotations

from mks_hardening._core import hooks
from mks_hardening.cache.cache_stats import CacheStats
from mks_hardening.events import CachedCall, CacheRead
from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["CacheCounters"]


class CacheCounters:
    """Counts reads, backend errors and bypasses, and emits an event for each.

    Args:
        name: the namespace of a cache, whose events are ``CacheRead``, or the name of a function.
        of_function: whether these are the counters of a function, whose events are ``CachedCall``.
    """

    __slots__ = (
        "_bypasses",
        "_errors",
        "_event",
        "_hit",
        "_hits",
        "_misses",
        "_name",
        "_of_function",
        "_stale",
    )

    def __init__(self, name: str, *, of_function: bool = False) -> None:
        self._name = name
        self._of_function = of_function
        self._event = CachedCall if of_function else CacheRead
        self._hit = self._event(name, "hit")  # made once: making one takes as long as counting it
        self._hits = self._misses = self._stale = self._errors = self._bypasses = 0

    def hit(self) -> None:
        """Count a read that found a fresh value."""
        # Without a lock: losing a count in a race between threads is cheaper than a lock on every hit.
        self._hits += 1
        if hooks.observers:
            hooks.emit(self._hit)

    def read(self, *, found: bool) -> None:
        """Count a read that found a fresh value, or none."""
        if found:
            self.hit()
            return
        self._misses += 1
        if hooks.observers:
            self._emit("miss")

    def stale(self) -> None:
        """Count an expired value that was returned."""
        self._stale += 1
        self._emit("stale")

    def failed(self, error: BackendUnavailableError) -> None:
        """Count an operation that the backend could not perform."""
        self._errors += 1
        self._emit("error", error.reason)

    def refresh_failed(self) -> None:
        """Emit the event for a stale value that could not be refreshed; counters of a function count it."""
        if self._of_function:
            self._errors += 1
        self._emit("error", "refresh")

    def bypass(self, reason: str) -> None:
        """Count a call that bypassed the cache."""
        self._bypasses += 1
        self._emit("bypass", reason)

    def snapshot(self, *, pending: int) -> CacheStats:
        """Return the current counts."""
        return CacheStats(
            hits=self._hits,
            misses=self._misses,
            stale=self._stale,
            errors=self._errors,
            bypasses=self._bypasses,
            pending_invalidations=pending,
        )

    def _emit(self, outcome: str, reason: str = "") -> None:
        if hooks.observers:
            hooks.emit(self._event(self._name, outcome, reason))
