"""Invalidations that reach Redis in the end, however long it is away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from mks_hardening._core.operations import Op, run
from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache.backends._pending_invalidations import PendingInvalidation, PendingInvalidations
from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["InvalidationReplay"]

T = TypeVar("T")
_EVERY: Final = 0.1
_logger = logging.getLogger("mks_hardening.cache")


class InvalidationReplay:
    """Remembers what failed, refuses what it covers, and tries again in a thread of its own.

    An open breaker costs the thread microseconds, so that it asks often; what it tells Redis is harmless when told
    twice.

    Args:
        owed: what is remembered.
        namespace: for the log.
        keys: the operation that removes keys.
        tags: the operation that removes versions of tags.
        pattern: the operation that removes what matches.
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
        self._was_said = False  # to the log, that they wait
        self._thread = IntervalThread(self._replay, every=_EVERY, name="mks-cache-replay")
        self.covers = owed.covers

    @property
    def any(self) -> bool:
        """Whether Redis must still be told of something."""
        return self._owed.any

    @property
    def settlements(self) -> int:
        """How often something has ceased to be owed: Redis was told, or the key was written anew."""
        return self._owed.settlements

    def __len__(self) -> int:
        return len(self._owed)

    def or_owed(
        self,
        operation: Op[T],
        *,
        keys: Iterable[str] = (),
        tags: Iterable[str] = (),
        patterns: Iterable[str] = (),
    ) -> Op[T]:
        """The operation; where it fails or is cancelled, what it should have forgotten is owed.

        Raises:
            BackendUnavailableError: it failed.
        """
        try:
            return (yield from operation)
        except BackendUnavailableError:
            # One record for an outage, however many invalidations it costs.
            if self._owed.owe(keys=keys, tags=tags, patterns=patterns):
                self._was_said = True
                _logger.warning("invalidations of %r wait until Redis answers", self._namespace)
            self._thread.start()
            raise
        except Exception:  # the call itself was wrong
            raise
        except BaseException:  # cancelled: Redis may know nothing of it
            self._owed.owe(keys=keys, tags=tags, patterns=patterns)
            self._thread.start()
            raise

    def permitted(self, key: str, entry: CacheEntry | None) -> CacheEntry | None:
        """The entry, unless it may be one that was to be forgotten."""
        self._thread.start()  # a forked child owes what its parent owed, and has no thread yet
        return None if entry is None or self._owed.covers(key, entry.tags) else entry

    def written(self, keys: Iterable[str]) -> None:
        """The keys have been written anew."""
        if self._owed.any:
            self._owed.written(keys)

    def last_try(self) -> None:
        """Tell Redis before the connections are given back."""
        if self._owed.any and self._replay():
            _logger.warning(
                "%d invalidations of %r had not reached Redis when the cache was closed",
                len(self),
                self._namespace,
            )

    def _replay(self) -> bool:
        """Whether something is left."""
        debt = self._owed.debt()
        if not debt:
            return False
        try:
            run(self._tell(debt))
        except BackendUnavailableError as error:
            # A client that is closed never answers again; the thread must not outlive its cache.
            return error.reason != "closed"
        self._owed.settled(debt)
        if self._owed.any:
            return True
        if self._was_said:
            self._was_said = False
            _logger.warning("Redis has been told of the invalidations of %r that waited", self._namespace)
        return False

    def _tell(self, debt: PendingInvalidation) -> Op[None]:
        yield from self._keys([*debt.keys])
        yield from self._tags([*debt.tags])
        for pattern in debt.patterns:
            yield from self._pattern(pattern)
