"""Base classes of the stores in the memory of one process, for tests and single-process tools."""

from __future__ import annotations

import threading
from math import inf
from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.process.after_fork import register_after_fork

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["MemoryRecords", "MemoryStoreBase"]

_SWEEP: Final = 1024
"""Number of writes between two removals of expired records."""


class MemoryStoreBase(Closing):
    """A store with a lock and a clock."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.reset_after_fork()
        self._clock = given_clock(clock)
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock: one held by another thread at the time of a fork stays held in the child."""
        self._lock = threading.RLock()

    def ping(self) -> bool:
        """Return true."""
        return True

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class MemoryRecords(MemoryStoreBase):
    """Records of a version and bytes, changed by compare-and-set."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(clock=clock)
        self._records: dict[str, tuple[str, bytes, float]] = {}
        self._writes = 0

    def _load_record(self, key: str) -> tuple[str, bytes] | None:
        # Without the lock: one dict lookup is atomic, and the compare-and-set detects an outdated record.
        found = self._records.get(key)
        # Monotonic, because setting back a wall clock would revive tokens.
        return found[:2] if found is not None and self._clock.monotonic() < found[2] else None

    def _replace_record(
        self, key: str, data: bytes | None, expected: str | None, version: str, *, ttl: float = inf
    ) -> bool:
        with self._lock:
            present = self._load_record(key)
            found = None if present is None else present[0]
            # A retry after a lost response: the change is already in place.
            if found == version or (data is None and found is None):
                return True
            if found != expected:
                return False
            if data is None:
                del self._records[key]
                return True
            # On writes, without a thread: a store without writes does not grow.
            self._sweep()
            self._records[key] = (version, data, self._clock.monotonic() + ttl)
            return True

    def _sweep(self) -> None:
        self._writes += 1
        if self._writes % _SWEEP:
            return
        now = self._clock.monotonic()
        for key in [key for key, (_, _, expires_at) in self._records.items() if expires_at <= now]:
            del self._records[key]
