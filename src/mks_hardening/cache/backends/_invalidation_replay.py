"""Replay invalidations that failed during a Redis outage, however long it lasts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from mks_hardening._core.operations import Op, run
from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache.backends._pending_invalidations import PendingInvalidations, PendingSnapshot
from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["InvalidationReplay"]

T = TypeVar("T")
_EVERY: Final = 0.1
_logger = logging.getLogger("mks_hardening.cache")


class InvalidationReplay:
    """Remembers failed invalidations, rejects the entries they cover, and retries in a background thread.

    While the circuit breaker is open an attempt takes microseconds, so the thread can retry often. Invalidations
    are idempotent.

    Args:
        owed: the pending invalidations.
        namespace: for log records.
        keys: the operation that removes keys.
        tags: the operation that removes versions of tags.
        pattern: the operation that removes the keys that match a pattern.
    """

    def __init__(
        self,
        owed: PendingInvalidations,
        *,
        namespace: str,
        keys: Callable[[Sequence[str]], Op[object]],
        tags: Callable[[Sequence[str]], Op[object]],
        pattern: Callable[[str], Op[object]],
    ) -> None:
        self._namespace = namespace
        self._keys = keys
        self._tags = tags
        self._pattern = pattern
        self._owed = owed
        self._was_logged = False  # whether a log record reported pending invalidations
        self._thread = IntervalThread(self._replay, every=_EVERY, name="mks-cache-replay")
        self.covers = owed.covers

    @property
    def any(self) -> bool:
        """Whether invalidations are pending."""
        return self._owed.any

    @property
    def settlements(self) -> int:
        """How often a pending invalidation was settled: sent to Redis, or superseded by a write of its key."""
        return self._owed.settlements

    def __len__(self) -> int:
        return len(self._owed)

    def run_or_defer(
        self,
        operation: Op[T],
        *,
        keys: Iterable[str] = (),
        tags: Iterable[str] = (),
        patterns: Iterable[str] = (),
    ) -> Op[T]:
        """Perform an invalidation; if it fails or is cancelled, remember it as pending.

        Raises:
            BackendUnavailableError: the operation failed.
        """
        try:
            return (yield from operation)
        except BackendUnavailableError:
            # One log record per outage, however many invalidations fail.
            if self._owed.owe(keys=keys, tags=tags, patterns=patterns):
                self._was_logged = True
                _logger.warning("invalidations of %r wait until Redis answers", self._namespace)
            self._thread.start()
            raise
        except Exception:  # the call itself was invalid
            raise
        except BaseException:  # cancelled: Redis may not have received it
            self._owed.owe(keys=keys, tags=tags, patterns=patterns)
            self._thread.start()
            raise

    def permitted(self, key: str, entry: CacheEntry | None) -> CacheEntry | None:
        """Return the entry, unless a pending invalidation covers it."""
        self._thread.start()  # a forked child inherits the pending invalidations, but not the thread
        return None if entry is None or self._owed.covers(key, entry.tags) else entry

    def written(self, keys: Iterable[str]) -> None:
        """Record that the keys have been rewritten, which settles their invalidations."""
        if self._owed.any:
            self._owed.written(keys)

    def flush(self) -> None:
        """Try once more before the connections are closed, and log a warning for what remains."""
        if self._owed.any and self._replay():
            _logger.warning(
                "%d invalidations of %r had not reached Redis when the cache was closed",
                len(self),
                self._namespace,
            )

    def _replay(self) -> bool:
        """Send the pending invalidations; return whether the thread has to continue."""
        debt = self._owed.debt()
        if not debt:
            return False
        try:
            run(self._tell(debt))
        except BackendUnavailableError as error:
            # A closed client never responds again, and the thread must not outlive its cache.
            return error.reason != "closed"
        self._owed.settled(debt)
        if self._owed.any:
            return True
        if self._was_logged:
            self._was_logged = False
            _logger.warning("Redis has been told of the invalidations of %r that waited", self._namespace)
        return False

    def _tell(self, debt: PendingSnapshot) -> Op[None]:
        yield from self._keys([*debt.keys])
        yield from self._tags([*debt.tags])
        for pattern in debt.patterns:
            yield from self._pattern(pattern)
