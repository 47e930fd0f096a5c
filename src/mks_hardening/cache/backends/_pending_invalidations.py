"""Invalidations that Redis has not received: enforced in this process at once, sent to Redis later.

State without I/O. It is bounded: beyond the maximum, the whole namespace counts as invalidated, which takes no
memory and costs nothing but hits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from threading import RLock
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.cache.backends._key_glob import glob_pattern

__all__ = ["PendingInvalidations", "PendingSnapshot", "pending_invalidations_of"]

_MOST: Final = 1000
_EVERYTHING: Final = "*"


class PendingSnapshot(NamedTuple):
    """A snapshot of the pending invalidations; each with the number of the latest call that added it."""

    keys: Mapping[str, int]
    tags: Mapping[str, int]
    patterns: Mapping[str, int]

    def __bool__(self) -> bool:
        return bool(self.keys or self.tags or self.patterns)


class PendingInvalidations:
    """Keys, tags and patterns whose invalidation Redis has not received."""

    __slots__ = ("__weakref__", "_keys", "_lock", "_number", "_patterns", "_tags", "any", "settlements")

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}
        self._tags: dict[str, int] = {}
        self._patterns: dict[str, int] = {}
        self._number = 0
        self.any = False
        self.settlements = 0
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child, which inherits the pending invalidations."""
        self._lock = RLock()

    def owe(
        self, *, keys: Iterable[str] = (), tags: Iterable[str] = (), patterns: Iterable[str] = ()
    ) -> bool:
        """Add invalidations that failed; return whether they are the first pending ones."""
        with self._lock:
            first = not self.any
            self._number += 1
            self._keys.update(dict.fromkeys(keys, self._number))
            self._tags.update(dict.fromkeys(tags, self._number))
            self._patterns.update(dict.fromkeys(patterns, self._number))
            if len(self) > _MOST:
                self._keys, self._tags, self._patterns = {}, {}, {_EVERYTHING: self._number}
            self.any = True
            return first

    def covers(self, key: str, tags: Iterable[str]) -> bool:
        """Return whether a pending invalidation covers an entry read from Redis."""
        with self._lock:
            return (
                key in self._keys
                or not self._tags.keys().isdisjoint(tags)
                # Few patterns, each compiled once; keys and tags are dictionary look-ups.
                or any(glob_pattern(pattern).fullmatch(key) for pattern in self._patterns)
            )

    def written(self, keys: Iterable[str]) -> None:
        """Drop the invalidations of keys that have been rewritten, so that no old value is left."""
        with self._lock:
            for key in keys:
                if self._keys.pop(key, None) is not None:
                    self.settlements += 1
            self.any = bool(self)

    def debt(self) -> PendingSnapshot:
        """Return a snapshot of the pending invalidations."""
        with self._lock:
            return PendingSnapshot(dict(self._keys), dict(self._tags), dict(self._patterns))

    def settled(self, debt: PendingSnapshot) -> None:
        """Drop invalidations that Redis has received, except those added again since the snapshot."""
        with self._lock:
            _take(self._keys, debt.keys)
            _take(self._tags, debt.tags)
            _take(self._patterns, debt.patterns)
            self.settlements += 1
            self.any = bool(self)

    def __len__(self) -> int:
        return len(self._keys) + len(self._tags) + len(self._patterns)


_by_place: Final[WeakValueDictionary[tuple[Hashable, str], PendingInvalidations]] = WeakValueDictionary()


def pending_invalidations_of(place: Hashable, namespace: str) -> PendingInvalidations:
    """Return the pending invalidations of a namespace on a server, shared by all caches of this process."""
    # By server and not by cache object: two caches with the same namespace must not serve what the other has
    # invalidated.
    return _by_place.setdefault((place, namespace), PendingInvalidations())


def _take(owed: dict[str, int], settled: Mapping[str, int]) -> None:
    for name, number in settled.items():
        # Invalidated again while the first one was being sent: the second one stays pending.
        if owed.get(name) == number:
            del owed[name]
