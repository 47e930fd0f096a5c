"""Writes that a server has not received: deduplicated by key, bounded, and flushed when the server is back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import RLock
from typing import Generic, TypeVar

from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["FlushThread", "PendingWrites"]

K = TypeVar("K")


class PendingWrites(Generic[K]):
    """Keys of idempotent writes that failed, each with the version of the latest one. State without I/O.

    Args:
        most: maximum number of keys.
        everything: the key that stands for all others beyond the maximum.

    Attributes:
        changes: how often pending writes were flushed or superseded. A reader that finds it changed must read
            again: what it read before may be older than a write that is not pending any more.
    """

    __slots__ = ("__weakref__", "_everything", "_lock", "_most", "_version", "_versions", "changes")

    def __init__(self, *, most: int, everything: K) -> None:
        self._versions: dict[K, int] = {}
        self._version = 0
        self._most = most
        self._everything = everything
        self.changes = 0
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child, which inherits the pending writes: they are idempotent."""
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._versions)

    def __contains__(self, key: object) -> bool:
        return key in self._versions

    def add(self, keys: Iterable[K]) -> None:
        """Add writes that failed."""
        with self._lock:
            self._version += 1
            self._versions.update(dict.fromkeys(keys, self._version))
            if len(self._versions) > self._most:
                self._versions = {self._everything: self._version}

    def supersede(self, keys: Iterable[K]) -> None:
        """Drop the pending writes of keys that have been written since."""
        with self._lock:
            for key in keys:
                if self._versions.pop(key, None) is not None:
                    self.changes += 1

    def snapshot(self) -> dict[K, int]:
        """Return the pending writes with their versions, to be flushed."""
        with self._lock:
            return dict(self._versions)

    def mark_flushed(self, snapshot: Mapping[K, int]) -> None:
        """Drop writes that the server has received, except those added again since the snapshot."""
        with self._lock:
            for key, version in snapshot.items():
                if self._versions.get(key) == version:
                    del self._versions[key]
            self.changes += 1


class FlushThread:
    """Background thread that flushes pending writes as soon as the server is back, and then ends.

    While the circuit breaker is open an attempt takes microseconds, so it may try often.

    Args:
        flush: tries once; returns whether there is more to do.
        every: seconds between two attempts.
        name: name of the thread.
    """

    __slots__ = ("_closed", "_flush", "start")

    def __init__(self, flush: Callable[[], bool], *, every: float, name: str) -> None:
        self._flush = flush
        self._closed = False
        self.start = IntervalThread(self._try_once, every=every, name=name).start

    def close(self, *, last_try: bool = False) -> bool:
        """End the thread, after a last attempt in this one if wanted; return whether that left more to do."""
        more = last_try and self._try_once()
        self._closed = True
        return more

    def _try_once(self) -> bool:
        if self._closed:
            return False
        try:
            return self._flush()
        except BackendUnavailableError as error:
            # A closed client never responds again, and the thread must not outlive its owner.
            return error.reason != "closed"
