"""What this process has forgotten while Redis could not be told: refused here at once, told to Redis later.

Plain state without input or output. It is bounded: beyond that, the whole namespace counts as forgotten, which
needs no memory and loses nothing but hits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from threading import RLock
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from mks_hardening._core.process.after_fork import renew_in_child
from mks_hardening.cache.backends._key_glob import glob_pattern

__all__ = ["PendingInvalidation", "PendingInvalidations", "owed_at"]

_MOST: Final = 1000
_EVERYTHING: Final = "*"


class PendingInvalidation(NamedTuple):
    """What is owed at one moment; each with the number of the call that owed it last."""

    keys: Mapping[str, int]
    tags: Mapping[str, int]
    patterns: Mapping[str, int]

    def __bool__(self) -> bool:
        return bool(self.keys or self.tags or self.patterns)


class PendingInvalidations:
    """Keys, tags and patterns that Redis must still be told of."""

    __slots__ = ("__weakref__", "_keys", "_lock", "_number", "_patterns", "_tags", "any", "settlements")

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}
        self._tags: dict[str, int] = {}
        self._patterns: dict[str, int] = {}
        self._number = 0
        self.any = False
        self.settlements = 0
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """In a forked child: it owes the same."""
        self._lock = RLock()

    def owe(
        self, *, keys: Iterable[str] = (), tags: Iterable[str] = (), patterns: Iterable[str] = ()
    ) -> bool:
        """Remember what could not be told; whether these are the first."""
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
        """Whether an entry in Redis may be one that was to be forgotten."""
        with self._lock:
            return (
                key in self._keys
                or not self._tags.keys().isdisjoint(tags)
                # Few patterns, each compiled once; keys and tags are look-ups.
                or any(glob_pattern(pattern).fullmatch(key) for pattern in self._patterns)
            )

    def written(self, keys: Iterable[str]) -> None:
        """The keys have been written anew, so that nothing old is left of them."""
        with self._lock:
            for key in keys:
                if self._keys.pop(key, None) is not None:
                    self.settlements += 1
            self.any = bool(self)

    def debt(self) -> PendingInvalidation:
        """What is owed now."""
        with self._lock:
            return PendingInvalidation(dict(self._keys), dict(self._tags), dict(self._patterns))

    def settled(self, debt: PendingInvalidation) -> None:
        """Redis was told; what was owed once more meanwhile stays owed."""
        with self._lock:
            _take(self._keys, debt.keys)
            _take(self._tags, debt.tags)
            _take(self._patterns, debt.patterns)
            self.settlements += 1
            self.any = bool(self)

    def __len__(self) -> int:
        return len(self._keys) + len(self._tags) + len(self._patterns)


_by_place: Final[WeakValueDictionary[tuple[Hashable, str], PendingInvalidations]] = WeakValueDictionary()


def owed_at(place: Hashable, namespace: str) -> PendingInvalidations:
    """What is owed to one namespace of one server: all caches of this process that use it refuse the same."""
    # By server and not by cache object: two caches over one namespace must not serve what the other has
    # forgotten.
    return _by_place.setdefault((place, namespace), PendingInvalidations())


def _take(owed: dict[str, int], settled: Mapping[str, int]) -> None:
    for name, number in settled.items():
        # Owed again while Redis was being told: that second debt is not paid by the first payment.
        if owed.get(name) == number:
            del owed[name]
