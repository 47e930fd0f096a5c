"""Passkey store in the memory of one process, for tests and single-process tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.security._memory_records import MemoryStoreBase

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["MemoryPasskeyStore"]

_MOST_CHALLENGES: Final = 10_000


class MemoryPasskeyStore(MemoryStoreBase):
    """Store owners and challenges in memory until the process ends; not shared between processes.

    Args:
        clock: for tests.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(clock=clock)
        self._owners: dict[str, str] = {}
        self._challenges: dict[str, tuple[bytes, float]] = {}

    def save_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None:
        """Store the data of a challenge for ``ttl`` seconds; drop the oldest challenges if there are too many."""
        now = self._clock.monotonic()
        with self._lock:
            self._challenges[key] = (data, now + ttl)
            # With a common ttl they expire in the order of insertion, so the loop ends at the first valid one.
            for oldest in list(self._challenges):
                if self._challenges[oldest][1] > now and len(self._challenges) <= _MOST_CHALLENGES:
                    break
                del self._challenges[oldest]

    def consume_challenge(self, key: str, /) -> bytes | None:
        """Return and remove the data of a challenge, unless it has expired."""
        with self._lock:
            found = self._challenges.pop(key, None)
        return found[0] if found is not None and self._clock.monotonic() < found[1] else None

    def assign_owner(self, credential: str, user_id: str, /) -> str:
        """Make a user the owner of a credential without one; return the owner."""
        with self._lock:
            return self._owners.setdefault(credential, user_id)

    def owner(self, credential: str, /) -> str | None:
        """Return the owner of a credential."""
        return self._owners.get(credential)

    def release(self, credential: str, user_id: str, /) -> bool:
        """Remove a credential if it belongs to this user; return whether it did."""
        with self._lock:
            if self._owners.get(credential) != user_id:
                return False
            del self._owners[credential]
            return True

    async def asave_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None:
        """``save_challenge`` for asyncio."""
        self.save_challenge(key, data, ttl=ttl)

    async def aconsume_challenge(self, key: str, /) -> bytes | None:
        """``consume_challenge`` for asyncio."""
        return self.consume_challenge(key)

    async def aassign_owner(self, credential: str, user_id: str, /) -> str:
        """``assign_owner`` for asyncio."""
        return self.assign_owner(credential, user_id)

    async def aowner(self, credential: str, /) -> str | None:
        """``owner`` for asyncio."""
        return self.owner(credential)

    async def arelease(self, credential: str, user_id: str, /) -> bool:
        """``release`` for asyncio."""
        return self.release(credential, user_id)

    def __repr__(self) -> str:
        return f"MemoryPasskeyStore({len(self._owners)} passkeys)"
