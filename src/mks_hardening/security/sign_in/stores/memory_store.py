"""Sign-in store in the memory of one process, for tests and single-process tools."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.security.sign_in.sign_in_protocols import SignInEntry

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["MemorySignInStore"]

_SWEEP: Final = 1024
"""Number of writes between two removals of expired entries."""


class MemorySignInStore(Closing):
    """Store challenges and tokens in memory until they expire or the process ends.

    Not shared between processes.

    Args:
        clock: for tests.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.reset_after_fork()
        self._clock = given_clock(clock)
        self._entries: dict[str, tuple[SignInEntry, float]] = {}
        self._writes = 0
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock: one held by another thread at the time of a fork stays held in the child."""
        self._lock = threading.RLock()

    def load(self, key: str, /) -> SignInEntry | None:
        """Return the entry, unless it has expired."""
        entry, expires_at = self._entries.get(key, (None, 0.0))
        # Monotonic, because setting back a wall clock would revive tokens.
        return entry if self._clock.monotonic() < expires_at else None

    def replace(self, key: str, data: bytes, /, *, expected: str | None, version: str, ttl: float) -> bool:
        """Write an entry if its version is still the expected one."""
        with self._lock:
            present = self.load(key)
            found = None if present is None else present.version
            if found == version:
                return True
            if found != expected:
                return False
            # On writes, without a thread: a store without writes does not grow.
            self._sweep()
            self._entries[key] = (SignInEntry(version, data), self._clock.monotonic() + ttl)
            return True

    async def aload(self, key: str, /) -> SignInEntry | None:
        """``load`` for asyncio."""
        return self.load(key)

    async def areplace(
        self, key: str, data: bytes, /, *, expected: str | None, version: str, ttl: float
    ) -> bool:
        """``replace`` for asyncio."""
        return self.replace(key, data, expected=expected, version=version, ttl=ttl)

    def ping(self) -> bool:
        """Return true."""
        return True

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _sweep(self) -> None:
        self._writes += 1
        if self._writes % _SWEEP:
            return
        now = self._clock.monotonic()
        for key in [key for key, (_, expires_at) in self._entries.items() if expires_at <= now]:
            del self._entries[key]

    def __repr__(self) -> str:
        return f"MemorySignInStore({len(self._entries)} entries)"
