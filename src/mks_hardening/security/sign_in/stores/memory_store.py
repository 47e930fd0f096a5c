"""Sign-in store in the memory of one process, for tests and single-process tools."""

from __future__ import annotations

from mks_hardening.security._memory_records import MemoryRecords
from mks_hardening.security.sign_in.sign_in_protocols import SignInEntry

__all__ = ["MemorySignInStore"]


class MemorySignInStore(MemoryRecords):
    """Store challenges and tokens in memory until they expire or the process ends.

    Not shared between processes.

    Args:
        clock: for tests.
    """

    def load(self, key: str, /) -> SignInEntry | None:
        """Return the entry, unless it has expired."""
        found = self._load_record(key)
        return None if found is None else SignInEntry(*found)

    def replace(self, key: str, data: bytes, /, *, expected: str | None, version: str, ttl: float) -> bool:
        """Write an entry if its version is still the expected one."""
        return self._replace_record(key, data, expected, version, ttl=ttl)

    async def aload(self, key: str, /) -> SignInEntry | None:
        """``load`` for asyncio."""
        return self.load(key)

    async def areplace(
        self, key: str, data: bytes, /, *, expected: str | None, version: str, ttl: float
    ) -> bool:
        """``replace`` for asyncio."""
        return self.replace(key, data, expected=expected, version=version, ttl=ttl)

    def __repr__(self) -> str:
        return f"MemorySignInStore({len(self._records)} entries)"
