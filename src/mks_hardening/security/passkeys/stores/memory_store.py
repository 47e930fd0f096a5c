"""Owners and challenges of passkeys in the memory of one process, for tests and single-process tools."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.process.after_fork import renew_in_child

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["MemoryPasskeyStore"]

_MOST_CHALLENGES: Final = 10_000


class MemoryPasskeyStore(Closing):
    """Keeps owners and challenges until the process ends; not shared between processes.

    Args:
        clock: for tests.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.renew()
        self._clock = given_clock(clock)
        self._owners: dict[str, str] = {}
        self._challenges: dict[str, tuple[bytes, float]] = {}
        renew_in_child(self)

    def renew(self) -> None:
        """A fresh lock: one held by another thread at the moment of a fork stays held in the child."""
        self._lock = threading.RLock()

    def keep_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None:
        """Keep what belongs to a challenge for so many seconds; the oldest of too many gives way."""
        now = self._clock.monotonic()
        with self._lock:
            self._challenges[key] = (data, now + ttl)
            # They expire in the order in which they came, all with one ttl, so the walk ends at the first living
            # one.
            for oldest in list(self._challenges):
                if self._challenges[oldest][1] > now and len(self._challenges) <= _MOST_CHALLENGES:
                    break
                del self._challenges[oldest]

    def take_challenge(self, key: str, /) -> bytes | None:
        """What belongs to a challenge, once."""
        with self._lock:
            found = self._challenges.pop(key, None)
        return found[0] if found is not None and self._clock.monotonic() < found[1] else None

    def claim(self, credential: str, user_id: str, /) -> str:
        """Make a user the owner of a credential that has none; who the owner is."""
        with self._lock:
            return self._owners.setdefault(credential, user_id)

    def owner(self, credential: str, /) -> str | None:
        """Whose a credential is."""
        return self._owners.get(credential)

    def release(self, credential: str, user_id: str, /) -> bool:
        """Forget a credential if it is this user's; whether it was."""
        with self._lock:
            if self._owners.get(credential) != user_id:
                return False
            del self._owners[credential]
            return True

    def ping(self) -> bool:
        """Always true."""
        return True

    def close(self) -> None:
        """Nothing to release."""

    async def akeep_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None:
        """``keep_challenge`` for asyncio."""
        self.keep_challenge(key, data, ttl=ttl)

    async def atake_challenge(self, key: str, /) -> bytes | None:
        """``take_challenge`` for asyncio."""
        return self.take_challenge(key)

    async def aclaim(self, credential: str, user_id: str, /) -> str:
        """``claim`` for asyncio."""
        return self.claim(credential, user_id)

    async def aowner(self, credential: str, /) -> str | None:
        """``owner`` for asyncio."""
        return self.owner(credential)

    async def arelease(self, credential: str, user_id: str, /) -> bool:
        """``release`` for asyncio."""
        return self.release(credential, user_id)

    def __repr__(self) -> str:
        return f"MemoryPasskeyStore({len(self._owners)} passkeys)"
