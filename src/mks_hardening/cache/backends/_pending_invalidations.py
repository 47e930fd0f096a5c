"""Invalidations that Redis has not received: enforced in this process at once, sent to Redis when it is back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from threading import RLock
from typing import Final, Literal, TypeVar
from weakref import WeakValueDictionary

from mks_hardening._core.operations import Op, run
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening._core.resilience.outage_log import OutageLog
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache.backends._key_glob import glob_pattern
from mks_hardening.exceptions import BackendUnavailableError

__all__ = [
    "EVERYTHING",
    "Invalidation",
    "InvalidationSender",
    "Kind",
    "PendingInvalidations",
    "pending_invalidations_of",
]

T = TypeVar("T")
Kind = Literal["key", "tag", "pattern"]
Invalidation = tuple[Kind, str]
"""A key, a tag, or a pattern of keys."""

_MOST: Final = 1000
EVERYTHING: Final = "*"
"""The pattern of all keys."""
_EVERYTHING: Final[Invalidation] = ("pattern", EVERYTHING)
_EVERY: Final = 0.1
_logger = logging.getLogger("mks_hardening.cache")


class PendingInvalidations:
    """Keys, tags and patterns of one namespace, each with the version of its last invalidation. State without I/O.

    Beyond the maximum, the whole namespace counts as invalidated: that takes no memory and costs nothing but hits.

    Attributes:
        namespace: the namespace.
        outage: log of the outage.
        changes: how often pending invalidations were flushed or superseded. A reader that finds it changed must
            read again: what it read before may be older than an invalidation that is not pending any more.
    """

    __slots__ = ("__weakref__", "_lock", "_version", "_versions", "changes", "namespace", "outage")

    def __init__(self, namespace: str) -> None:
        self._versions: dict[Invalidation, int] = {}
        self._version = 0
        self.changes = 0
        self.namespace = namespace
        self.outage = OutageLog(
            _logger,
            level=logging.WARNING,
            began="invalidations of %r wait until Redis is available",
            ended=f"the invalidations of {namespace!r} that were pending have been sent to Redis",
        )
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child, which inherits the pending invalidations: they are idempotent."""
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._versions)

    def __contains__(self, key: object) -> bool:
        return key in self._versions

    def add(self, keys: Iterable[Invalidation]) -> None:
        """Add invalidations that failed."""
        with self._lock:
            self._version += 1
            self._versions.update(dict.fromkeys(keys, self._version))
            if len(self._versions) > _MOST:
                self._versions = {_EVERYTHING: self._version}

    def supersede(self, keys: Iterable[Invalidation]) -> None:
        """Drop the pending invalidations of what has been written since."""
        with self._lock:
            for key in keys:
                if self._versions.pop(key, None) is not None:
                    self.changes += 1

    def snapshot(self) -> dict[Invalidation, int]:
        """Return the pending invalidations with their versions, to be flushed."""
        with self._lock:
            return dict(self._versions)

    def mark_flushed(self, snapshot: Mapping[Invalidation, int]) -> None:
        """Drop invalidations that Redis has received, except those added again since the snapshot."""
        with self._lock:
            for key, version in snapshot.items():
                if self._versions.get(key) == version:
                    del self._versions[key]
            self.changes += 1

    def covers(self, key: str, tags: Iterable[str]) -> bool:
        """Return whether a pending invalidation covers an entry read from Redis."""
        return (
            ("key", key) in self
            or any(("tag", tag) in self for tag in tags)
            or any(
                kind == "pattern" and glob_pattern(name).fullmatch(key) is not None
                for kind, name in self.snapshot()
            )
        )


class InvalidationSender:
    """Performs invalidations for one store; those that fail are pending, and sent by a background thread.

    Args:
        pending: the pending invalidations.
        send: for each kind, the operation that sends invalidations to Redis.
    """

    def __init__(
        self, pending: PendingInvalidations, send: dict[Kind, Callable[[Sequence[str]], Op[object]]]
    ) -> None:
        self._pending = pending
        self._send = send
        self._flush = IntervalThread(self._flush_pending, every=_EVERY, name="mks-cache-flush")

    def run_or_defer(self, operation: Op[T], kind: Kind, names: Iterable[str]) -> Op[T]:
        """Perform an invalidation; if it fails or is cancelled, remember it as pending.

        Raises:
            BackendUnavailableError: the operation failed.
        """
        try:
            return (yield from operation)
        except BackendUnavailableError:
            self._pending.outage.failed(self._pending.namespace)
            self._defer(kind, names)
            raise
        except Exception:  # the call itself was invalid
            raise
        except BaseException:  # cancelled: Redis may not have received it
            self._defer(kind, names)
            raise

    def permitted(self, key: str, entry: CacheEntry | None) -> CacheEntry | None:
        """Return the entry, unless a pending invalidation covers it."""
        self._flush.start()  # a forked child inherits the pending invalidations, but not the thread
        return None if entry is None or self._pending.covers(key, entry.tags) else entry

    def close(self) -> None:
        """Try once more before the connections are closed, and log a warning for what remains."""
        if self._flush.close(last_try=True):
            _logger.warning(
                "%d invalidations of %r had not reached Redis when the cache was closed",
                len(self._pending),
                self._pending.namespace,
            )

    def _defer(self, kind: Kind, names: Iterable[str]) -> None:
        self._pending.add((kind, name) for name in names)
        self._flush.start()

    def _flush_pending(self) -> bool:
        pending = self._pending.snapshot()
        if pending:
            run(self._send_all(pending))
            self._pending.mark_flushed(pending)
        if self._pending:
            return True
        self._pending.outage.succeeded()
        return False

    def _send_all(self, pending: Iterable[tuple[Kind, str]]) -> Op[None]:
        names: dict[Kind, list[str]] = {}
        for kind, name in pending:
            names.setdefault(kind, []).append(name)
        for kind, some in names.items():
            yield from self._send[kind](some)


_by_place: Final[WeakValueDictionary[tuple[Hashable, str], PendingInvalidations]] = WeakValueDictionary()


def pending_invalidations_of(place: Hashable, namespace: str) -> PendingInvalidations:
    """Return the pending invalidations of a namespace on a server, shared by all caches of this process."""
    # By server and not by cache object: two caches with the same namespace must not serve what the other has
    # invalidated.
    return _by_place.setdefault((place, namespace), PendingInvalidations(namespace))
